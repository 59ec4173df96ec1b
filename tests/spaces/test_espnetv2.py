"""The space of ESPNetv2 against published and hand-counted numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.spaces import Operator, Space, Workload, load_space
from hwnas.spaces.blocks.eesp import branch_channels, dilations
from hwnas.spaces.blocks.eesp_downsampler import unused_parameters
from hwnas.spaces.decision import Option
from hwnas.spaces.errors import InvalidFileError, InvalidSpaceError
from hwnas.spaces.espnetv2 import MULTIPLIERS, WIDTHS, level_channels, stem_channels

EVERYTHING = ("bits", "sparsity", "rank", "density")


@pytest.fixture(scope="module")
def imagenet() -> Space:
    return load_space("espnetv2", joint=EVERYTHING)


@pytest.fixture(scope="module")
def small() -> Space:
    return load_space("espnetv2", input_shape=(3, 40, 24), num_classes=10, joint=EVERYTHING)


def chosen(space: Space, **changes: Option) -> Workload:
    """The reference network with some decisions changed; ``level3_width`` stands for ``level3.width``."""
    names = {name.replace(".", "_"): name for name in space.reference()}
    return space.workload({**space.reference(), **{names[k]: v for k, v in changes.items()}})


def group(workload: Workload, name: str) -> list[Operator]:
    return [o for o in workload.operators if o.name.startswith(f"{name}.")]


@pytest.mark.parametrize(
    ("scale", "channels", "params", "macs", "published_m"),
    [
        ("0.5", [16, 32, 64, 128, 256, 1024], 1_241_332, 29_399_508, (1.24, 28.37)),
        ("1.0", [32, 64, 128, 256, 512, 1024], 1_670_072, 86_744_404, (1.67, 85.72)),
        ("1.25", [32, 80, 160, 320, 640, 1024], 1_965_440, 124_423_444, (1.96, 123.39)),
        ("1.5", [32, 96, 192, 384, 768, 1024], 2_314_856, 169_628_884, (2.31, 168.6)),
        ("2.0", [32, 128, 256, 512, 1024, 1280], 3_498_136, 286_086_228, (3.49, 284.8)),
    ],
)
def test_published_networks(
    imagenet: Space, scale: str, channels: list[int], params: int, macs: int, published_m: tuple[float, float]
) -> None:
    """Counted from the published code; its table, in millions, leaves out the classifier's MACs."""
    assert imagenet.find is not None
    found = imagenet.find(imagenet, {"channels": channels, "published": {"top1": 0}})
    workload = imagenet.workload(found)
    assert workload == imagenet.workload(imagenet.reference(f"espnetv2-{scale}"))
    assert (workload.params, workload.macs) == (params, macs)
    assert params / 1e6 == pytest.approx(published_m[0], abs=0.01)
    assert (macs - channels[5] * 1000) / 1e6 == pytest.approx(published_m[1], abs=0.05)


def test_references_do_not_depend_on_what_is_searched() -> None:
    full, plain = (load_space("espnetv2", input_shape=(3, 32, 32), joint=joint) for joint in (EVERYTHING, ()))
    assert list(full.references) == list(plain.references)
    for name in full.references:
        assert full.workload(full.reference(name)) == plain.workload(plain.reference(name))


def test_published_dilations(imagenet: Space) -> None:
    workload = imagenet.workload(imagenet.reference())
    found: dict[str, list[int]] = {}
    for o in workload.operators:
        if o.depthwise and o.name.startswith("level"):
            found.setdefault(o.name.partition(".")[0], []).append(o.dilation)
    expected = {f"level{level}down": [1, 2, 3, 4] for level in (2, 3, 4)} | {"level5down": [1, 1, 2, 3]}
    expected |= {f"level3b{i}": [1, 2, 3, 4] for i in (1, 2, 3)} | {f"level4b{i}": [1, 1, 2, 3] for i in range(1, 8)}
    assert found == expected | {f"level5b{i}": [1, 1, 1, 2] for i in (1, 2, 3)}


def test_no_branch_sees_more_than_the_limit() -> None:
    assert [dilations(limit) for limit in (3, 5)] == [(1, 1, 1, 1), (1, 1, 1, 2)]
    assert dilations(9) == dilations(11) == dilations(13) == (1, 2, 3, 4)


