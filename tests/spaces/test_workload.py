"""Wiring, totals, and memory from tensor lifetimes, on networks small enough to follow by hand."""

from __future__ import annotations

import pytest

from hwnas.spaces import Operator, Workload
from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.operator import PREVIOUS


def conv(name: str, cin: int, cout: int, inputs: tuple[str, ...] = (PREVIOUS,)) -> Operator:
    return Operator("conv", cin, cout, (4, 4), (4, 4), affine="bias", name=name, inputs=inputs)


def add(name: str, channels: int, *inputs: str) -> Operator:
    return Operator("add", channels, channels, (4, 4), (4, 4), name=name, inputs=inputs)


def test_a_chain_reads_what_came_before() -> None:
    workload = Workload.wire([conv("a", 3, 8), conv("b", 8, 8), conv("c", 8, 2)])
    assert [o.inputs for o in workload.operators] == [("input",), ("a",), ("b",)]


def test_an_entry_is_what_entered_the_group() -> None:
    workload = Workload.wire(
        [
            conv("stem", 3, 8),
            conv("b1.expand", 8, 24),
            conv("b1.project", 24, 8),
            add("b1.add", 8, PREVIOUS, "^b1"),
            conv("b2.project", 8, 8),
            add("b2.add", 8, PREVIOUS, "^b2"),
        ]
    )
    assert workload.operators[3].inputs == ("b1.project", "stem")
    assert workload.operators[5].inputs == ("b2.project", "b1.add")


def test_the_entry_of_the_first_group_is_the_input() -> None:
    workload = Workload.wire([conv("b.one", 8, 8), add("b.add", 8, PREVIOUS, "^b")])
    assert workload.operators[1].inputs == ("b.one", "input")


def test_an_operator_may_name_its_input() -> None:
    workload = Workload.wire([conv("a", 3, 8), conv("b", 8, 8), add("c", 8, "b", "a")])
    assert workload.operators[2].inputs == ("b", "a")


def test_an_identity_is_another_name_of_what_it_reads() -> None:
    def name(name: str, *inputs: str) -> Operator:
        return Operator("identity", 8, 8, (4, 4), (4, 4), name=name, inputs=inputs or (PREVIOUS,))

    workload = Workload.wire(
        [conv("a", 3, 8), name("node"), name("again", "node"), conv("b", 8, 8), add("c", 8, "again", "b"),
         name("image", "input"), conv("d", 3, 8)]
    )  # fmt: skip
    assert [(o.name, o.inputs) for o in workload.operators] == [
        ("a", ("input",)), ("b", ("a",)), ("c", ("a", "b")), ("d", ("input",)),
    ]  # fmt: skip
    with pytest.raises(InvalidSpaceError, match="two operators are called 'node'"):
        Workload.wire([conv("a", 3, 8), name("node"), conv("node", 8, 8)])


@pytest.mark.parametrize("name", ["later", "nowhere", "^nogroup"])
def test_an_input_that_nothing_writes_is_refused(name: str) -> None:
    with pytest.raises(InvalidSpaceError, match=r"operator 'a' reads '.*', which nothing before it writes"):
        Workload.wire([conv("a", 3, 8, (name,)), conv("later", 8, 8)])


def test_an_operator_cannot_read_itself() -> None:
    with pytest.raises(InvalidSpaceError, match="operator 'a' reads 'a'"):
        Workload.wire([conv("a", 3, 8, ("a",))])


@pytest.mark.parametrize("names", [("a", "a"), ("a", "b", "a"), ("input",)])
def test_names_are_unique(names: tuple[str, ...]) -> None:
    with pytest.raises(InvalidSpaceError, match=f"two operators are called '{names[-1]}'"):
        Workload.wire([conv(name, 8, 8) for name in names])


def test_totals() -> None:
    workload = Workload.wire([conv("a", 3, 8), conv("b", 8, 2)])
    assert workload.macs == (24 + 16) * 16
    assert workload.params == 24 + 8 + 16 + 2
    assert workload.weight_bytes == 4 * workload.params


def test_peak_memory_of_a_chain_is_its_widest_pair() -> None:
    workload = Workload.wire([conv("a", 3, 8), conv("b", 8, 6), conv("c", 6, 2)])
    assert workload.peak_memory_bytes == 4 * 16 * (8 + 6)


def test_peak_memory_keeps_what_a_residual_needs() -> None:
    operators = [conv("stem", 3, 8), conv("b.expand", 8, 24), conv("b.project", 24, 8), add("b.add", 8, "", "^b")]
    assert Workload.wire(operators).peak_memory_bytes == 4 * 16 * (8 + 24 + 8)
    assert Workload.wire(operators[:3]).peak_memory_bytes == 4 * 16 * (8 + 24)


def test_an_integer_tensor_takes_a_byte_per_value() -> None:
    quantize = Operator("quantize", 3, 3, (4, 4), (4, 4), out_bits=8, name="input.quantize")
    layer = Operator("conv", 3, 8, (4, 4), (4, 4), weight_bits=8, in_bits=8, out_bits=8, name="stem")
    assert Workload.wire([quantize, layer]).peak_memory_bytes == 16 * (4 * 3 + 3)  # float input, its integers
