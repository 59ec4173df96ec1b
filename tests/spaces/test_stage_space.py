"""Spaces of stage tables: published networks counted exactly, and what tables become."""

from __future__ import annotations

from typing import Any

import pytest

from hwnas.spaces import load_space
from hwnas.spaces.errors import InvalidSpaceError

from .tiny_tables import MBCONV, tiny

COUNTED = [
    # Parameters and MACs as counted in modules that others published, at 224×224 and 1000 classes.
    ("mobilenetv2", "mobilenetv2", 3_504_872, 300_774_272),
    ("mnasnet", "mnasnet-a1", 3_887_038, 311_579_072),
    ("mnasnet", "mnasnet-b1", 4_383_312, 314_415_872),
    ("mnasnet", "mnasnet-b1-0.5", 2_218_512, 104_455_968),
    ("mnasnet", "mnasnet-b1-0.75", 3_170_208, 215_493_104),
    ("mnasnet", "mnasnet-b1-1.3", 6_282_256, 526_362_432),
    ("fbnet", "fbnet-b", 4_801_368, 291_004_424),
    ("fbnet", "fbnet-c", 5_570_664, 378_136_224),
    ("proxylessnas", "proxyless-mobile", 4_080_512, 320_427_584),
    ("proxylessnas", "proxyless-gpu", 7_119_848, 465_260_160),
    ("proxylessnas", "proxyless-cpu", 4_361_648, 439_243_864),
    ("proxylessnas", "proxyless-mobile-1.4", 6_857_568, 580_883_408),
    ("chamnet", "mobilenetv2", 3_504_872, 300_774_272),
]


@pytest.mark.parametrize(("space", "network", "params", "macs"), COUNTED)
def test_published_networks_are_candidates(space: str, network: str, params: int, macs: int) -> None:
    published = load_space(space, joint=())
    workload = published.workload(published.reference(network))
    assert (workload.params, workload.macs) == (params, macs)


def test_compression_leaves_a_reference_as_it_is() -> None:
    space = load_space("fbnet", joint=("bits", "sparsity", "rank", "density"))
    workload = space.workload(space.reference("fbnet-c"))
    assert (workload.params, workload.macs) == (5_570_664, 378_136_224)
    assert all(o.weight_bits == 32 and o.density == 1.0 for o in workload.operators)


@pytest.mark.parametrize(("multiplier", "params", "millions"), [(0.5, 1_968_680, 97), (1.4, 6_108_776, 582)])
def test_the_width_multiplier_of_mobilenetv2(multiplier: float, params: int, millions: int) -> None:
    """Parameters of torchvision's mobilenet_v2(width_mult=…), multiply–adds of the authors' table of models."""
    space = load_space("mobilenetv2", joint=())
    workload = space.workload({**space.reference(), "width_multiplier": multiplier})
    assert (workload.params, round(workload.macs / 1e6)) == (params, millions)


def test_the_resolution_is_a_decision() -> None:
    space = load_space("mobilenetv2", joint=())
    workload = space.workload({**space.reference(), "resolution": 96})
    assert workload.params == 3_504_872
    assert workload.operators[0].in_size == (96, 96)
    assert space.input_shape_of({"resolution": 96}) == (3, 96, 96)
    wide = load_space("mobilenetv2", input_shape=(3, 112, 224), joint=())
    assert wide.input_shape_of({"resolution": 96}) == (3, 48, 96)


def test_skipped_layers_may_stand_anywhere_in_their_stage() -> None:
    space = load_space("fbnet", joint=())
    wanted = space.reference("fbnet-c")
    moved = {**wanted, "s2b2.block": "skip", "s2b3.block": wanted["s2b2.block"], "s2b4.block": wanted["s2b3.block"]}
    assert space.decode(space.encode(moved)).digest == wanted.digest
    assert len(wanted) == 1 + 22


def test_layers_that_change_shape_cannot_be_skipped() -> None:
    space = load_space("fbnet", joint=())
    skips = {d.name: "skip" in d.options for d in space.decisions if d.name.endswith(".block")}
    assert len(skips) == 22
    assert [name for name, skip in skips.items() if not skip] == ["s2b1.block", *(f"s{i}b1.block" for i in range(3, 8))]
    assert space.decisions[space.column("s2b2.block")].options == (
        "k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip",
    )  # fmt: skip


