"""The inverted-residual space against published and hand-counted numbers."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.spaces import Operator, Space, Workload, load_space
from hwnas.spaces.blocks.inverted_residual import hidden_channels
from hwnas.spaces.decision import Option
from hwnas.spaces.joint import Joint


@pytest.fixture(scope="module")
def digits() -> Space:
    return load_space("mbconv", input_shape=(1, 8, 8), num_classes=10)


def chosen(space: Space, **changes: Option) -> Workload:
    """The reference network with some decisions changed; ``s2b1_kernel`` stands for ``s2b1.kernel``."""
    names = {name.replace(".", "_"): name for name in space.reference()}
    return space.workload({**space.reference(), **{names[k]: v for k, v in changes.items()}})


def operator(workload: Workload, name: str) -> Operator:
    return next(o for o in workload.operators if o.name == name)


def test_mobilenetv2_as_published() -> None:
    """Torchvision's mobilenet_v2 has 3 504 872 parameters; its paper (table 4) says 300 M multiply–adds."""
    space = load_space("mbconv", input_shape=(3, 224, 224), num_classes=1000)
    workload = space.workload(space.reference("mobilenetv2"))
    assert workload.params == 3_504_872
    assert workload.macs == 300_774_272
    assert workload.weight_bytes == 4 * (
        workload.params - sum(o.out_channels for o in workload.operators if o.affine == "norm")
    )


def test_mobilenetv2_does_not_depend_on_what_is_searched() -> None:
    full = load_space("mbconv", input_shape=(3, 32, 32), num_classes=10)
    for joint in ((), ("bits",), ("sparsity", "rank")):
        space = load_space("mbconv", input_shape=(3, 32, 32), num_classes=10, joint=joint)
        mine, theirs = (s.workload(s.reference()).operators for s in (space, full))
        assert [(o, o.name) for o in mine] == [(o, o.name) for o in theirs]


@pytest.mark.parametrize(
    ("channels", "expansion", "keep", "hidden"),
    [
        (16, 6, 1.0, 96),
        (16, 6, 0.5, 48),
        (24, 3, 0.75, 56),  # 54
        (8, 3, 0.5, 16),  # 12, halves round up
        (8, 3, 0.75, 16),  # 18
        (1, 3, 0.5, 8),  # at least 8
        (20, 1, 0.5, 20),  # no expansion: all of the input
    ],
)
def test_hidden_channels(channels: int, expansion: int, keep: float, hidden: int) -> None:
    assert hidden_channels(channels, expansion, keep) == hidden


def test_a_residual_needs_equal_channels_and_stride_1(digits: Space) -> None:
    names = {o.name for o in chosen(digits, stem_width=16, s1_width=16, s2_depth=2, s3_depth=3).operators}
    assert "s1b1.add" in names, "16 channels in and out, stride 1"
    assert "s2b1.add" not in names, "stride 2"
    assert "s2b2.add" in names
    assert "s3b1.add" not in names, "24 to 32 channels"
    assert {"s3b2.add", "s3b3.add"} <= names
    changed = {o.name for o in chosen(digits, stem_width=8, s1_width=16).operators}
    assert "s1b1.add" not in changed, "8 to 16 channels"


def test_a_residual_adds_what_entered_the_block(digits: Space) -> None:
    workload = chosen(digits)
    assert operator(workload, "s2b2.add").inputs == ("s2b2.project", "s2b1.project")
    assert operator(workload, "s3b3.add").inputs == ("s3b3.project", "s3b2.add")


def test_a_block_in_full(digits: Space) -> None:
    """Block 1 of stage 2 with all options on: 16 channels, expanded by 6, squeezed to a quarter of the input."""
    workload = chosen(digits, s2b1_se=0.25, s2b1_kernel=5, s2b1_keep=0.5, s2b1_expand_rank=0.5, s2b1_project_rank=0.5)
    block = [o for o in workload.operators if o.name.startswith("s2b1.")]
    assert [(o.name[5:], o.in_channels, o.out_channels) for o in block] == [
        ("expand_in", 16, 8),  # even rank 16·48/64 = 12, half of it 6, to a multiple of 4: 8
        ("expand", 8, 48),
        ("depthwise", 48, 48),
        ("se_pool", 48, 48),
        ("se_reduce", 48, 4),  # a quarter of the block's 16 input channels
        ("se_expand", 4, 48),
        ("se_scale", 48, 48),
        ("project_in", 48, 8),
        ("project", 8, 24),
    ]
    depthwise = block[2]
    assert (depthwise.kernel, depthwise.stride, depthwise.groups) == (5, 2, 48)
    assert (depthwise.in_size, depthwise.out_size) == ((8, 8), (4, 4))
    assert block[6].inputs == ("s2b1.depthwise", "s2b1.se_expand")
    assert [o.activation for o in block] == ["none", "relu", "relu", "none", "relu", "sigmoid", "none", "none", "none"]


