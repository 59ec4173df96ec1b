"""`hwnas space show` and `hwnas space check`, on files with networks of one's own."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from hwnas.spaces import Space, load_space
from hwnas.spaces.catalog import space_from_spec

from .command import Hwnas

V2_ROWS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, repeats, stride: MobileNetV2 (Sandler et al., CVPR 2018, table 2)."""
MOBILENETV2: dict[str, Any] = {
    "act": "relu6",
    "stem": {"kernel": 3, "channels": 32, "stride": 2},
    "stages": [{"kernel": 3, "expansion": t, "channels": c, "repeats": n, "stride": s} for t, c, n, s in V2_ROWS],
    "head": {"kernel": 1, "channels": 1280},
    "classifier": {"in": 1280, "out": 1000},
    "published": {"params_m": 3.4, "madds_m": 300},
    "computed": {"params": 3_504_872, "macs": 300_774_272},
}
TINY: dict[str, Any] = {
    "name": "small",
    "input_shape": [3, 16, 16],
    "num_classes": 7,
    "stem": {"channels": 8},
    "stages": [{"channels": [8, 16], "kernel": [3, 5], "expansion": 2, "repeats": [1, 2], "stride": 2}],
    "references": {"least": {"stem": {"channels": 8}, "stages": [{"channels": 8, "expansion": 2, "stride": 2}]}},
}


def write(path: Path, data: Any) -> Path:
    path.write_text(yaml.safe_dump(data))
    return path


def without_kernels_of_seven(stage: int = 3) -> dict[str, Any]:
    """MobileNetV2 with a kernel that its space has nowhere."""
    stages = [{**row, "kernel": 7} if number == stage else row for number, row in enumerate(MOBILENETV2["stages"], 1)]
    return {**MOBILENETV2, "stages": stages, "computed": {}}


def test_a_published_network_is_found_in_all_spaces_that_hold_it(hwnas: Hwnas, tmp_path: Path) -> None:
    out = tmp_path / "candidates.json"
    answer = hwnas("space", "check", write(tmp_path / "v2.yaml", MOBILENETV2), "--out", out)
    assert answer.code == 0, answer.out
    for word in ("v2", "mobilenetv2, chamnet ", "3,504,872", "300,774,272", "yes", "3.4 M, 300 M"):
        assert word in answer.out
    (written,) = json.loads(out.read_text()).values()
    space = space_from_spec(written["space"])
    candidate = space.decode(space.encode(written["candidate"]))
    assert candidate == load_space("mobilenetv2", joint=()).reference()
    assert written["digest"] == candidate.digest
    assert candidate.digest in answer.out


def test_many_networks_and_variants_of_one_file(hwnas: Hwnas, tmp_path: Path) -> None:
    """As in files of references: what is neither `networks` nor has `variants` is left alone."""
    figures = {"computed": {"macs": 1}}
    file = write(
        tmp_path / "nets.yaml",
        {
            "schema": {"counting": "MACs"},
            "networks": {"right": MOBILENETV2, "odd": MOBILENETV2 | figures},
            "residual": {"note": "none", "variants": {"deep": {"blocks_per_level": 3}}},
        },
    )
    answer = hwnas("space", "check", file)
    assert answer.code == 1
    assert "right" in answer.out
    assert "odd differs: 1 macs were computed, and 300,774,272 are counted here (+300,774,271)" in answer.out
    assert "residual deep is in no space" in answer.out
    assert "no space has networks that are written so" in answer.out
    alone = hwnas("space", "check", write(tmp_path / "two.yaml", {"a": MOBILENETV2, "b": MOBILENETV2}))
    assert alone.code == 0
    assert alone.out.count("300,774,272") == 2


def test_what_the_closest_space_lacks_is_said(hwnas: Hwnas, tmp_path: Path) -> None:
    file = write(tmp_path / "nets.yaml", {"networks": {"large kernels": without_kernels_of_seven()}})
    answer = hwnas("space", "check", file, "--space", "mobilenetv2", "--out", tmp_path / "none.json")
    assert answer.code == 1
    (line,) = answer.out.splitlines()
    assert line.startswith(
        "large kernels is in no space: space 'mobilenetv2' lacks it: its block 4 is 7×7, expansion 6"
    )
    assert line.endswith("the space has no decision for that: kernel of s3b1 is always 3, not 7")
    assert json.loads((tmp_path / "none.json").read_text()) == {}
    silent = {k: v for k, v in without_kernels_of_seven().items() if k != "act"}
    found = hwnas("space", "check", write(tmp_path / "silent.yaml", silent))
    assert found.code == 0
    assert "mbconv" in found.out  # has kernels of 7, and ReLU


