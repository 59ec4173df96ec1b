"""What every space must keep: one suite, run for each space by `test_spaces`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from hwnas.spaces import Candidate, Space, Workload
from hwnas.spaces.errors import HwnasError, InvalidCandidateError, UnknownNameError
from hwnas.spaces.network import Network, module_name
from hwnas.spaces.operator import Operator
from hwnas.spaces.space import Rows
from hwnas.spaces.variation import crossover, mutate, sample_coherent

MAX_BACKWARD_S = 5.0
MAX_CONTEXTS = 400


def identity(workload: Workload) -> Hashable:
    """Everything that makes two workloads one network, names and wiring included."""
    return tuple((o, o.affine, o.name, o.inputs, o.held_bytes) for o in workload.operators)


def raw_rows(space: Space, rng: np.random.Generator, n: int) -> Rows:
    """Rows of any options, mostly not in canonical form."""
    return rng.integers(0, space.sizes, size=(n, len(space.decisions))).astype(np.int16)


def smallest(space: Space) -> Rows:
    """First options: the shallowest, thinnest network. Shape (decisions,)."""
    row: Rows = space.canonical(np.zeros((1, len(space.decisions)), dtype=np.int16))[0]
    return row


def largest(space: Space) -> Rows:
    """Last options: the deepest, widest network. Shape (decisions,)."""
    row: Rows = space.canonical((space.sizes - 1).astype(np.int16)[None])[0]
    return row


@dataclass
class Recorder(TorchFunctionMode):
    """Sees what a network really computes: tensors at its units' doors, arguments of torch's own functions."""

    names: list[str] = field(default_factory=list)
    inputs: list[tuple[Tensor, ...]] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    products: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        y = func(*args, **(kwargs or {}))
        if func is torch.conv2d:
            bound = dict(zip(("x", "weight", "bias", "stride", "padding", "dilation"), args, strict=False))
            self.products.append({"y": y, "groups": 1, **bound, **(kwargs or {})})
        elif func is torch.nn.functional.linear:
            self.products.append({"y": y, **dict(zip(("x", "weight", "bias"), args, strict=False))})
        return y

    def watch(self, network: Network) -> None:
        for name, unit in network.units.items():
            unit.register_forward_hook(lambda _, x, y, name=name: self._see(name, x, y))

    def _see(self, name: str, x: tuple[Tensor, ...], y: Tensor) -> None:
        self.names.append(name)
        self.inputs.append(x)
        self.outputs.append(y)


def settled(space: Space, row: Rows, seed: int = 0) -> Network:
    """A fresh network in evaluation mode whose quantisers have seen one batch."""
    torch.manual_seed(seed)
    network = space.build(space.decode(row))
    with torch.no_grad():
        network.train()(torch.rand(2, *space.input_shape))
    return network.eval()


def levels_of(tensor: Tensor) -> int:
    """How many different values a tensor holds."""
    return len(np.unique(tensor.detach().numpy()))


def map_shape(channels: int, size: tuple[int, int]) -> tuple[int, int, int]:
    return (channels, *size)


def check_product(seen: dict[str, Any], operator: Operator) -> None:
    """Compares one call of a convolution or linear layer with the operator that announced it."""
    x, weight, y = seen["x"], seen["weight"], seen["y"]
    if operator.kind == "linear":
        assert (x.shape[1:].numel(), y.shape[1:].numel()) == (operator.in_channels, operator.out_channels)
        assert tuple(weight.shape) == (operator.out_channels, operator.in_channels)
        assert operator.in_size == operator.out_size == (1, 1)
        return
    assert tuple(x.shape[1:]) == map_shape(operator.in_channels, operator.in_size)
    assert tuple(y.shape[1:]) == map_shape(operator.out_channels, operator.out_size)
    assert tuple(weight.shape[2:]) == (operator.kernel, operator.kernel)
    assert tuple(seen["stride"]) == (operator.stride, operator.stride)
    assert seen["groups"] == x.shape[1] // weight.shape[1] == operator.groups
    assert weight.numel() == operator.weights


class SpaceContract:
    """Subclass it, and set ``make``; the numbers say how much to try."""

    rows: ClassVar[int] = 500
    networks: ClassVar[int] = 3

    @staticmethod
    def make() -> Space:
        """The space under test."""
        raise NotImplementedError

    @pytest.fixture
    def space(self) -> Space:
        return self.make()

    @pytest.fixture
    def rng(self) -> np.random.Generator:
        return np.random.default_rng(20240607)

    # ---- encoding -------------------------------------------------------------------------------------------------

    def test_rows_index_options(self, space: Space, rng: np.random.Generator) -> None:
        rows = space.sample(rng, 200)
        assert rows.shape == (200, len(space.decisions))
        assert (rows >= 0).all()
        assert (rows < space.sizes).all()
        assert 10**space.log10_size == pytest.approx(float(np.prod(space.sizes.astype(float))), rel=1e-6)

    def test_sampling_reaches_every_option_of_decisions_that_always_matter(
        self, space: Space, rng: np.random.Generator
    ) -> None:
        rows = space.sample(rng, 400)
        always: NDArray[np.bool_] = np.all(space.active(rows), axis=0)
        depths = [i for i, d in enumerate(space.decisions) if always[i] and d.name.endswith(("depth", "width"))]
        assert depths
        for column in depths:
            assert set(rows[:, column].tolist()) == set(range(int(space.sizes[column])))

    def test_sampling_is_a_function_of_the_generator(self, space: Space) -> None:
        first, again, other = (space.sample(np.random.default_rng(seed), 20) for seed in (3, 3, 4))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_decode_and_encode_are_inverse(self, space: Space, rng: np.random.Generator) -> None:
        rows = space.sample(rng, 40)
        digests = set()
        for row in rows:
            candidate = space.decode(row)
            space.validate(candidate)
            assert np.array_equal(space.encode(candidate), row)
            assert space.decode(space.encode(candidate)) == candidate
            digests.add(candidate.digest)
        assert len(digests) == len(np.unique(rows, axis=0))

    def test_canonical_form_is_idempotent_and_leaves_its_input_alone(
        self, space: Space, rng: np.random.Generator
    ) -> None:
        raw = raw_rows(space, rng, 3000)
        copy = raw.copy()
        canonical = space.canonical(raw)
        assert np.array_equal(raw, copy)
        assert np.array_equal(space.canonical(canonical), canonical)
        assert (canonical < space.sizes).all()

    def test_canonical_form_is_the_same_network(self, space: Space, rng: np.random.Generator) -> None:
        raw = raw_rows(space, rng, 80)
        canonical = space.canonical(raw)
        assert len(space.decisions) < 8 or (raw != canonical).any(axis=1).mean() > 0.5
        for before, after in zip(raw, canonical, strict=True):
            assert identity(space.workload_of_row(before)) == identity(space.workload_of_row(after))

    def test_equal_networks_have_equal_rows_and_different_ones_differ(
        self, space: Space, rng: np.random.Generator
    ) -> None:
        # A digest stands for a canonical row, see above; rows are compared here because they are a lot faster.
        rows = [space.sample(rng, self.rows // 2), sample_coherent(space, rng, self.rows // 10)]
        near = space.sample(rng, max(4, self.rows // 60))
        rows += [mutate(space, rng, np.repeat(near, 24, axis=0))]
        shuffled = near[rng.permutation(len(near))]
        rows += [crossover(space, rng, near, shuffled), crossover(space, rng, near, near)]
        written: dict[Hashable, set[bytes]] = defaultdict(set)
        networks: dict[bytes, set[Hashable]] = defaultdict(set)
        for row in np.concatenate(rows):
            encoded, network = row.tobytes(), identity(space.workload_of_row(row))
            written[network].add(encoded)
            networks[encoded].add(network)
        assert max(map(len, written.values())) == 1
        assert max(map(len, networks.values())) == 1
        assert len(networks) > self.rows // 2

    def test_a_single_change_changes_the_row_exactly_when_it_changes_the_network(
        self, space: Space, rng: np.random.Generator
    ) -> None:
        for row in np.stack([space.sample(rng, 1)[0], space.encode(space.reference())]):
            network = identity(space.workload_of_row(row))
            changed = np.repeat(row[None], len(row), axis=0)
            changed[np.diag_indices(len(row))] = (row + rng.integers(1, space.sizes)) % space.sizes
            for decision, before, after in zip(space.decisions, changed, space.canonical(changed), strict=True):
                same = identity(space.workload_of_row(before)) == network
                assert same == np.array_equal(after, row), decision.name

    def test_every_option_of_every_decision_matters_somewhere(self, space: Space, rng: np.random.Generator) -> None:
        missing = {(column, option) for column, size in enumerate(space.sizes) for option in range(int(size))}
        for row in space.sample(rng, MAX_CONTEXTS):
            active = space.active(row[None])[0]
            network = identity(space.workload_of_row(row))
            for column, option in sorted(missing):
                if not active[column] or option == row[column]:
                    continue
                changed = row.copy()
                changed[column] = option
                if identity(space.workload_of_row(changed)) != network:
                    missing -= {(column, option), (column, int(row[column]))}
            if not missing:
                break
        named = sorted(f"{space.decisions[c].name}={space.decisions[c].options[o]}" for c, o in missing)
        assert not named, "these never make a difference"

    def test_decisions_that_do_not_matter_hold_their_first_option(self, space: Space, rng: np.random.Generator) -> None:
        rows = space.sample(rng, 500)
        assert not rows[~space.active(rows)].any()

    # ---- candidates -----------------------------------------------------------------------------------------------

    def test_candidates_are_plain_json(self, space: Space, rng: np.random.Generator) -> None:
        for row in space.sample(rng, 20):
            candidate = space.decode(row)
            again = Candidate.from_json(candidate.to_json())
            assert again == candidate
            assert (hash(again), again.digest) == (hash(candidate), candidate.digest)
            assert dict(again) == json.loads(candidate.to_json())
            assert np.array_equal(space.encode(again), row)

    def test_digests_are_the_same_in_another_process(self, space: Space) -> None:
        code = (
            "import json, sys, numpy as np\n"
            "from hwnas.spaces import Candidate\n"
            "from hwnas.spaces.catalog import space_from_spec\n"
            "given = json.load(sys.stdin)\n"
            "space = space_from_spec(given['spec'])\n"
            "drawn = [space.decode(r).digest for r in space.sample(np.random.default_rng(5), 10)]\n"
            "read = [Candidate.from_json(c).digest for c in given['candidates']]\n"
            "print(json.dumps([hash('hwnas'), drawn, read]))"
        )
        candidates = [space.decode(row) for row in space.sample(np.random.default_rng(5), 10)]
        given = json.dumps({"spec": space.spec, "candidates": [c.to_json() for c in candidates]})
        seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
        result = subprocess.run(
            [sys.executable, "-c", code], input=given, capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        string_hash, drawn, read = json.loads(result.stdout)
        assert string_hash != hash("hwnas")
        assert drawn == read == [c.digest for c in candidates]

    def test_bad_candidates_are_refused(self, space: Space) -> None:
        candidate = dict(space.reference())
        name = space.decisions[0].name
        with pytest.raises(InvalidCandidateError, match=name):
            space.validate({**candidate, name: 12345})
        with pytest.raises(UnknownNameError, match=f"did you mean '{name}'"):
            space.validate({**candidate, f"{name}s": 1})
        del candidate[name]
        with pytest.raises(InvalidCandidateError, match=f"does not decide '{name}'"):
            space.validate(candidate)

    # ---- moves ----------------------------------------------------------------------------------------------------

    def test_moves_stay_in_the_space(self, space: Space, rng: np.random.Generator) -> None:
        first, second = space.sample(rng, 60), space.sample(rng, 60)
        moved = {
            "crossover": crossover(space, rng, first, second),
            "coherent": sample_coherent(space, rng, 60),
            "mutants": mutate(space, rng, np.repeat(first, 8, axis=0)),
        }
        for name, rows in moved.items():
            assert (rows >= 0).all(), name
            assert (rows < space.sizes).all(), name
            assert np.array_equal(space.canonical(rows), rows), name
            for row in rows[:8]:
                space.validate(space.decode(row))

    def test_mutants_differ_and_their_parent_stays(self, space: Space, rng: np.random.Generator) -> None:
        for row in space.sample(rng, 10):
            before = row.copy()
            mutants = mutate(space, rng, np.repeat(row[None], 40, axis=0))
            assert mutants.shape == (40, len(row))
            assert np.array_equal(row, before)
            assert (mutants != row).any(axis=1).mean() > 0.6
            assert len(np.unique(mutants, axis=0)) > 15

    def test_a_child_of_equal_parents_is_their_equal(self, space: Space, rng: np.random.Generator) -> None:
        rows = space.sample(rng, 40)
        assert np.array_equal(crossover(space, rng, rows, rows), rows)

    def test_coherent_networks_repeat_their_options(self, space: Space, rng: np.random.Generator) -> None:
        columns = [i for i, d in enumerate(space.decisions) if d.name.endswith(".kernel")]

        def repeated(rows: Rows) -> float:
            """Mean share of the commonest kernel within a network, among blocks that exist."""
            active = space.active(rows)
            shares = [
                np.bincount(row[columns][alive[columns]]).max() / alive[columns].sum()
                for row, alive in zip(rows, active, strict=True)
            ]
            return float(np.mean(shares))

        assert repeated(sample_coherent(space, rng, 300)) > repeated(space.sample(rng, 300)) + 0.05

    # ---- networks -------------------------------------------------------------------------------------------------

    def test_references_belong_to_the_space(self, space: Space) -> None:
        assert space.references
        assert space.reference() == space.reference(next(iter(space.references)))
        for name in space.references:
            candidate = space.reference(name)
            assert space.decode(space.encode(candidate)) == candidate
            assert space.workload(candidate).operators[-1].out_channels == space.num_classes
        with pytest.raises(HwnasError, match="known: "):
            space.reference("no such network")

    def test_workload_of_a_row_is_that_of_its_candidate(self, space: Space, rng: np.random.Generator) -> None:
        for row in space.sample(rng, 10):
            assert identity(space.workload(space.decode(row))) == identity(space.workload_of_row(row))

    def test_peak_memory_agrees_with_what_operators_say_they_hold(self, space: Space, rng: np.random.Generator) -> None:
        for row in [smallest(space), largest(space), *space.sample(rng, 150), *sample_coherent(space, rng, 50)]:
            workload = space.workload_of_row(row)
            assert workload.peak_memory_bytes == max(o.live_bytes for o in workload.operators)

    def test_built_networks_are_their_workloads(self, space: Space, rng: np.random.Generator) -> None:
        rows = [smallest(space), space.encode(space.reference()), *space.sample(rng, self.networks)]
        for row in [*rows, *sample_coherent(space, rng, 1)]:
            workload, network = space.workload_of_row(row), settled(space, row)
            assert sum(p.numel() for p in network.parameters()) == workload.params
            recorder, counter = Recorder(), FlopCounterMode(display=False)
            recorder.watch(network)
            with torch.no_grad(), counter, recorder:
                logits = network(torch.rand(1, *space.input_shape))
            assert logits.shape == (1, space.num_classes)
            assert logits.isfinite().all()
            assert counter.get_total_flops() == 2 * workload.macs
            assert recorder.names == [module_name(o) for o in workload.operators]
            self._check_wiring(recorder, workload)
            products = [o for o in workload.operators if o.kind in ("conv", "linear")]
            assert len(recorder.products) == len(products)
            for seen, operator in zip(recorder.products, products, strict=True):
                check_product(seen, operator)
                self._check_weight_bits(seen["weight"], operator, network.unit(operator))

    def _check_wiring(self, recorder: Recorder, workload: Workload) -> None:
        """Shapes, value ranges and identity of the tensors at every unit's doors."""
        written = dict(zip([o.name for o in workload.operators], recorder.outputs, strict=True))
        for operator, x, y in zip(workload.operators, recorder.inputs, recorder.outputs, strict=True):
            for name, tensor in zip(operator.inputs, x, strict=True):
                assert name == "input" or tensor is written[name], operator.name
            if operator.kind != "linear":
                assert tuple(x[0].shape[1:]) == map_shape(operator.in_channels, operator.in_size), operator.name
                assert tuple(y.shape[1:]) == map_shape(operator.out_channels, operator.out_size), operator.name
            if operator.out_bits <= 8:
                assert levels_of(y) <= 2**operator.out_bits, operator.name
            if operator.in_bits <= 8 and operator.kind != "add":
                assert levels_of(x[0]) <= 2**operator.in_bits, operator.name
            if operator.activation == "relu":
                assert y.min() >= 0
            if operator.kind == "pool":
                difference = x[0].mean((2, 3), keepdim=True) - y
                assert operator.out_bits <= 8 or difference.abs().max() < 1e-5

    def _check_weight_bits(self, weight: Tensor, operator: Operator, unit: nn.Module) -> None:
        if operator.weight_bits >= 32:
            assert any(weight is p for p in unit.parameters()), operator.name
            return
        levels = 2**operator.weight_bits - 1  # symmetric: one level of two's complement is left out
        assert max(map(levels_of, weight.flatten(1))) <= levels, operator.name

    def test_smallest_and_largest_network_train(self, space: Space) -> None:
        for row in (smallest(space), largest(space)):
            reached: dict[str, bool] = {}
            for seed in range(6):
                torch.manual_seed(seed)
                network = space.build(space.decode(row)).train()
                start = time.process_time()
                logits = network(torch.rand(2, *space.input_shape))
                assert logits.shape == (2, space.num_classes)
                if time.process_time() - start > MAX_BACKWARD_S / 3:
                    break  # a backward pass takes twice as long as a forward pass
                loss = nn.functional.cross_entropy(logits, torch.tensor([0, 1]))
                torch.autograd.backward(loss)
                for name, parameter in network.named_parameters():
                    assert parameter.grad is not None, f"no gradient reaches {name}"
                    assert parameter.grad.isfinite().all(), name
                    reached[name] = reached.get(name, False) or bool(parameter.grad.any())
                if all(reached.values()):  # a squeeze of one channel may be dead at one initialisation, not at six
                    break
            assert all(reached.values()), [name for name, alive in reached.items() if not alive]
