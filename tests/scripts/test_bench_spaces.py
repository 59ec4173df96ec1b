"""`hwnas bench spaces` on planted tables of FBNet's blocks."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from numpy.typing import NDArray

from hwnas.scripts import bench_blocks, bench_spaces
from hwnas.scripts.bench_blocks import _explained_by_order, _explained_by_pairs, block_figures
from hwnas.scripts.fbnet_blocks import LAYERS, OPTIONS, choices, fbnet_blocks
from hwnas.spaces.catalog import SPACES
from hwnas.spaces.errors import InvalidFileError, UnavailableError

from .command import Hwnas
from .test_space_commands import MOBILENETV2

Floats = NDArray[np.float64]
RNG = np.random.default_rng


def planted(chosen: NDArray[np.int64]) -> Floats:
    """Milliseconds: so much per call, per MAC and per value moved, and 2 for the rest."""
    table = np.array(
        [
            [sum(0.02 + o.macs / 5e7 + (o.in_bytes + o.out_bytes) / 4e6 for o in operators) for operators in layer]
            for layer in fbnet_blocks()
        ]
    )
    return np.asarray(2 + table[np.arange(LAYERS), chosen].sum(axis=1))


def block_table(path: Path, n: int = 600) -> Path:
    """A device with 1 % of noise, and one whose speed drifts from network to network."""
    chosen = RNG(0).integers(0, len(OPTIONS), size=(n, LAYERS))
    latency = planted(chosen)
    drift = np.zeros(n)
    for i, step in enumerate(RNG(1).normal(0, 0.01, n)):
        drift[i] = 0.95 * drift[i - 1] + step
    columns = {
        "arch": [",".join(map(str, row)) for row in chosen],
        "steady_latency_ms": latency * RNG(2).normal(1, 0.01, n),
        "drifting_latency_ms": latency * (1 + drift),
    }
    pq.write_table(pa.table(columns), path)
    return path


def test_planted_blocks_are_found_and_what_limits_them_is_told_apart(tmp_path: Path) -> None:
    found = block_figures(block_table(tmp_path / "table.parquet"), networks=100, draws=1)
    steady, drifting = found["devices"]["steady"], found["devices"]["drifting"]
    noise = 100 * 0.01 * np.sqrt(2 / np.pi)  # the mean of |error|, in percent
    assert noise * 0.9 < steady["mape_percent"] < 1.3 * noise
    assert steady["kendall_tau"] > 0.8
    for way in ("macs", "ridge", "least_squares"):
        assert steady[f"{way}_mape_percent"] > 1.5 * steady["mape_percent"]
    assert steady["ceiling_in_sample_mape_percent"] < noise < steady["ceiling_mape_percent"]
    assert steady["ceiling_error_explained_by_order"] < 0.1
    assert drifting["ceiling_error_explained_by_order"] > 0.5
    assert 0.9 < steady["within_2_std"] <= 1
    assert found["mean"]["mape_percent"] == pytest.approx(
        (steady["mape_percent"] + drifting["mape_percent"]) / 2, abs=1e-4
    )


def test_pairs_explain_what_neighbours_cost_together_and_order_what_came_before() -> None:
    chosen = RNG(0).integers(0, len(OPTIONS), size=(1500, 3))
    together = RNG(1).normal(size=(len(OPTIONS), len(OPTIONS)))[chosen[:, 0], chosen[:, 1]]
    noise = RNG(2).normal(size=1500)
    pairs, none = _explained_by_pairs(chosen, np.column_stack([together + 0.1 * noise, noise]))
    assert pairs > 0.9
    assert none < 0.02
    assert _explained_by_order(np.sin(np.arange(300.0))) == pytest.approx(1)
    assert _explained_by_order(noise) < 0.05


def test_blocks_are_those_of_the_paper_and_shortcuts_where_a_layer_changes_shape() -> None:
    blocks = fbnet_blocks()
    assert [len(layer) for layer in blocks] == [len(OPTIONS)] * LAYERS
    k5_e6 = blocks[9][OPTIONS.index("k5_e6")]  # from 32 channels of 16×16 to 64 of 8×8
    assert [o.macs for o in k5_e6] == [32 * 192 * 16**2, 192 * 25 * 8**2, 192 * 64 * 8**2]
    assert blocks[10][OPTIONS.index("skip")] == ()
    (shortcut,) = blocks[9][OPTIONS.index("skip")]
    assert (shortcut.macs, shortcut.stride, shortcut.groups) == (32 * 64 * 8**2, 2, 1)
    (kept,) = blocks[13][OPTIONS.index("skip")]
    assert (kept.in_channels, kept.out_channels, kept.stride, kept.out_size) == (64, 112, 1, (8, 8))
    assert [i for i, layer in enumerate(blocks) if layer[-1]] == [1, 5, 9, 13, 17, 21]


@pytest.mark.parametrize("arch", [["0"] * 21, ["9"] * 22, ["x"] * 22, ["-1"] * 22])
def test_other_architectures_are_refused(arch: list[str]) -> None:
    with pytest.raises(InvalidFileError, match="22 comma-separated indexes from 0 to 8"):
        choices(np.array([arch]))


def test_more_networks_than_half_of_the_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="31 networks to learn from are too many for 60"):
        block_figures(block_table(tmp_path / "table.parquet", 60), networks=31)


def test_the_command_has_spaces_networks_and_blocks(
    hwnas: Hwnas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_spaces, "SPACES", {name: SPACES[name] for name in ("mobilenetv2", "nasbench201")})
    monkeypatch.setattr(bench_spaces, "REPEATS", 1)
    monkeypatch.setattr(bench_spaces, "SAMPLED", 50)
    monkeypatch.setattr(bench_spaces, "LOWERED", 2)
    monkeypatch.setattr(bench_blocks, "block_figures", partial(block_figures, networks=30, draws=1))
    nets = {"v2": MOBILENETV2, "none": MOBILENETV2 | {"stages": [{"channels": 10_000}]}}
    (tmp_path / "reference_nets.yaml").write_text(yaml.safe_dump({"networks": nets}))
    block_table(tmp_path / "fbnet_devices.parquet", 60)
    answer = hwnas("bench", "spaces", "--data", tmp_path)
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    own = found["spaces"]["mobilenetv2"]
    assert own["log10_size"] == 1.48  # log10(30): five resolutions, six multipliers
    assert own["log10_size_joint"] > own["log10_size"]
    assert own["decisions"] == 2
    assert own["different_networks"] == 30
    assert "published_strings" not in own
    cells = found["spaces"]["nasbench201"]
    assert (cells["different_networks"], cells["published_strings"]) == (5260, 6466)
    assert "nasbench201 has 5,260 different networks; its paper counts 6,466 strings, of which some" in answer.err
    assert own["samples_per_second"] > 0
    v2 = found["networks"]["v2"]
    assert (v2["params"], v2["macs"], v2["equal"], v2["space"]) == (3_504_872, 300_774_272, True, "mobilenetv2")
    assert found["networks"]["none"]["equal"] is False
    assert "lacks" in found["networks"]["none"]
    assert set(found["blocks"]["devices"]) == {"steady", "drifting"}
    for word in ("published networks", "v2", "steady", "mean", "samples per second"):
        assert word in answer.err
