"""The benchmark of the driver: what it counts as lost, duplicated and differing, and a run of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from hwnas.scripts.bench_driver import Outcome, judge, kill_figures, resume_figures
from hwnas.scripts.made_up_search import MadeUpSearch
from hwnas.search.ledger import Trial


@pytest.fixture
def whole(tmp_path: Path) -> Sequence[Trial]:
    """Four finished trials."""
    session = MadeUpSearch(str(tmp_path), "random", trials=4).session()
    while trial := session.next():
        session.finish(trial.number, "complete", accuracy=0.5 + 0.1 * trial.number, steps=4)
    return session.ledger.trials()


def counted(
    whole: Sequence[Trial], after: Sequence[Trial], before: Sequence[Trial] = (), begun: Sequence[int] = ()
) -> tuple[int, int, int]:
    outcome = judge("driver", before, after, whole, begun)
    assert outcome.killed == "driver"
    return outcome.lost, outcome.duplicated, outcome.differing


def test_a_search_that_went_on_as_if_nothing_had_happened_counts_nothing(whole: Sequence[Trial]) -> None:
    later = [replace(trial, finished_s=trial.finished_s + 60) for trial in whole[2:]]
    assert counted(whole, [*whole[:2], *later], whole[:2], [2, 3]) == (0, 0, 0)


def test_a_trial_that_is_missing_is_lost_and_differs(whole: Sequence[Trial]) -> None:
    assert counted(whole, whole[:3]) == (1, 0, 1)
    assert counted(whole, [*whole[:3], replace(whole[3], state="running")]) == (1, 0, 1)


def test_a_result_that_is_replaced_is_lost_and_evaluated_twice(whole: Sequence[Trial]) -> None:
    again = replace(whole[1], finished_s=whole[1].finished_s + 60)
    assert counted(whole, [whole[0], again, *whole[2:]], whole[:2], [1, 2, 3]) == (1, 1, 0)


def test_a_candidate_under_two_numbers_is_duplicated(whole: Sequence[Trial]) -> None:
    assert counted(whole, [*whole[:3], replace(whole[2], number=3)]) == (0, 1, 1)


@pytest.mark.parametrize("change", [{"accuracy": 0.51}, {"steps": 3}, {"state": "pruned"}, {"place": 2}])
def test_any_other_outcome_differs(change: dict[str, object], whole: Sequence[Trial]) -> None:
    assert counted(whole, [replace(whole[0], **change), *whole[1:]]) == (0, 0, 1)  # type: ignore[arg-type]


def test_a_resume_is_much_shorter_than_the_search() -> None:
    figures = resume_figures("random", 100)
    assert figures["trials"] == 100
    assert figures["resume_s"] > 0
    assert 0 < figures["controller_ms_per_trial"] <= figures["session_ms_per_trial"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_searches_that_are_killed_lose_nothing() -> None:
    said: list[str] = []
    figures = kill_figures("evolution", 3, 6, 2, lambda text, share: said.append(text))
    assert figures.pop("workers_killed") + figures.pop("drivers_killed") == 3
    assert figures == {"trials": 6, "lost": 0, "duplicated": 0, "differing": 0}
    assert str(Outcome("driver", 0, 0, 0)) in said[-1] or str(Outcome("worker", 0, 0, 0)) in said[-1]