def test_a_unit_in_full(small: Space) -> None:
    """Unit 1 of level 3: 128 channels, 32 in each branch, 24 of which are kept; images of 40×24 are 5×3 there."""
    workload = chosen(small, level3b1_keep=0.75, level3b1_reduce_rank=0.5, level3b1_expand_rank=0.25)
    unit = group(workload, "level3b1")
    assert [(o.name.partition(".")[2], o.in_channels, o.out_channels, o.groups) for o in unit] == [
        ("reduce_in", 128, 12, 4),  # even rank 128·24/152 = 20.2, half of it 10.1, to a multiple of 4
        ("reduce", 12, 24, 4),
        ("branch1", 24, 24, 24),
        ("branch2", 24, 24, 24),
        ("branch3", 24, 24, 24),
        ("branch4", 24, 24, 24),
        ("sum2", 24, 24, 1),
        ("sum3", 24, 24, 1),
        ("sum4", 24, 24, 1),
        ("concat", 96, 96, 1),
        ("merge", 96, 96, 1),
        ("expand_in", 96, 12, 4),  # even rank 96·128/224 = 54.9, a quarter of it 13.7
        ("expand", 12, 128, 4),
        ("add", 128, 128, 1),
        ("activate", 128, 128, 1),
    ]
    assert {o.in_size for o in unit} == {o.out_size for o in unit} == {(5, 3)}
    assert [o.inputs[1].partition(".")[2] for o in unit[6:9]] == ["branch1", "sum2", "sum3"]
    assert unit[9].inputs == tuple(f"level3b1.{part}" for part in ("branch1", "sum2", "sum3", "sum4"))
    assert unit[13].inputs == ("level3b1.expand", "level3down.activate")
    # 32 and 3 per group; 4 depthwise filters of 9; normalisations with slopes; 24 and 3 per group; slopes at the end.
    assert sum(o.params for o in unit) == (
        4 * 32 * 3 + 4 * 3 * 6 + 24 * 3 + 4 * 24 * 9 + 96 * 3 + 4 * 24 * 3 + 4 * 3 * 32 + 128 * 2 + 128
    )  # fmt: skip


def test_a_strided_unit_in_full(small: Space) -> None:
    workload = chosen(small)
    unit = group(workload, "level2down")
    sizes = {o.name.partition(".")[2]: (o.in_channels, o.out_channels, o.in_size, o.out_size) for o in unit}
    assert sizes["image1"] == (3, 3, (40, 24), (20, 12))
    assert sizes["image2"] == (3, 3, (20, 12), (10, 6))
    assert sizes["pool"] == (32, 32, (20, 12), (10, 6))
    assert sizes["branch4"] == (8, 8, (20, 12), (10, 6))
    assert sizes["join"] == sizes["add"] == (64, 64, (10, 6), (10, 6))
    assert {o.name.partition(".")[2]: o.inputs for o in unit}["join"] == ("level2down.pool", "level2down.expand")
    assert group(workload, "level3down")[0].inputs == ("level2down.image2",)
    assert "level5down.reinforce" not in {o.name for o in workload.operators}


def test_unused_parameters_by_hand(small: Space) -> None:
    """Slopes for the channels that a pyramid adds; at level 5 also 3·3·9 + 3·3 and 3·512 + 2·512 of the image."""
    assert unused_parameters(32, 64, 3, reinforced=True) == 32
    unused = {o.name: o.unused for o in chosen(small).operators if o.unused}
    last = 256 + 81 + 9 + 5 * 512
    assert list(unused.values()) == [32, 64, 128, last]
    assert list(unused) == [f"level{level}down.activate" for level in (2, 3, 4, 5)]


def test_channels_grow_and_divide_into_groups() -> None:
    for base in WIDTHS:
        before = {stem_channels(width, base) for width in (16, 32)}
        assert max(before) <= base / 2
        for level in (2, 3, 4, 5):
            own = {level_channels(base, m, level) for m in (MULTIPLIERS if level > 2 else (1.0,))}
            assert len(own) == (2 if level > 2 else 1)
            assert all(c % 16 == b % 16 == 0 and c > b for c in own for b in before)
            before = own
    assert [branch_channels(16, keep) for keep in (0.5, 1.0)] == [4, 4]
    assert [branch_channels(256, keep) for keep in (0.5, 0.75, 1.0)] == [32, 48, 64]


def test_every_operator_holds_what_waits(small: Space) -> None:
    rng = np.random.default_rng(3)
    for row in small.sample(rng, 25):
        operators = small.workload_of_row(row).operators
        written = {"input": operators[0].in_bytes} | {o.name: o.out_bytes for o in operators}
        last = {name: step for step, o in enumerate(operators) for name in o.inputs}
        for step, o in enumerate(operators):
            earlier = ["input", *(p.name for p in operators[:step])]
            waits = sum(written[name] for name in earlier if last.get(name, -1) >= step and name not in o.inputs)
            assert o.live_bytes == waits + sum(written[name] for name in o.inputs) + o.out_bytes, o.name