def test_other_activations_are_other_networks(hwnas: Hwnas, tmp_path: Path) -> None:
    """Spaces that hold the layers with ReLU alone do not count, whatever the images."""
    silent = {k: v for k, v in MOBILENETV2.items() if k != "act"}
    large = MOBILENETV2 | {"input": [3, 256, 256]}
    nets = {"silent": silent, "hard": MOBILENETV2 | {"act": "hswish"}, "large": large}
    answer = hwnas("space", "check", write(tmp_path / "nets.yaml", nets))
    assert answer.code == 1
    (row,) = lines(answer.out, "silent")
    assert "mbconv" in row[1]
    hard, *others, large_one, _, _ = answer.out.splitlines()[-6:]
    assert (
        hard == "hard is in no space: space 'mobilenetv2' lacks it: its stem's activation is hswish, the space's relu6"
    )
    assert [line[:8] for line in others] == ["  space "] * 2
    assert "'mobilenetv2' lacks it: its images have a side of 256, but resolution offers 96, 128, 160" in large_one


FAMILIES: list[tuple[str, str, dict[str, Any], str]] = [
    ("fbnet", "fbnet-c", {"kernel": 7}, "none has kernel 7"),
    ("fbnet", "fbnet-b", {"groups": 2}, "none has expansion 6 with groups 2"),
    ("proxylessnas", "proxyless-mobile", {"expansion": 4}, "none has expansion 4"),
    ("mnasnet", "mnasnet-a1", {"se": 0.5}, "s6.se offers 0.0, 0.25: none has se 0.5"),
    ("mobilenetv2", "mobilenetv2", {"kernel": 5}, "kernel of s6b1 is always 3, not 5"),
    ("ofa_mobilenetv3", "ofa-largest", {"activation": "relu"}, "activation of s6b1 is always hswish, not relu"),
]
"""Spaces, a published network in each, what is changed where its last stride is, and what the space lacks then."""


def test_the_space_of_a_networks_family_is_the_closest(hwnas: Hwnas, tmp_path: Path) -> None:
    nets: dict[str, Any] = {}
    for space, reference, change, _ in FAMILIES:
        document = (files("hwnas.spaces") / "published" / f"{space}.yaml").read_text(encoding="utf-8")
        table = yaml.safe_load(document)["references"][reference]
        last = max(n for n, stage in enumerate(table["stages"]) if stage.get("stride") == 2)
        stages = [{**stage, **change} if n == last else stage for n, stage in enumerate(table["stages"])]
        nets[reference] = {**table, "stages": stages}
    # ProxylessNAS's widths at 0.5: other spaces have them, but not its kernels and its activation.
    rows = ((8, 1, 1), (16, 4, 2), (24, 4, 2), (40, 4, 2), (48, 4, 1), (96, 4, 2), (160, 1, 1))
    stages = [{"kernel": 5, "expansion": 3, "channels": c, "repeats": n, "stride": s} for c, n, s in rows]
    stages[0] |= {"kernel": 3, "expansion": 1}
    stem, head = {"channels": 16, "stride": 2}, {"kernel": 1, "channels": 1280}
    nets["half"] = {"act": "relu6", "stem": stem, "stages": stages, "head": head}
    told = hwnas("space", "check", write(tmp_path / "nets.yaml", nets)).out.splitlines()
    closest = dict(line.split(" is in no space: ") for line in told if not line.startswith("  "))
    for space, reference, _, lacks in FAMILIES:
        assert closest[reference].startswith(f"space '{space}' lacks it: its block ")
        assert closest[reference].endswith(lacks)
    assert closest["half"].startswith("space 'proxylessnas' lacks it: its stem has 16 channels, but stem.width offers")


def test_a_network_is_found_in_a_space_of_ones_own(hwnas: Hwnas, tmp_path: Path) -> None:
    space = write(tmp_path / "own.yaml", TINY)
    network = write(tmp_path / "net.yaml", TINY["references"]["least"])
    answer = hwnas("space", "check", network, "--space", space)
    assert answer.code == 0, answer.out
    # 3·8·9 + 16; 8·16 + 32, 16·9 + 32, 16·8 + 16; 8·7 + 7
    assert f"{232 + 160 + 176 + 144 + 63}" in answer.out


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "has no networks; it needs one stage table, or several by name"),
        ({"networks": 3}, "networks must be networks by name, not 3"),
        ({"networks": {"a": 3}}, "network a: a network is a stage table, not 3"),
        ({"family": {"variants": [1]}}, "variants of family must be networks by name, not [1]"),
        ({"stem": {"channels": 8}}, "stages: this key is missing"),
        ({"a": MOBILENETV2 | {"had": 1}}, "network a: had: there is no such key here; did you mean 'head'?"),
        (
            {"a": MOBILENETV2 | {"stages": [{"chanels": 8}]}},
            "stages.0.chanels: there is no such key here",
        ),
        ({"a": MOBILENETV2 | {"computed": {"macs": "3e8"}}}, "computed.macs must be a whole number, not '3e8'"),
        ({"a": MOBILENETV2 | {"published": 3}}, "published must be figures by name, not 3"),
        ({"a": MOBILENETV2 | {"classifier": {"in": 320}}}, "the classifier reads 320 channels, but [1280] are written"),
    ],
)
def test_files_that_make_no_sense_are_refused(data: Any, message: str, hwnas: Hwnas, tmp_path: Path) -> None:
    assert message in hwnas("space", "check", write(tmp_path / "bad.yaml", data)).complaint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width_multiplier": 0.5}, "give its own channels and input, not width_multiplier"),
        ({"stem": {"channels": [16, 32], "stride": 2}}, "stem has a choice of channels"),
        ({"stages": [{"op": "skip", "channels": 16}]}, "stage 1 is skipped, but changes channels or has a stride"),
        ({"stages": [{"channels": [16, 24]}]}, "stage 1 has a choice"),
        ({"input": [3, 4, 4]}, "input_shape must be channels, height, width with sides from 8"),
    ],
)
def test_tables_of_no_single_network_are_in_no_space(
    changes: dict[str, Any], message: str, hwnas: Hwnas, tmp_path: Path
) -> None:
    answer = hwnas("space", "check", write(tmp_path / "net.yaml", MOBILENETV2 | changes), "--space", "mobilenetv2")
    assert answer.code == 1
    assert message in answer.out


