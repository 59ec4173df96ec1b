"""The residual networks for small images against published and hand-counted numbers."""

from __future__ import annotations

from typing import Any

import pytest

from hwnas.spaces import Operator, Space, Workload, load_space
from hwnas.spaces.decision import Option
from hwnas.spaces.errors import InvalidSpaceError, UnknownNameError


def cifar(joint: tuple[str, ...] = ("bits", "sparsity", "density"), **settings: Any) -> Space:
    return load_space("resnet_cifar", input_shape=(3, 32, 32), num_classes=10, joint=joint, **settings)


@pytest.fixture(scope="module")
def space() -> Space:
    return cifar()


def changed(space: Space, **changes: Option) -> Workload:
    """ResNet-20 with some decisions changed; ``s2__width`` stands for ``s2.width``."""
    return space.workload({**space.reference("resnet20"), **{k.replace("__", "."): v for k, v in changes.items()}})


def operators(workload: Workload, block: str) -> list[Operator]:
    return [o for o in workload.operators if o.name.partition(".")[0] == block]


PUBLISHED = [
    (20, 3, 269_722, 40_551_040),
    (32, 5, 464_154, 68_862_592),
    (44, 7, 658_586, 97_174_144),
    (56, 9, 853_018, 125_485_696),
    (110, 18, 1_727_962, 252_887_680),
]
"""Layers, blocks per stage, parameters and MACs of the networks of He et al., table 6, counted independently."""


@pytest.mark.parametrize(("layers", "blocks", "params", "macs"), PUBLISHED)
def test_published_networks(space: Space, layers: int, blocks: int, params: int, macs: int) -> None:
    assert space.find is not None
    found = space.decode(space.encode(space.find(space, {"blocks_per_stage": blocks, "published": {"top1": 0.0}})))
    assert found == space.reference(f"resnet{layers}")
    workload = space.workload(found)
    assert (workload.params, workload.macs) == (params, macs)
    assert sum(o.kind in ("conv", "linear") for o in workload.operators) == layers
    assert all(o.weight_bits == o.in_bits == o.out_bits == 32 and o.density == 1 for o in workload.operators)


@pytest.mark.parametrize("blocks", [4, 6, 8])
def test_networks_between_the_published_ones(space: Space, blocks: int) -> None:
    """ResNet-26, 38 and 50: each block more in every stage adds as much as between ResNet-20 and 32."""
    assert space.find is not None
    workload = space.workload(space.find(space, {"blocks_per_stage": blocks}))
    assert workload.params == 269_722 + (blocks - 3) * (464_154 - 269_722) // 2
    assert workload.macs == 40_551_040 + (blocks - 3) * (68_862_592 - 40_551_040) // 2
    assert sum(o.kind in ("conv", "linear") for o in workload.operators) == 6 * blocks + 2


def test_what_a_space_lacks_is_said(space: Space) -> None:
    assert space.find is not None
    with pytest.raises(InvalidSpaceError, match=r"s1\.depth offers 1, 2, 3, 4, 5, 6, 7, 8, 9, 18, not 10"):
        space.find(space, {"blocks_per_stage": 10})
    with pytest.raises(UnknownNameError, match="did you mean 'blocks_per_stage'"):
        space.find(space, {"blocks_per_stages": 3})
    with pytest.raises(UnknownNameError, match="groups"):
        space.find(space, {"blocks_per_stage": 3, "groups": 4})


def test_a_narrowed_space_has_the_references_that_it_holds() -> None:
    assert list(cifar(narrow={"s?.depth": [5, 9]}).references) == ["resnet32", "resnet56"]
    assert list(cifar(narrow={"s3.width": [32]}).references) == ["largest"]


def test_the_block_that_enters_a_stage(space: Space) -> None:
    workload = changed(space, s2b1__keep=0.5)
    block = operators(workload, "s2b1")
    assert [(o.name[5:], o.kind, o.in_channels, o.out_channels, o.stride) for o in block] == [
        ("conv1", "conv", 16, 16, 2),
        ("shortcut", "pad", 16, 32, 2),
        ("conv2", "conv", 16, 32, 1),
        ("add", "add", 32, 32, 1),
    ]
    assert [o.activation for o in block] == ["relu", "none", "none", "relu"]
    assert block[0].inputs == block[1].inputs == ("s1b3.add",)
    assert block[2].inputs == ("s2b1.conv1",)
    assert block[3].inputs == ("s2b1.conv2", "s2b1.shortcut")
    assert block[0].in_size == block[1].in_size == (32, 32)
    assert block[0].out_size == block[1].out_size == (16, 16)
    assert operators(workload, "s2b2")[-1].inputs == ("s2b2.conv2", "s2b1.add")


def test_a_shortcut_takes_no_channels_away(space: Space) -> None:
    workload = changed(space, s1__width=32, s2__width=16)
    block = operators(workload, "s2b1")
    assert [(o.kind, o.out_channels, o.activation) for o in block] == [("conv", 16, "relu"), ("conv", 16, "relu")]
    assert operators(workload, "s3b1")[1].kind == "pad"
    same = operators(changed(space, s1__width=32), "s2b1")
    assert [(o.kind, o.stride) for o in same[1:]] == [("pad", 2), ("conv", 1), ("add", 1)], "32 channels on both sides"


def test_pruned_and_widened_channels_by_hand(space: Space) -> None:
    """Stage 1 at 8 channels and stage 3 at 128, and half of the channels within the first block of stage 2."""
    workload = changed(space, s1__width=8, s3__width=128, s2b1__keep=0.5)
    assert workload.operators[0].out_channels == 8, "the stem writes what stage 1 adds to"
    weights = 27 * 8 + 6 * 9 * 8 * 8  # stem, stage 1
    weights += 9 * (8 * 16 + 16 * 32 + 4 * 32 * 32)  # stage 2
    weights += 9 * (32 * 128 + 5 * 128 * 128) + 128 * 10  # stage 3, classifier
    assert workload.params == weights + 2 * (7 * 8 + 16 + 5 * 32 + 6 * 128) + 10


def test_peak_memory_by_hand(space: Space) -> None:
    """The block's input, and both tensors of its second convolution, of which only the one inside is float32."""
    assert changed(space).peak_memory_bytes == 3 * 4 * 16 * 32 * 32
    assert changed(space, s1__act_bits=8, s2__width=16).peak_memory_bytes == (1 + 4 + 1) * 16 * 32 * 32


def test_shares_that_keep_the_same_channels_are_one_network(space: Space) -> None:
    thin, wide = ({**space.reference("resnet20"), "s1.width": width} for width in (8, 32))
    keeps = (0.5, 0.75, 1.0)
    assert len({space.encode({**thin, "s1b1.keep": keep}).tobytes() for keep in keeps}) == 1
    assert len({space.encode({**wide, "s1b1.keep": keep}).tobytes() for keep in keeps}) == 3


def test_the_first_and_last_layer_stay_whole() -> None:
    names = {d.name for d in cifar(joint=("bits", "sparsity", "rank", "density")).decisions}
    assert {"stem.weight_bits", "classifier.weight_bits", "s1b1.conv1.density", "s3b18.conv2.density"} <= names
    assert not names & {"stem.density", "classifier.density", "stem.width", "stem.keep"}
    assert not [n for n in names if n.endswith("rank")], "there is no 1×1 layer"