def test_without_expansion_there_is_no_expand_layer(digits: Space) -> None:
    names = [o.name for o in chosen(digits, s1b1_expand=1).operators]
    assert "s1b1.expand" not in names
    assert "s1b1.expand" in [o.name for o in chosen(digits, s1b1_expand=3).operators]


def test_layers_beyond_the_depth_are_absent(digits: Space) -> None:
    for depth in (1, 2, 3):
        blocks = {o.name.partition(".")[0] for o in chosen(digits, s4_depth=depth).operators}
        assert {b for b in blocks if b.startswith("s4")} == {f"s4b{i}" for i in range(1, depth + 1)}


def test_precision_flows_from_writer_to_reader(digits: Space) -> None:
    for row in digits.sample(np.random.default_rng(1), 200):
        workload = digits.workload_of_row(row)
        written = {o.name: o.out_bits for o in workload.operators} | {"input": 32}
        for o in workload.operators:
            bits = [written[name] for name in o.inputs]
            if o.kind == "add":
                assert o.in_bits == max(bits)
            else:
                assert o.in_bits == bits[0], o.name


def test_squeeze_and_excite_runs_in_float(digits: Space) -> None:
    values: dict[str, Option] = {name: 8 for name in digits.reference() if name.endswith("_bits")}
    workload = digits.workload({**digits.reference(), **values, "s2b1.se": 0.25})
    for name in ("se_reduce", "se_expand"):
        o = operator(workload, f"s2b1.{name}")
        assert (o.weight_bits, o.in_bits, o.out_bits) == (32, 32, 32)
    assert operator(workload, "s2b1.se_scale").out_bits == 8


@pytest.mark.parametrize("bits", [4, 7, 8])
def test_weight_bits_shrink_the_file_as_stored(digits: Space, bits: int) -> None:
    values: dict[str, Option] = {
        d.name: bits if bits in d.options else 8 for d in digits.decisions if d.name.endswith("_bits")
    }
    values |= {d.name: 8 for d in digits.decisions if d.name.endswith("act_bits")}
    workload = digits.workload({**digits.reference(), **values})
    inner = [o for o in workload.operators if o.kind == "conv" and o.name not in ("stem", "classifier")]
    assert {o.weight_bits for o in inner} == {bits}
    half = {4: 2, 7: 1, 8: 1}[bits]
    assert sum(o.weight_bytes - 13 * o.out_channels for o in inner) == sum(o.weights for o in inner) // half


def test_what_is_not_joint_is_fixed() -> None:
    space = load_space("mbconv", input_shape=(1, 8, 8), num_classes=10, joint=())
    assert not [d.name for d in space.decisions if d.name.endswith(("bits", "keep", "rank"))]
    assert {v for name, v in space.fixed.items() if name.endswith("bits")} == {32}
    assert {v for name, v in space.fixed.items() if name.endswith(("keep", "rank"))} == {1.0}
    assert all(o.weight_bits == o.in_bits == 32 for o in space.workload(space.reference()).operators)
    assert Joint.of(()) == Joint()


@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (3, 16, 16), (3, 17, 17), (4, 64, 64), (3, 65, 65), (3, 8, 512), (2, 33, 9)]
)
def test_any_shape_from_8_to_512_halves_down(shape: tuple[int, int, int]) -> None:
    space = load_space("mbconv", input_shape=shape, num_classes=3)
    workload = space.workload(space.reference())
    size = shape[1:]
    for o in workload.operators:
        if o.kind == "conv" and o.in_size != (1, 1) and ".se_" not in o.name:
            assert o.in_size == size, o.name
            size = (-(-size[0] // o.stride), -(-size[1] // o.stride))
            assert o.out_size == size, o.name
    assert operator(workload, "pool").in_size == size
    assert workload.operators[0].in_channels == shape[0]
    assert workload.operators[-1].out_channels == 3


def test_skeletons_change_at_16_and_64() -> None:
    blocks = {
        side: sum(d.name.endswith(".kernel") for d in load_space("mbconv", input_shape=(3, side, side)).decisions)
        for side in (8, 16, 17, 64, 65, 512)
    }
    assert blocks[8] == blocks[16] == 1 + 2 + 3 + 3
    assert blocks[17] == blocks[64] == 1 + 3 + 3 + 4 + 3
    assert blocks[65] == blocks[512] == 1 + 3 + 4 + 4 + 4 + 4 + 1
