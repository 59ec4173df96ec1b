"""Published networks from their stage tables, counted exactly, and what is said of tables that a space lacks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hwnas.spaces import Space, load_space
from hwnas.spaces.catalog import space_from_spec
from hwnas.spaces.errors import InvalidFileError, InvalidSpaceError
from hwnas.spaces.stage_match import LacksError

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
MBCONV = {"kernel": 3, "expansion": 6, "repeats": 1, "stride": 1}
TINY: dict[str, Any] = {
    "stem": {"kernel": 3, "channels": 8, "stride": 1},
    "stages": [{**MBCONV, "channels": [8, 16], "kernel": [3, 5], "repeats": [1, 2], "stride": 2}],
    "head": {"kernel": 1, "channels": 32},
}


def tiny(joint: Any = (), **changes: Any) -> Space:
    """One stage of one or two blocks."""
    data = {"name": "tiny", "input_shape": [3, 8, 8], "num_classes": 10, "joint": joint}
    return space_from_spec({**data, **TINY, **changes})


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


@pytest.mark.parametrize(("kernel", "depth", "channels"), [(3, 1, 8), (5, 2, 16), (3, 2, 16)])
def test_a_table_is_found(kernel: int, depth: int, channels: int) -> None:
    space = tiny()
    assert space.find is not None
    stage = {**MBCONV, "kernel": kernel, "channels": channels, "repeats": depth, "stride": 2}
    found = space.find(space, {**TINY, "stages": [stage]})
    assert found["s1.depth"] == depth
    assert found["s1.width"] == channels
    assert found["s1b1.kernel"] == kernel


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{**MBCONV, "channels": 12, "stride": 2}], r"its block 1 is .* to 12 channels.*; s1.width offers 8, 16"),
        ([{**MBCONV, "kernel": 7, "channels": 8, "stride": 2}], r"block 1 is 7×7.*; s1b1.kernel offers 3, 5"),
        (
            [{**MBCONV, "expansion": 4, "channels": 8, "stride": 2}],
            "no decision for that: expansion of s1b1 is always 6",
        ),
        ([{**MBCONV, "channels": 8}], "block 1 .* is at s1b1 of the space, of stride 2"),
        (
            [{**MBCONV, "channels": 8, "stride": 2, "repeats": 3}],
            "it goes on with block 3 .* where the space's stages end",
        ),
        ([{"op": "conv", "channels": 8, "stride": 2}], "convolution 3×3 .*; .*: op of s1b1 is always mbconv"),
        (
            [{**MBCONV, "channels": 8, "stride": 2}, {**MBCONV, "channels": 8, "residual": False}],
            "without residual; .*: residual of s1b2 is always True",
        ),
    ],
)
def test_what_a_space_lacks_is_said(stages: list[dict[str, Any]], message: str) -> None:
    space = tiny()
    assert space.find is not None
    with pytest.raises(LacksError, match=message):
        space.find(space, {**TINY, "stages": stages})


FOUR = {"block": ["a", "b", "none"], "repeats": 4, "stride": 2}
SKIPPING: dict[str, Any] = {
    "blocks": {"a": {"kernel": 3, "se": 0.25}, "b": {"kernel": 5}, "none": {"op": "skip"}},
    "stages": [{**FOUR, "channels": 16}, {**FOUR, "channels": 24}],
}
"""Two stages of one to four blocks."""
DEEP: dict[str, Any] = {
    "stages": [
        {**MBCONV, "channels": 16, "repeats": [2, 3], "stride": 2},
        {**MBCONV, "channels": 24, "repeats": [2, 3]},
    ]
}
"""Two stages of two or three blocks."""
A, B = ({**MBCONV, "expansion": 1, "channels": channels, "stride": 2} for channels in (16, 24))
"""Blocks that begin the first and the second stage of `SKIPPING`."""


@pytest.mark.parametrize(
    ("space", "stages", "message"),
    [
        (SKIPPING, [{**A, "kernel": 5, "repeats": 2}, {**B, "kernel": 7}],
         r"its block 3 is 7×7, .*; s2b1.block offers a, b: none has kernel 7"),
        (SKIPPING, [{**A, "kernel": 5}, {**B, "kernel": 5, "se": 0.25}],
         r"its block 2 is 5×5, .*; s2b1.block offers a, b: none has kernel 5 with se 0.25"),
        (SKIPPING, [{**A, "kernel": 5, "repeats": 5}],
         r"its block 5 \(.*\) is one more than fits; s1 offers 1, 2, 3, 4 blocks"),
        (SKIPPING, [{**A, "kernel": 5}, {**B, "kernel": 5, "repeats": 5}],
         r"it goes on with block 6 .* where the space's stages end; s2 offers 1, 2, 3, 4 blocks"),
        (SKIPPING, [{**A, "kernel": 5}], "it ends before s2b1 of the space"),
        (SKIPPING, [{**A, "kernel": 5}, {**B, "kernel": 5, "channels": 32}],
         r"s2\.width is always 24, not channels 32"),
        (DEEP, [{**MBCONV, "channels": 16, "stride": 2}, {**MBCONV, "channels": 24, "repeats": 2}],
         r"its block 2 .* is at s1b2 of the space, which keeps its channels; s1 offers 2, 3 blocks"),
        (DEEP, [{**MBCONV, "channels": 16, "repeats": 4, "stride": 2}, {**MBCONV, "channels": 24, "repeats": 2}],
         r"its block 4 .* is one more than fits; s1 offers 2, 3 blocks"),
        (DEEP, [{**MBCONV, "channels": 16, "repeats": 3, "stride": 2}, {**MBCONV, "channels": 24}],
         "it ends before s2b2 of the space; s2 offers 2, 3 blocks"),
        (DEEP, [{**MBCONV, "channels": 16, "repeats": 2, "stride": 2},
                {**MBCONV, "channels": 24, "repeats": 2, "activation": "hswish"}],
         r"its block 3 .*: activation of s2b1 is always relu, not hswish"),
    ],
)  # fmt: skip
def test_the_lacking_decision_is_named_where_depths_vary(space: Any, stages: list[Any], message: str) -> None:
    wide = tiny(**space)
    assert wide.find is not None
    with pytest.raises(LacksError, match=message + "$"):
        wide.find(wide, {**TINY, "stages": stages})


def test_gates_and_activations_are_compared_where_the_table_states_them() -> None:
    squeezed = {**MBCONV, "se": 0.25, "channels": 8}
    space = tiny(act="hswish", gate="hsigmoid", stages=[squeezed, {**MBCONV, "channels": 8, "activation": "relu"}])
    assert space.find is not None
    network = {**TINY, "stages": [squeezed, {**MBCONV, "channels": 8}]}
    relu = {**network, "stages": [{**squeezed, "activation": "hswish"}, {**MBCONV, "channels": 8}]}
    for same in (network, {**network, "gate": "hsigmoid"}, relu):
        space.find(space, same)
    with pytest.raises(LacksError, match="its squeeze-excite gate is sigmoid, the space's hsigmoid"):
        space.find(space, {**network, "gate": "sigmoid"})
    with pytest.raises(LacksError, match=r"its block 2 is .*: activation of s2b1 is always relu, not hswish"):
        space.find(space, {**network, "act": "hswish"})
    with pytest.raises(LacksError, match="its stem's activation is relu6, the space's hswish"):
        space.find(space, {**network, "act": "relu6"})


def test_what_all_layers_depend_on_is_offered_where_it_lacks() -> None:
    space = tiny(resolution=[8, 16], width_multiplier=[0.5, 1.0])
    assert space.find is not None
    stages = [{**MBCONV, "channels": 40, "stride": 2}]
    with pytest.raises(
        LacksError, match=r"s1.width offers 8, 16 and width_multiplier offers 0.5, 1.0: none has channels"
    ):
        space.find(space, {**TINY, "stages": stages})
    with pytest.raises(
        LacksError, match=r"its stem has 24 channels, but stem.width is always 8, width_multiplier offers"
    ):
        space.find(space, {**TINY, "stem": {"channels": 24}, "stages": stages, "input": [3, 8, 8]})
    with pytest.raises(LacksError, match="its images have a side of 32, but resolution offers 8, 16"):
        space.find(space, {**TINY, "stages": stages, "input": [3, 32, 32]})


@pytest.mark.parametrize(
    ("changes", "misses"),
    [
        ({"stages": [{**MBCONV, "kernel": 7, "channels": 8, "stride": 2}]}, 1),
        ({"stages": [{**MBCONV, "kernel": 7, "channels": 12, "stride": 1, "repeats": 2}]}, 3),
        ({"stages": [{**MBCONV, "channels": 8, "stride": 2, "repeats": 5}]}, 3),
        ({"stages": [{**MBCONV, "kernel": 7, "channels": 8, "stride": 2}], "head": {"channels": 48}}, 3),
        ({"stages": [{**MBCONV, "channels": 8, "stride": 2}], "head": None}, 4),
        ({"stages": [{**MBCONV, "channels": 8, "stride": 2}], "act": "relu6"}, 3),
    ],
)
def test_the_distance_from_a_space_counts_what_it_does_not_offer(changes: dict[str, Any], misses: int) -> None:
    """A kernel; channels and a stride, too; blocks; the head's kernel and channels; a head; three activations."""
    space = tiny()
    assert space.find is not None
    with pytest.raises(LacksError) as error:
        space.find(space, {**TINY, **changes})
    assert error.value.misses == misses


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": []}, "space tiny: stages: .*at least 1 item"),
        ({"stages": [{"channels": 0}]}, r"stages.0.channels.*greater than or equal to 1 \(got 0\)"),
        (
            {"stages": [{"channels": 8, "kernal": 3}]},
            "stages.0.kernal: .*; did you mean 'kernel'",
        ),
        ({"stages": [{"channels": 8, "kernel": 4}]}, "stages.0.kernel"),
        ({"stem": {"kernel": 3}}, "stem.channels: this key is missing"),
        ({"classifier": {"in": 64}}, r"the classifier reads 64 channels, but \[32\] are written before it"),
        ({"references": 3}, "references must be stage tables by name"),
    ],
)
def test_tables_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidFileError, match=message):
        tiny(**changes)


