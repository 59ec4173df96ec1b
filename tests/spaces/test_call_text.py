"""The text of calls: what it says, and texts that say nothing."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest

from hwnas.spaces import Operator
from hwnas.spaces.call_text import Buffer, call_text, parse_call
from hwnas.spaces.errors import InvalidSpaceError

X = {"input": 0}
NORM = ("aten.layer_norm.default", [X, [192], {"parameter": 0}, {"parameter": 1}, 1e-6], {})


def test_a_text_is_canonical_and_read_back() -> None:
    text = call_text([NORM], [(192,), (192,)], [(197, 192)])
    assert text == (
        '{"inputs":[[197,192]],"parameters":[[192],[192]],"steps":[{"args":[{"input":0},[192],{"parameter":0},'
        '{"parameter":1},1e-06],"kwargs":{},"op":"aten.layer_norm.default"}]}'
    )
    call = parse_call(text)
    assert (call.parameters, call.inputs) == (((192,), (192,)), ((197, 192),))
    (step,) = call.steps
    assert (step.op, step.args, step.kwargs) == (NORM[0], tuple(NORM[1]), {})
    assert (call.learnt, call.reads, call.names) == (384, 1, ("layer_norm",))


def test_what_is_not_learnt_has_a_type() -> None:
    buffers = (Buffer("int64", (3,)), Buffer("bool", ()))
    text = call_text([("aten.index.Tensor", [X, [None, {"buffer": 0}]], {})], [(5,)], buffers=buffers)
    assert text.startswith('{"buffers":[{"dtype":"int64","shape":[3]},{"dtype":"bool","shape":[]}],"parameters":[[5]]')
    call = parse_call(text)
    assert call.buffers == buffers
    assert (call.learnt, call.constant_bytes) == (5, 4 * 5 + 8 * 3 + 1)


def test_what_is_missing_is_none() -> None:
    call = parse_call('{"steps":[{"op":"aten.relu.default"}]}')
    assert (call.parameters, call.buffers, call.inputs) == ((), (), ())
    assert (call.steps[0].args, call.steps[0].kwargs) == ((), {})
    assert (call.learnt, call.reads) == (0, 1)
    assert parse_call(call_text([("aten.add.Tensor", [X, {"input": 2}], {})])).reads == 3
    infinite = call_text([("aten.clamp.default", [X, float("-inf")], {})])
    assert parse_call(infinite).steps[0].args[1] == float("-inf")


def test_an_operation_is_named_once() -> None:
    relu = ("aten.relu.default", [X], {})
    view = ("aten.view.default", [{"step": 1}, [{"batch": 1}, -1]], {})
    assert parse_call(call_text([relu, relu, view])).names == ("relu", "view")


def test_shapes_where_the_text_has_none() -> None:
    call = parse_call(call_text([("aten.mul.Tensor", [X, {"input": 1}], {})]))
    assert call.shapes(6, (8, 4)) == ((6, 8, 4),) * 2
    assert call.shapes(192, (197, 1)) == ((197, 192),) * 2
    assert call.shapes(192, (1, 1)) == ((192,),) * 2
    told = parse_call(call_text([("aten.mul.Tensor", [X, {"input": 1}], {})], inputs=[(2, 3), (1, 3)]))
    assert told.shapes(6, (8, 4)) == ((2, 3), (1, 3))


@pytest.mark.parametrize(
    ("steps", "moves"),
    [
        ([("aten.view.default", [X, [{"batch": 1}, -1]], {})], True),
        ([("aten.view.default", [X], {}), ("aten.transpose.int", [{"step": 0}, 1, 2], {})], True),
        ([("aten.view.default", [X], {}), ("aten.relu.default", [{"step": 0}], {})], False),
        ([("aten.view.dtype", [X, {"dtype": "uint8"}], {})], False),
        ([("aten.cat.default", [[X, {"input": 1}]], {})], False),
        ([("aten.expand.default", [{"input": 1}, [1]], {})], False),
    ],
)
def test_what_only_moves(steps: list[Any], moves: bool) -> None:
    assert parse_call(call_text(steps)).moves == moves
    assert not parse_call(call_text(steps, [(1,)])).moves
    assert not parse_call(call_text(steps, buffers=[Buffer("int64", (1,))])).moves


def text_of(*args: Any, op: str = "aten.relu.default", **more: Any) -> str:
    return json.dumps({"steps": [{"op": op, "args": args}], **more}, sort_keys=True, separators=(",", ":"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("[]", "has no steps"),
        ('{"steps":[]}', "has no steps"),
        (text_of(X, banana=1), "unknown key 'banana'"),
        ('{"steps": [{"op": "aten.relu.default"}]}', "is not canonical"),
        ('{"steps":[{"op":"aten.relu.default","args":[]}]}', "is not canonical"),
        (text_of(X, parameters=[3]), "parameters that are no lists of sizes"),
        (text_of(X, parameters=[[True]]), "parameters that are no lists"),
        (text_of(X, inputs=[[-1]]), "inputs that are no lists"),
        ('{"steps":["aten.relu.default"]}', "has a step that is no"),
        ('{"steps":[{"args":[]}]}', "has a step that is no"),
        (text_of(X, op="prims.sin.default"), "calls 'prims.sin.default'; only operations of torch.ops.aten may be"),
        (text_of(X, op="aten.relu"), "calls 'aten.relu'"),
        (text_of(X, op="aten.relu.default.x"), "calls 'aten.relu.default.x'"),
        ('{"steps":[{"args":{},"op":"aten.relu.default"}]}', "arguments of aten.relu.default that are no list"),
        (text_of({"banana": 1}), "unknown argument {'banana': 1}"),
        (text_of({}), "unknown argument {}"),
        (text_of({"input": 0, "item": 1}), "unknown argument"),
        (text_of({"input": -1}), "must be whole and not negative"),
        (text_of({"input": True}), "must be whole"),
        (text_of({"batch": 0.5}), "must be whole"),
        (text_of({"dtype": "complex64"}), "unknown type 'complex64' .known: float32"),
        (text_of({"dtype": []}), "unknown type"),
        (text_of(X, buffers=[[3]]), "buffers that are no"),
        (text_of(X, buffers=[{"dtype": "int64"}]), "buffers that are no"),
        (text_of(X, buffers=[{"dtype": "complex64", "shape": [3]}]), "unknown type 'complex64'"),
        (text_of(X, buffers=[{"dtype": "int64", "shape": 3}]), "buffers that are no lists of sizes"),
        (text_of({"buffer": 1}, buffers=[{"dtype": "int64", "shape": [3]}]), "names {'buffer': 1} in step 0"),
        (text_of({"step": 0}), "names {'step': 0} in step 0, which there is not"),
        (text_of([[{"parameter": 1}]], parameters=[[2]]), "names {'parameter': 1} in step 0"),
        (text_of({"input": 1}, inputs=[[2]]), "names {'input': 1} in step 0"),
    ],
)
def test_texts_that_make_no_sense(text: str, message: str) -> None:
    with pytest.raises(InvalidSpaceError, match=message):
        parse_call(text)


def test_a_long_text_is_shown_in_part() -> None:
    with pytest.raises(InvalidSpaceError) as caught:
        parse_call("[" * 10_000)
    assert len(str(caught.value)) < 400


def test_operators_count_the_constants() -> None:
    text = call_text([NORM], [(192,), (192,)], [(197, 192)])
    operator = Operator("call", 192, 192, (197, 1), (197, 1), call=text, in_bits=8, out_bits=8, weight_bits=8)
    assert (operator.weights, operator.macs, operator.learnt, operator.params) == (0, 0, 384, 384)
    assert operator.weight_bytes == 4 * 384, "in floats, whatever weight_bits says"
    assert (operator.in_bytes, operator.out_bytes) == (197 * 192, 197 * 192)
    assert not operator.integer
    assert operator != Operator("call", 192, 192, (197, 1), (197, 1), call=call_text([("aten.relu.default", [X], {})]))
    assert pickle.loads(pickle.dumps(operator)) == operator
