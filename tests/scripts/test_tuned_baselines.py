"""Baselines without a search: what is trained of them, and what becomes of those that cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hwnas.scripts import tuned_baselines
from hwnas.scripts.tuned_baselines import PRUNED, pruned_file
from hwnas.search.evaluators.fine_tune import FineTuningEvaluator
from hwnas.search.run_folder import Run
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.errors import UnavailableError
from tests.scripts.test_bench_dimensions import Listening, config


def test_the_pruned_model_is_tuned_as_finals_are_with_all_that_remains_in_8_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch_pruning")
    run, asked = Run.create(tmp_path / "run", config()), []

    def write(own: Run, evaluator: FineTuningEvaluator, candidate: Candidate, path: Path) -> None:
        asked.append((evaluator, candidate))

    monkeypatch.setattr(tuned_baselines, "_write_tuned", write)
    observer = Listening()
    assert pruned_file(run, observer) == {PRUNED: run.folder / "pruned.onnx"}
    ((evaluator, candidate),) = asked
    assert evaluator.recipe == run.config.final_recipe
    assert evaluator.teacher is run.teacher
    assert {option for name, option in candidate.items() if name.endswith("_bits")} == {8}
    whole, pruned = (s.workload(c).macs for s, c in ((run.space, run.space.reference()), (evaluator.space, candidate)))
    assert pruned <= whole / 2
    assert observer.heard == [f"Torch-Pruning leaves {pruned / whole:.0%} of the MACs"]
    network = evaluator.network(candidate)
    with torch.no_grad():
        assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


def test_what_torch_pruning_cannot_do_leaves_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: object) -> None:
        raise UnavailableError("run 'pip install hwnas[bench]'")

    monkeypatch.setattr(tuned_baselines, "half_pruned", missing)
    observer = Listening()
    assert pruned_file(Run.create(tmp_path / "run", config()), observer) == {}
    assert observer.heard == [f"{PRUNED} 0 is left out: run 'pip install hwnas[bench]'"]