def test_blocks_are_known_and_skip_once() -> None:
    with pytest.raises(InvalidSpaceError, match="no block is called 'k9'; blocks are k3"):
        tiny(blocks={"k3": {}}, stages=[{"block": ["k9"], "channels": 8}])
    with pytest.raises(InvalidSpaceError, match="blocks 'a' and 'b' both skip"):
        tiny(blocks={"a": {"op": "skip"}, "b": {"op": "skip"}}, stages=[{"block": ["a", "b"], "channels": 8}])
    with pytest.raises(InvalidSpaceError, match="stage s1: give either several repeats or a block that skips"):
        tiny(stages=[{"op": ["mbconv", "skip"], "channels": 8, "repeats": [1, 2]}])


def test_narrowing_keeps_options_by_pattern() -> None:
    space = tiny(["bits"], narrow={"s1b*.kernel": [5], "*.project.weight_bits": [8, 32]})
    assert space.fixed["s1b1.kernel"] == space.fixed["s1b2.kernel"] == 5
    assert space.decisions[space.column("s1b1.project.weight_bits")].options == (8, 32)
    assert space.decisions[space.column("s1b1.expand.weight_bits")].options == (4, 7, 8, 32)
    assert {
        o.kernel for o in space.workload_of_row(space.sample(np.random.default_rng(0), 1)[0]).operators if o.depthwise
    } == {5}


@pytest.mark.parametrize(
    ("narrow", "message"),
    [
        ({"s1b*.kernel": [7]}, r"narrow: s1b1.kernel cannot be \[7\]; its options are 3, 5"),
        ({"s9*": [1]}, "narrow: no decision of space 'tiny' matches 's9\\*'"),
        ({"s1b1.kernel": [3], "s1*.kernel": [5]}, "several patterns match s1b1.kernel, and leave it no option"),
    ],
)
def test_narrowing_that_makes_no_sense_is_refused(narrow: dict[str, list[int]], message: str) -> None:
    with pytest.raises(InvalidSpaceError, match=message):
        tiny(narrow=narrow)


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


def test_keys_that_would_be_ignored_are_refused() -> None:
    with pytest.raises(InvalidFileError, match="give either block or expansion, kernel"):
        tiny(blocks={"a": {}}, stages=[{"block": ["a"], "kernel": 7, "expansion": 4, "channels": 8}])
    with pytest.raises(InvalidFileError, match="input and classifier are keys of a network"):
        tiny(input=[3, 224, 224])


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
