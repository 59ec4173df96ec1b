"""Mixtures are weighted sums of networks, where one can say what these are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from hwnas.spaces import Space, load_space
from hwnas.spaces.errors import InvalidSpaceError, UnknownNameError
from hwnas.spaces.shared.events import ALWAYS, NEVER, Event
from hwnas.spaces.shared.mixture import mix

from .test_shared_network import EVERYTHING, images, shared_network, space_of


def chosen(space: Space, row: Any, names: list[str]) -> dict[str, Tensor]:
    columns = {name: space.column(name) for name in names}
    return {n: one_hot(torch.tensor(int(row[c])), int(space.sizes[c])).float() for n, c in columns.items()}


def uniform(space: Space, names: list[str]) -> dict[str, Tensor]:
    sizes = {name: int(space.sizes[space.column(name)]) for name in names}
    return {name: torch.full((n,), 1 / n, requires_grad=True) for name, n in sizes.items()}


KEPT = (".weight_bits", ".act_bits", ".density")


@pytest.mark.parametrize(
    ("name", "joint", "n"),
    [("mbconv", (), 3), ("mbconv", ("sparsity", "rank"), 2), ("fbnet", (), 2)],
    ids=lambda v: str(v),
)
@pytest.mark.parametrize("training", [False, True])
def test_one_option_of_each_decision_is_the_network_of_that_row(
    name: str, joint: tuple[str, ...], n: int, training: bool
) -> None:
    space = space_of(name, joint)
    rows = np.random.default_rng(3).integers(0, space.sizes, (n, len(space.decisions)))  # not in canonical form
    shared = shared_network(space)
    names = [d.name for d in space.decisions if not d.name.endswith(KEPT)]
    x = images(space, 8)
    for row in rows:
        shared.calibrate(row, [x])
        shared.train(training)
        other = np.where(np.isin([d.name for d in space.decisions], names), 0, row)  # what is mixed is not read there
        with torch.no_grad():
            mixed = shared(x, other, chosen(space, row, names))
            torch.testing.assert_close(mixed, shared(x, row), rtol=1e-4, atol=1e-5)


def test_every_kind_of_compression_is_mixed() -> None:
    """Precisions, densities, ranks, and the widths that these come with, of a block's layer and of the classifier."""
    space = space_of("mbconv", EVERYTHING)
    rows = space.sample(np.random.default_rng(4), 2)
    shared = shared_network(space)
    kinds = ("s2b1.expand.", "s2b1.keep", "classifier.", "head.width")
    names = [d.name for d in space.decisions if d.name.startswith(kinds)]
    for row in rows:
        shared.calibrate(row, [images(space)])
        torch.testing.assert_close(
            shared(images(space), row, chosen(space, row, names)), shared(images(space), row), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(("decision", "option"), [("s2b1.project.weight_bits", 4), ("s2b1.project.density", 0.5)])
def test_rounded_and_sparse_weights_are_those_of_their_width(decision: str, option: float) -> None:
    """The scale and the mask of the project layer's weights depend on how many hidden channels it reads."""
    space = space_of("mbconv", EVERYTHING)
    row = space.encode({**{d.name: d.options[-1] for d in space.decisions}, decision: option})
    row[space.column("s2b1.keep")] = 0
    shared = shared_network(space, [row])
    torch.testing.assert_close(
        shared(images(space), row, chosen(space, row, ["s2b1.keep"])), shared(images(space), row), rtol=1e-4, atol=1e-5
    )


def test_groups_are_those_of_their_width() -> None:
    """Group convolutions and shuffles of 16 channels pair others than those of 24 do."""
    space = space_of("fbnet", ("sparsity",))
    options = {d.name: "k3_e1_g2" if d.name.endswith(".block") else d.options[-1] for d in space.decisions}
    row = space.encode(options)
    row[space.column("s2.width")] = 0
    shared = shared_network(space, [row])
    torch.testing.assert_close(
        shared(images(space), row, chosen(space, row, ["s2.width"])), shared(images(space), row), rtol=1e-4, atol=1e-5
    )


def test_integers_that_are_only_moved_are_not_rounded_again() -> None:
    space = space_of("fbnet", EVERYTHING)
    options = {d.name: d.options[0] for d in space.decisions} | {"s2b1.block": "k3_e1_g2"}
    row = space.encode(options)
    (form,) = mix(space, row, ["s2b1.block"]).nodes["s2b1.shuffle"].forms.values()
    assert form.operator.out_bits == 4
    assert form.operator.moves_integers
    assert not any("shuffle" in name for name in shared_network(space).quantizers)


@pytest.mark.parametrize("decision", ["head.width", "classifier.weight_bits"])
def test_what_acts_on_logits_linearly_is_mixed_like_logits(decision: str) -> None:
    """Masks of the last convolution's channels, and alternatives of the classifier."""
    space = space_of("mbconv", ("bits",))
    float_row = {d.name: d.options[-1] for d in space.decisions}
    row = space.encode(float_row)
    shared = shared_network(space, [row])
    column = space.column(decision)
    shares = torch.tensor([0.5, 0.2, 0.3])[: int(space.sizes[column])]
    shares = shares / shares.sum()
    rows = [np.where(np.arange(len(row)) == column, option, row) for option in range(len(shares))]
    x = images(space)
    with torch.no_grad():
        expected = sum(s * shared(x, r) for s, r in zip(shares, rows, strict=True))
        mixed = shared(x, row, {decision: shares})
    torch.testing.assert_close(mixed, expected)
    assert not torch.allclose(mixed, shared(x, row), atol=1e-4)


def test_shortcuts_of_zeros_are_those_of_their_width() -> None:
    """ResNet's option A, at the widths of both ends."""
    narrow = {"s1.depth": [1], "s2.depth": [1, 2], "s3.depth": [1]}
    space = load_space("resnet_cifar", input_shape=(1, 8, 8), num_classes=10, joint=(), narrow=narrow)
    names = [d.name for d in space.decisions]
    assert {name.partition(".")[2] for name in names} == {"depth", "width"}
    shared = shared_network(space).train()
    x = images(space, 2)
    for row in space.sample(np.random.default_rng(0), 3):
        with torch.no_grad():
            torch.testing.assert_close(shared(x, row, chosen(space, row, names)), shared(x, row), rtol=1e-4, atol=1e-5)


def test_depth_mixes_the_outputs_of_a_stage() -> None:
    """A reader of the stage reads the sum of what the stage writes at each depth, each undiluted."""
    space = space_of("mbconv")
    mixture = mix(space, np.zeros(len(space.decisions), dtype=np.int16), ["s3.depth"])
    ((third,),) = (form.inputs for form in mixture.nodes["s3b3.depthwise"].forms.values())
    assert set(third) == {"s3b2.add"}  # what is within depth 3 reads what is within depth 2
    ((after,),) = (form.inputs for form in mixture.nodes["s4b1.depthwise"].forms.values())
    assert {source: event.holds.tolist() for source, event in after.items()} == {
        "s3b1.project": [True, False, False], "s3b2.add": [False, True, False], "s3b3.add": [False, False, True],
    }  # fmt: skip


def test_gradients_reach_all_probabilities_and_weights_of_all_options() -> None:
    for name in ("mbconv", "fbnet"):
        space = space_of(name)
        shared = shared_network(space).train()
        row = space.sample(np.random.default_rng(0), 1)[0]
        probabilities = uniform(space, [d.name for d in space.decisions])
        shared(images(space, 8), row, probabilities).square().sum().backward()
        for decision, p in probabilities.items():
            assert p.grad is not None, decision
            assert p.grad.isfinite().all(), decision
            assert p.grad.unique().numel() > 1, f"all options of {decision} are alike"
        assert all(p.grad is not None and p.grad.any() for n, p in shared.named_parameters() if "se_" not in n)


def test_a_mixture_records_no_statistics() -> None:
    space = space_of("mbconv")
    row = space.sample(np.random.default_rng(0), 1)[0]
    shared = shared_network(space, [row]).train()
    before = {name: b.clone() for name, b in shared.named_buffers()}
    shared(images(space), row, uniform(space, ["s1.width", "s2b1.kernel"]))
    changed = [name for name, b in shared.named_buffers() if not torch.equal(b, before[name])]
    assert not changed
    shared(images(space), row)
    assert any(not torch.equal(b, before[name]) for name, b in shared.named_buffers())


def test_what_cannot_be_mixed_is_refused() -> None:
    space = space_of("ofa_mobilenetv3")
    row = np.zeros(len(space.decisions), dtype=np.int16)
    with pytest.raises(InvalidSpaceError, match="resolution cannot be mixed"):
        mix(space, row, ["resolution"])
    with pytest.raises(UnknownNameError, match=r"s2b1\.kernel"):
        mix(space, row, ["s2b1.kernels"])
    space = space_of("mbconv")
    shared = shared_network(space)
    row = np.zeros(len(space.decisions), dtype=np.int16)
    with pytest.raises(InvalidSpaceError, match=r"stem.width has 2 options.*\(3,\)"):
        shared(images(space), row, {"stem.width": torch.ones(3) / 3})


def test_events_are_sets_of_choices() -> None:
    """Against counting over the whole table of three decisions of 2, 3 and 2 options."""
    rng = np.random.default_rng(0)
    whole = ("a", "b", "c")

    def table(event: Event) -> Any:
        sizes = {"a": 2, "b": 3, "c": 2}
        return np.broadcast_to(event.holds.reshape([sizes[n] if n in event.names else 1 for n in whole]), (2, 3, 2))

    for _ in range(30):
        x = Event.of(("c", "a"), rng.random((2, 2)) < 0.5)
        y = Event.of(("b", "c"), rng.random((3, 2)) < 0.5)
        assert np.array_equal(table(x & y), table(x) & table(y))
        assert np.array_equal(table(x | y), table(x) | table(y))
        assert np.array_equal(table(x - y), table(x) & ~table(y))
        assert ((x - x).key, ((x - y) | y | ALWAYS).key) == (NEVER.key, ALWAYS.key)
    assert Event.of(("b", "a"), np.array([[True, False]] * 3)).names == ("a",)