def test_a_misspelt_space_is_refused(hwnas: Hwnas, tmp_path: Path) -> None:
    file = write(tmp_path / "net.yaml", MOBILENETV2)
    assert "did you mean 'fbnet'" in hwnas("space", "check", file, "--space", "fbnett").complaint
    assert "did you mean 'fbnet'" in hwnas("space", "show", "fbnett").complaint


def lines(answer: str, start: str) -> list[list[str]]:
    """The cells of the rows whose first one is ``start``."""
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in answer.splitlines() if "│" in line]
    return [row for row in rows if row[0] == start]


def test_show_says_what_a_space_offers(hwnas: Hwnas) -> None:
    answer = hwnas("space", "show", "fbnet")
    assert answer.code == 0, answer.err
    assert answer.out.startswith("fbnet, for images of 3×224×224 and 1000 classes\n10^21.0 rows of 23 decisions")
    blocks = "k3_e1, k3_e1_g2, k3_e3, k3_e6, k5_e1, k5_e1_g2, k5_e3, k5_e6"
    assert lines(answer.out, "s2b2–4") == [["s2b2–4", "", "", f"{blocks}, skip"]]
    assert lines(answer.out, "s2b1") == [["s2b1", "", "", blocks]]
    assert lines(answer.out, "s2") == [["s2", "24", "4", ""]]
    assert lines(answer.out, "head") == [["head", "1504, 1984", "", ""]]
    assert [row[:3] for row in lines(answer.out, "keep")] == [["keep", "0.5, 0.75, 1", "22"]]
    assert "2 layers of fbnet-c stay unfactorised: stem, classifier (the first and the last layer" in answer.out
    assert "21 layers of fbnet-c stay unfactorised: s1b1.depthwise" in answer.out
    assert lines(answer.out, "fbnet-b")[0][1:3] == ["4,801,368", "291,004,424"]


def test_show_takes_other_dimensions_images_and_classes(hwnas: Hwnas) -> None:
    answer = hwnas("space", "show", "mnasnet", "--joint", "density", "--input-shape", "3,64,64", "--classes", "10")
    assert "mnasnet, for images of 3×64×64 and 10 classes" in answer.out
    assert [row[:2] for row in lines(answer.out, "density")] == [["density", "2:4, 0.5, 1"]]
    assert not lines(answer.out, "rank")
    assert "squeeze-excite" in answer.out
    assert "is not channels,height,width" in hwnas("space", "show", "mnasnet", "--input-shape", "3,a,64").err


def make_small(make: Any, *, name: str, spec: Any, input_shape: Any, num_classes: int) -> Space:
    """A space in Python: the small one, by another name."""
    assert make
    assert spec
    changed = {"name": name, "input_shape": list(input_shape), "num_classes": num_classes}
    return space_from_spec({**TINY, **changed, "joint": []})


def test_show_takes_files_and_functions(hwnas: Hwnas, tmp_path: Path) -> None:
    answer = hwnas("space", "show", write(tmp_path / "own.yaml", TINY), "--joint", "")
    assert answer.out.startswith("small, for images of 3×16×16 and 7 classes\n10^1.2 rows of 4 decisions")
    assert lines(answer.out, "s1") == [["s1", "8, 16", "1, 2", "3, 5"]]
    assert "Compression" not in answer.out
    named = hwnas("space", "show", f"{__name__}:make_small", "--joint", "", "--input-shape", "3,32,32")
    assert "for images of 3×32×32 and 1000 classes" in named.out
    assert lines(named.out, "least")
