"""Calls as torch modules, against torch's own functions."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from hwnas.spaces.call_text import call_text
from hwnas.spaces.calls import CallUnit, operation, run_call
from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.frozen import freeze
from hwnas.spaces.operator import Operator
from tests.every_call import CASES, COMPUTING, TOKENS, B, W, X, built, call_unit, chain, one
from tests.every_kind import images

every_case = pytest.mark.parametrize("name", CASES)

HEADS = functional.scaled_dot_product_attention
FUNCTIONS = {
    "layer_norm": lambda c, x: functional.layer_norm(x, (12,), *c, eps=1e-6),
    "gelu with tanh": lambda _, x: functional.gelu(x, approximate="tanh"),
    "softmax": lambda _, x: x.softmax(-1),
    "attention": lambda _, x, y, z: HEADS(x, y, z),
    "heads": lambda _, x: HEADS(*x.reshape(-1, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)).transpose(1, 2).reshape(-1, 5, 8),
    "addmm": lambda c, x: x @ c[0] + c[1],
    "class token": lambda c, x: torch.cat([c[0].repeat(len(x), 1, 1), x], 1) + c[1],
    "group_norm": lambda c, x: functional.group_norm(x, 3, *c),
    "mean of tokens": lambda _, x: x.mean(1),
    "upsample_bilinear2d": lambda _, x: functional.interpolate(x, scale_factor=2, mode="bilinear"),
    "gated halves": lambda _, x: functional.glu(x, 1),
    "max_pool2d": lambda _, x: functional.max_pool2d(x, 3, 2, 1),
    "upsample_nearest2d": lambda _, x: x.repeat_interleave(2, 2).repeat_interleave(2, 3),
    "pixel_shuffle": lambda _, x: nn.PixelShuffle(2)(x),
    "select": lambda _, x: x[:, 0],
    "first of unbound": lambda _, x: x[:, 4:5],
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("n", [1, 3])
def test_calls_compute_what_torch_does(name: str, n: int) -> None:
    case = CASES[name]
    unit = call_unit(built(case))
    inputs = [torch.randn(n, *shape, generator=torch.Generator().manual_seed(i)) for i, shape in enumerate(case.inputs)]
    assert torch.allclose(unit(*inputs), FUNCTIONS[name](unit.constants, *inputs), atol=1e-5)  # type: ignore[no-untyped-call]


@every_case
def test_shapes_are_as_the_operator_says(name: str) -> None:
    case = CASES[name]
    network = built(case)
    y = network(images(network, 3, 9))
    assert y.shape == (3, *case.output)
    operator = network.workload.operators[-1]
    assert y[0].numel() == operator.out_channels * operator.out_size[0] * operator.out_size[1]
    assert operator.in_channels * operator.in_size[0] * operator.in_size[1] == np.prod(case.inputs[0])


def test_constants_are_parameters_that_learn() -> None:
    network = built(COMPUTING["layer_norm"])
    unit = call_unit(network)
    assert [n for n, _ in unit.named_parameters()] == ["constant_0", "constant_1"]
    assert set(unit.state_dict()) == {"constant_0", "constant_1"}
    assert unit.operator.params == network.workload.params == 24
    assert unit.operator.weight_bytes == network.workload.weight_bytes == 4 * 24
    torch.autograd.backward(network(images(network, 4, 9)).square().sum())
    assert all(p.grad is not None and p.grad.any() for p in unit.parameters())


def test_fresh_constants_of_one_dimension_leave_a_normalisation_as_it_is() -> None:
    unit = CallUnit(COMPUTING["class token"].operator())
    assert 0 < float(unit.constants[1].detach().std()) < 0.1
    norm = CallUnit(COMPUTING["layer_norm"].operator())
    assert [c.tolist() for c in norm.constants] == [[1.0] * 12] * 2


def test_what_is_not_learnt_keeps_its_type_and_is_no_parameter() -> None:
    network = built(COMPUTING["what is not learnt"])
    unit = call_unit(network)
    assert [n for n, _ in unit.named_parameters()] == ["constant_0"]
    assert [(n, b.dtype) for n, b in unit.named_buffers()] == [
        ("constant_1", torch.bool), ("constant_2", torch.int64), ("constant_3", torch.float32),
    ]  # fmt: skip
    assert unit.operator.params == network.workload.params == 12
    assert unit.operator.weight_bytes == 4 * 12 + 7 * 12 + 8 * 7 + 4 * 7
    unit.constants[1][0] = True
    unit.constants[2].copy_(torch.tensor([4, 0, 0, 1, 2, 3, 4]))
    x = torch.randn(2, *TOKENS)
    expected = x[:, unit.constants[2]] * unit.constants[0]
    expected[:, 0] = -unit.constants[0]
    assert torch.allclose(unit(x), expected + unit.constants[3])


def test_statistics_among_parameters_are_not_trained() -> None:
    """As texts have them that were written before there were buffers."""
    steps = [("aten.batch_norm.default", [X, W, B, {"parameter": 2}, {"parameter": 3}, False, 0.1, 1e-5, False], {})]
    unit = CallUnit(Operator("call", 6, 6, (8, 8), (8, 8), call=call_text(steps, [(6,)] * 4)))
    assert [p.requires_grad for p in unit.parameters()] == [True, True, False, False]


def test_a_view_of_any_order_in_memory() -> None:
    case = chain(
        ("transpose.int", [X, 1, 2]), ("view.default", [{"step": 0}, [{"batch": 1}, 60]]), on=[TOKENS], to=(60,)
    )
    x = torch.randn(2, *TOKENS)
    assert torch.equal(CallUnit(case.operator())(x), x.transpose(1, 2).reshape(2, 60))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("aten.no_such_thing.default", "has no operation 'aten.no_such_thing.default'"),
        ("aten.gelu.no_such_thing", "has no operation 'aten.gelu.no_such_thing'"),
        ("aten.__class__.mro", "has no operation"),
        ("aten.relu_.default", "does more than to compute tensors from tensors"),
        ("aten.add.out", "does more than to compute tensors"),
        ("aten.save.default", "'aten.save.default', which does more"),
        ("aten.from_file.default", "'aten.from_file.default', which does more"),
        ("aten.sym_size.int", "'aten.sym_size.int', which does more"),
    ],
)
def test_what_may_not_be_called_is_refused_before_it_is(name: str, message: str) -> None:
    text = call_text([(name, [X], {})])
    with pytest.raises(InvalidSpaceError, match=message):
        CallUnit(one("gelu.default", X, on=[TOKENS], to=TOKENS).operator(call=text))
    with pytest.raises(InvalidSpaceError, match=message):
        operation(name)


def test_calls_say_what_they_lack() -> None:
    unit = CallUnit(COMPUTING["mul"].operator())
    with pytest.raises(InvalidSpaceError, match="a call of mul reads 2 tensors and got 1"):
        unit(torch.zeros(1, 6, 8, 8))
    several = one("chunk.default", X, 2, 1, on=[TOKENS], to=(3, 12))
    with pytest.raises(InvalidSpaceError, match=r"its last step aten\.chunk\.default gives several"):
        run_call(CallUnit(several.operator()).call, [torch.zeros(1, *TOKENS)], [])


@pytest.mark.parametrize("bits", [32, 8])
@pytest.mark.parametrize("name", ["layer_norm", "class token", "what is not learnt", "to tokens", "mul"])
def test_frozen_calls_keep_their_constants(name: str, bits: int) -> None:
    network = built(CASES[name], bits)
    x = images(network, 4, 9)
    with torch.inference_mode():
        assert torch.allclose(freeze(network)(x), network(x), atol=1e-5)


@pytest.mark.parametrize("name", ["heads", "class token", "windows"])
def test_calls_are_compiled_copied_and_sent(name: str) -> None:
    network = built(CASES[name])
    x = images(network, 2, 9)
    with torch.inference_mode():
        compiled = torch.compile(freeze(network), fullgraph=True, dynamic=False, backend="aot_eager")
        for other in (compiled, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            assert torch.allclose(other(x), network(x), atol=1e-5)
