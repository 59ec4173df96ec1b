"""What every space must keep: one suite, run for each space by `test_spaces`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from hwnas.spaces import Candidate, Space, load_space
from hwnas.spaces.errors import InvalidCandidateError, UnknownNameError
from hwnas.spaces.space import Rows
from hwnas.spaces.variation import crossover, decision_kinds, mutate, sample_coherent

from .conftest import OtherProcess
from .cost_contract import CostContract
from .network_contract import NetworkContract, identity

MAX_CONTEXTS = 400


def raw_rows(space: Space, rng: np.random.Generator, n: int) -> Rows:
    """Rows of any options, mostly not in canonical form."""
    return rng.integers(0, space.sizes, size=(n, len(space.decisions))).astype(np.int16)


@cache
def loaded(contract: type[SpaceContract]) -> Space:
    """The space of a contract, once for all of its tests."""
    return load_space(**contract.arguments)


class SpaceContract(NetworkContract, CostContract):
    """Subclass it, and set ``arguments``; the numbers say how much to try.

    Attributes:
        arguments: Of `load_space`.
        rows: How many to try.
        always: How the names of decisions end that keep all their options in canonical form, where they always matter.
        repeating: The last part of decisions' names, of which a network has many that offer the same.
        redundant: Share of the rows of any options above which such are not in canonical form.
        mutants: How many of 40 mutants of a network differ from each other at least.
    """

    arguments: ClassVar[Mapping[str, Any]]
    rows: ClassVar[int] = 500
    always: ClassVar[tuple[str, ...]] = ("depth", "width")
    repeating: ClassVar[str] = "kernel"
    redundant: ClassVar[float] = 0.5
    mutants: ClassVar[int] = 16

    @pytest.fixture
    def space(self) -> Space:
        """The space under test."""
        return loaded(type(self))

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
        kept = [i for i, d in enumerate(space.decisions) if always[i] and d.name.endswith(self.always)]
        assert kept
        for column in kept:
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
        assert len(space.decisions) < 8 or (raw != canonical).any(axis=1).mean() > self.redundant
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

    def test_digests_are_the_same_in_another_process(self, space: Space, other_process: OtherProcess) -> None:
        candidates = [space.decode(row) for row in space.sample(np.random.default_rng(5), 10)]
        string_hash, drawn, read = other_process(space.spec, [c.to_json() for c in candidates])
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
            assert len(np.unique(mutants, axis=0)) >= self.mutants

    def test_a_child_of_equal_parents_is_their_equal(self, space: Space, rng: np.random.Generator) -> None:
        rows = space.sample(rng, 40)
        assert np.array_equal(crossover(space, rng, rows, rows), rows)

    def test_coherent_networks_repeat_their_options(self, space: Space, rng: np.random.Generator) -> None:
        kinds = decision_kinds(space)
        columns = kinds.get(self.repeating) or max(kinds.values(), key=len)

        def repeated(rows: Rows) -> float:
            """Mean share of the commonest option within a network, among blocks that exist."""
            active = space.active(rows)
            shares = [
                np.bincount(row[columns][alive[columns]]).max() / alive[columns].sum()
                for row, alive in zip(rows, active, strict=True)
                if alive[columns].any()
            ]
            return float(np.mean(shares))

        assert repeated(sample_coherent(space, rng, 300)) > repeated(space.sample(rng, 300)) + 0.05