def test_layers_of_a_stage_share_their_choices() -> None:
    space = load_space("mnasnet", joint=())
    names = {d.name for d in space.decisions}
    assert {"s3.kernel", "s3.expand", "s3.se", "s3.op", "s3.residual"} <= names
    assert not [n for n in names if n.startswith("s3b")]
    workload = space.workload({**space.reference(), "s3.kernel": 3})
    kernels = [o.kernel for o in workload.operators if o.name.startswith("s3b") and o.depthwise]
    assert kernels == [3, 3, 3]


def test_a_pooling_may_stand_in_for_the_residual() -> None:
    space = load_space("mnasnet", joint=())
    workload = space.workload({**space.reference(), "s3.residual": "pool"})
    block = {o.name: o for o in workload.operators if o.name.startswith("s3b2.")}
    pool, add = block["s3b2.skip"], block["s3b2.add"]
    assert (pool.kind, pool.kernel, pool.stride, pool.inputs) == ("pool", 3, 1, ("s3b1.project",))
    assert add.inputs == ("s3b2.project", "s3b2.skip")
    assert pool.held_bytes == add.held_bytes == 4 * 40 * 28 * 28, "what the block wrote; what it is added to"
    assert "s3b1.skip" not in {o.name for o in workload.operators}, "the first block has a stride"


def test_grouped_blocks_shuffle_before_they_project() -> None:
    space = load_space("fbnet", joint=())
    workload = space.workload({**space.reference(), "s3b2.block": "k5_e1_g2"})
    block = [o for o in workload.operators if o.name.startswith("s3b2.")]
    assert [(o.kind, o.groups) for o in block] == [("conv", 32), ("shuffle", 2), ("conv", 2), ("add", 1)]
    assert block[2].weights == 32 * 32 // 2


def test_a_stage_of_one_width_is_pruned_in_shares_and_others_as_they_are() -> None:
    space = tiny(["sparsity"], stages=[{**MBCONV, "channels": 24}, {**MBCONV, "channels": [16, 40]}])
    assert [d.options for d in space.decisions if d.name.endswith(".width")] == [(16, 24), (16, 40), (16, 24, 32)]
    assert space.fixed["stem.width"] == 8


def test_blocks_are_known_and_skip_once() -> None:
    with pytest.raises(InvalidSpaceError, match="no block is called 'k9'; blocks are k3"):
        tiny(blocks={"k3": {}}, stages=[{"block": ["k9"], "channels": 8}])
    with pytest.raises(InvalidSpaceError, match="blocks 'a' and 'b' both skip"):
        tiny(blocks={"a": {"op": "skip"}, "b": {"op": "skip"}}, stages=[{"block": ["a", "b"], "channels": 8}])
    with pytest.raises(InvalidSpaceError, match="stage s1: give either several repeats or a block that skips"):
        tiny(stages=[{"op": ["mbconv", "skip"], "channels": 8, "repeats": [1, 2]}])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"stages": [{"op": "skip", "channels": 16}]},
            "s1b1: a block that changes the tensor's shape cannot be skipped",
        ),
        (
            {"stages": [{"op": ["mbconv", "skip"], "shared": True, "channels": 8}]},
            "stage s1: its blocks share their choices, and cannot all be skipped",
        ),
        (
            {"stages": [{"channels": 12, "groups": [1, 16]}]},
            "s1b1: some of its channels cannot be divided into its groups",
        ),
    ],
)
def test_stages_that_no_network_can_have_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSpaceError, match=message):
        tiny(**changes)


def test_the_largest_of_named_blocks_is_that_of_most_macs() -> None:
    space = load_space("fbnet", joint=(), narrow={"s2b1.block": ["k3_e1"]})
    assert set(space.references) == {"largest"}
    assert {v for n, v in space.reference().items() if n.endswith(".block")} == {"k5_e6"}


def test_where_something_is_always_removed_there_is_no_published_network() -> None:
    space = load_space("fbnet", joint={"keep": [0.5]})
    assert set(space.references) == {"largest"}
    assert list(load_space("fbnet", joint={"keep": [0.5, 1.0]}).references) == ["fbnet-c", "fbnet-b"]


def test_density_leaves_references_dense() -> None:
    space = load_space("fbnet", joint={"density": [1.0, "2:4"]})
    assert {o.density for o in space.workload(space.reference("fbnet-c")).operators} == {1.0}


def test_without_a_reference_the_largest_network_is_one() -> None:
    assert dict(tiny().reference()) == {"s1.depth": 2, "s1.width": 16, "s1b1.kernel": 5, "s1b2.kernel": 5}