def test_precision_flows_from_writer_to_reader(small: Space) -> None:
    for row in small.sample(np.random.default_rng(1), 25):
        workload = small.workload_of_row(row)
        written = {o.name: o.out_bits for o in workload.operators} | {"input": 32}
        for o in workload.operators:
            assert {written[name] for name in o.inputs} == {o.in_bits}, o.name


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"channels": [32, 72, 128, 256, 512, 1024]}, "level2.width cannot give 72; it offers 32, 48"),
        ({"channels": [32, 48, 96, 192, 384, 1024]}, "stem.width cannot give 32"),
        ({"channels": [32, 64, 128, 512, 512, 1024]}, "level4.width_multiplier cannot give 512"),
        ({"channels": [32, 64, 128, 256, 512, 1000]}, "head.width cannot give 1000; it offers 1024, 1280"),
        ({"channels": [32, 64, 128, 256, 512, 1024], "repeats": [3, 9, 3]}, "level4.depth cannot give 9"),
    ],
)
def test_what_the_space_lacks(imagenet: Space, network: dict[str, Any], message: str) -> None:
    assert imagenet.find is not None
    with pytest.raises(InvalidSpaceError, match=message):
        imagenet.find(imagenet, network)


def test_finds_depths_and_limits(small: Space) -> None:
    assert small.find is not None
    network = {"channels": [16, 48, 80, 192, 288, 1280], "repeats": [2, 8, 4], "receptive_limits": [3, 5, 17, 9, 3]}
    found = small.find(small, network)
    multipliers = [found[f"level{level}.width_multiplier"] for level in (3, 4, 5)]
    assert multipliers == [0.75, 1.0, 0.75]  # 72, to a multiple of 16 and halves up: 80
    assert [found[f"level{level}.receptive_limit"] for level in (1, 2, 3, 4, 5)] == [3, 5, 9, 9, 3]
    assert [found[f"level{level}.depth"] for level in (3, 4, 5)] == [2, 8, 4]


@pytest.mark.parametrize(
    "network", [{}, None, [3], {"channels": [1, 2]}, {"channels": [32] * 6, "chanels": 1}, {"channels": "32"}]
)
def test_what_is_no_variant(small: Space, network: Any) -> None:
    assert small.find is not None
    with pytest.raises(InvalidFileError, match="no variant of ESPNetv2"):
        small.find(small, network)


def test_a_narrowed_space_keeps_the_references_that_it_holds() -> None:
    space = load_space("espnetv2", narrow={"level2.width": [80, 96], "head.width": [1024]})
    assert list(space.references) == ["espnetv2-1.25", "espnetv2-1.5"]
    other = load_space("espnetv2", narrow={"level2.width": [48]})
    assert list(other.references) == ["largest"]


class Published:
    """What the published code computes, written down once more: blocks by their units' names, wiring by hand."""

    def __init__(self, network: nn.Module) -> None:
        self.units: Any = network.get_submodule("units")

    def pyramid(self, name: str, x: Tensor) -> Tensor:
        reduced = self.units[f"{name}_reduce"](x)
        outputs = [self.units[f"{name}_branch1"](reduced)]
        for k in (2, 3, 4):
            outputs.append(self.units[f"{name}_branch{k}"](reduced) + outputs[-1])
        merged: Tensor = self.units[f"{name}_expand"](self.units[f"{name}_merge"](torch.cat(outputs, 1)))
        return merged

    def unit(self, name: str, x: Tensor) -> Tensor:
        y: Tensor = self.units[f"{name}_activate"](self.pyramid(name, x) + x)
        return y

    def strided(self, name: str, x: Tensor, image: Tensor | None) -> Tensor:
        pooled = halve(x)
        y = torch.cat([pooled, self.pyramid(name, x)], 1)
        if image is not None:
            while image.shape[2:] != pooled.shape[2:]:
                image = halve(image)
            y = y + self.units[f"{name}_reinforce"](self.units[f"{name}_filter"](image))
        activated: Tensor = self.units[f"{name}_activate"](y)
        return activated

    def __call__(self, image: Tensor) -> Tensor:
        x = self.strided("level2down", self.units["stem"](image), image)
        for level, depth in ((3, 3), (4, 7), (5, 3)):
            x = self.strided(f"level{level}down", x, image if level < 5 else None)
            for index in range(1, depth + 1):
                x = self.unit(f"level{level}b{index}", x)
        x = self.units["head_expand"](self.units["head_depthwise"](x))
        logits: Tensor = self.units["classifier"](x.mean((2, 3)))
        return logits


def halve(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False)


def test_a_built_network_computes_what_the_published_code_does(small: Space) -> None:
    torch.manual_seed(0)
    network = small.build(small.reference("espnetv2-0.5")).eval()
    image = torch.rand(2, 3, 40, 24)
    with torch.no_grad():
        logits, expected = network(image), Published(network)(image)
    assert expected.std() > 1e-6
    assert torch.allclose(logits, expected, rtol=1e-4, atol=1e-6)
