"""NAS-Bench-201's networks against published and hand-counted numbers."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.spaces import Operator, Space, Workload, load_space
from hwnas.spaces.blocks.cell_form import read_cell
from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.nasbench201 import cell_string

ALL = ("bits", "sparsity", "rank", "density")


@pytest.fixture(scope="module")
def cifar() -> Space:
    return load_space("nasbench201", input_shape=(3, 32, 32), num_classes=10, joint=())


@pytest.fixture(scope="module")
def joint() -> Space:
    return load_space("nasbench201", input_shape=(3, 32, 32), num_classes=10, joint=ALL)


def of_cell(space: Space, text: str) -> Workload:
    assert space.find is not None
    return space.workload(space.find(space, text))


def cell(workload: Workload, name: str = "s1c1") -> list[Operator]:
    """The operators of one cell; names without it."""
    return [o for o in workload.operators if o.name.startswith(f"{name}.")]


AROUND_PARAMS = (
    3 * 16 * 9 + 32  # the first convolution and its normalisation
    + 16 * 32 * 9 + 64 + 32 * 32 * 9 + 64 + 16 * 32  # residual block: two 3×3, and a 1×1 on the shortcut
    + 32 * 64 * 9 + 128 + 64 * 64 * 9 + 128 + 32 * 64
    + 2 * 64 + 64 * 10 + 10  # the last normalisation, the classifier
)  # fmt: skip
AROUND_MACS = (
    3 * 16 * 9 * 32**2
    + (16 * 32 * 9 + 32 * 32 * 9 + 16 * 32) * 16**2
    + (32 * 64 * 9 + 64 * 64 * 9 + 32 * 64) * 8**2
    + 64 * 10
)  # fmt: skip
NOTHING = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


def test_the_smallest_network_as_published(cifar: Space) -> None:
    """7.78 M MACs (the paper's FLOPs) and 0.073 M parameters: what is around the cells."""
    workload = of_cell(cifar, NOTHING)
    assert (workload.params, workload.macs) == (AROUND_PARAMS, AROUND_MACS)
    assert (round(workload.params / 1e6, 3), round(workload.macs / 1e6, 2)) == (0.073, 7.78)
    assert [o.kind for o in cell(workload)] == ["zero"]


def test_the_largest_network_as_published(cifar: Space) -> None:
    """220.12 M MACs and 1.531 M parameters (1.532 M rounded): six 3×3 convolutions in each of fifteen cells."""
    workload = cifar.workload(cifar.reference("all_conv3x3"))
    weights = {c: c * c * 9 for c in (16, 32, 64)}
    assert workload.params == AROUND_PARAMS + 30 * sum(weights[c] + 2 * c for c in weights) == 1_531_546
    assert workload.macs == AROUND_MACS + 30 * sum(weights[c] * s**2 for c, s in ((16, 32), (32, 16), (64, 8)))
    assert round(workload.macs / 1e6, 2) == 220.12


def test_a_cell_in_full(cifar: Space) -> None:
    """The cell that is best on CIFAR-10: every node but node 2 has several readers."""
    text = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    tensor = 16 * 32 * 32 * 4
    operators = [
        (o.name[5:], o.activation, tuple(i[5:] for i in o.inputs), o.held_bytes // tensor)
        for o in cell(of_cell(cifar, text))
    ]
    assert operators == [
        ("input_relu", "relu", ("",), 0),
        ("0to1", "relu", ("input_relu",), 1),  # the input waits for its addition; two rectified reads, and no other
        ("0to2", "none", ("input_relu",), 2),  # and node 1
        ("1to2", "none", ("0to1",), 2),
        ("1to2_add", "none", ("0to2", "1to2"), 3),
        ("1to3", "none", ("0to1",), 2),
        ("1to3_add", "none", ("", "1to3"), 2),
        ("1to2_add_relu", "relu", ("1to2_add",), 1),
        ("2to3", "none", ("1to2_add_relu",), 1),
        ("2to3_add", "none", ("1to3_add", "2to3"), 1),
    ]


def test_a_convolution_that_only_another_one_reads_is_rectified_at_once(cifar: Space) -> None:
    operators = cell(cifar.workload(cifar.reference("resnet")))
    assert [(o.kind, o.activation) for o in operators] == [
        ("activate", "relu"), ("conv", "relu"), ("conv", "none"), ("add", "none"),
    ]  # fmt: skip
    assert operators[-1].inputs == ("stem", operators[-2].name)


def test_pooling_a_tensor_twice_is_done_once(cifar: Space) -> None:
    operators = cell(of_cell(cifar, "|avg_pool_3x3~0|+|none~0|nor_conv_1x1~1|+|avg_pool_3x3~0|none~1|skip_connect~2|"))
    assert [o.kind for o in operators] == ["pool", "activate", "conv", "add"]
    assert (operators[0].kernel, operators[0].stride) == (3, 1)


def test_a_cell_that_skips_is_nothing(cifar: Space) -> None:
    workload = cifar.workload(
        cifar.find(cifar, NOTHING.replace("none~0|none~1|none~2", "skip_connect~0|none~1|none~2"))
    )  # type: ignore[misc]
    assert not cell(workload)
    assert workload.macs == AROUND_MACS


def test_the_residual_block_between_stages(cifar: Space) -> None:
    block = cell(cifar.workload(cifar.reference("resnet")), "s2r")
    assert [(o.name[4:], o.kind, o.kernel, o.stride, o.activation, o.affine) for o in block] == [
        ("relu", "activate", 1, 1, "relu", "none"),
        ("first", "conv", 3, 2, "relu", "norm"),
        ("second", "conv", 3, 1, "none", "norm"),
        ("pool", "pool", 2, 2, "none", "none"),
        ("shortcut", "conv", 1, 1, "none", "none"),
        ("add", "add", 1, 1, "none", "none"),
    ]
    assert block[0].inputs == block[3].inputs == ("s1c5.2to3_add",)
    assert block[-1].inputs == ("s2r.second", "s2r.shortcut")


def test_strings_find_candidates_and_candidates_give_strings(cifar: Space, joint: Space) -> None:
    for space in (cifar, joint):
        assert space.find is not None
        for row in space.sample(np.random.default_rng(0), 40):
            candidate = space.decode(row)
            text = cell_string(space, candidate)
            found = space.find(space, text)
            assert {n: found[n] for n in found if n.endswith(".op")} == {
                n: candidate[n] for n in candidate if n.endswith(".op")
            }
            assert read_cell(text) == tuple(candidate[n] for n in candidate if n.endswith(".op"))
    again = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|skip_connect~2|"
    assert (
        of_cell(joint, again) == joint.workload(joint.reference("resnet")) == cifar.workload(cifar.reference("resnet"))
    )


def test_a_narrowed_space_says_what_it_lacks() -> None:
    space = load_space("nasbench201", joint=(), narrow={"0to3.op": ["none"], "*to2.op": ["none", "nor_conv_1x1"]})
    assert space.find is not None
    assert "all_skip" not in space.references
    with pytest.raises(InvalidSpaceError, match=r"0to3\.op offers none, not skip_connect"):
        space.find(space, NOTHING.replace("none~0|none~1|none~2", "skip_connect~0|none~1|none~2"))
    text = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|none~0|none~1|nor_conv_1x1~2|"
    candidate = space.decode(space.encode(space.find(space, text)))
    assert cell_string(space, candidate) == text
    rows = space.sample(np.random.default_rng(0), 50)
    for row in rows:
        workload = space.workload_of_row(row)
        assert workload.peak_memory_bytes == max(o.live_bytes for o in workload.operators)


def test_every_digest_is_reached(cifar: Space) -> None:
    rows = np.indices(cifar.sizes).reshape(6, -1).T.astype(np.int16)
    assert len(np.unique(cifar.canonical(rows), axis=0)) == 5260


def test_cells_of_a_stage_are_compressed_alike(joint: Space) -> None:
    reference = joint.reference("all_conv1x1")
    changed = {
        "s2.0to1.weight_bits": 4,
        "s2.0to1.rank": 0.5,
        "s2.2to3.density": "2:4",
        "s2.width": 24,
        "s2.act_bits": 8,
    }
    workload = joint.workload({**reference, **changed})
    for number in range(1, 6):
        own = {o.name[5:]: o for o in cell(workload, f"s2c{number}")}
        # Even rank 24 · 24 / 48 = 12, half of it 6, to a multiple of 4, halves to even: 8
        assert (own["0to1_in"].out_channels, own["0to1"].in_channels, own["0to1"].weight_bits) == (8, 8, 4)
        assert (own["2to3"].density, own["2to3"].pattern, own["2to3"].weight_bits) == (0.5, 4, 32)
        assert {o.out_bits for o in own.values()} == {8}
    assert "0to1_in" not in {o.name[5:] for o in cell(workload, "s1c1")}


def test_precision_flows_from_writer_to_reader(joint: Space) -> None:
    for row in joint.sample(np.random.default_rng(1), 60):
        workload = joint.workload_of_row(row)
        written = {o.name: o.out_bits for o in workload.operators} | {"input": 32}
        for o in workload.operators:
            assert [written[name] for name in o.inputs] == [o.in_bits] * len(o.inputs), o.name
