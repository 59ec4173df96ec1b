"""Each dimension of a trained model's compression alone, all of them together, and what there is without a search."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, pstdev

import numpy as np

from hwnas.predictors.cost import CostModel
from hwnas.scripts.bench_runs import SAME, opened
from hwnas.scripts.compared_files import ORIGINAL, STATIC, Figures, file_figures
from hwnas.scripts.tuned_baselines import BITS, left_out, pruned_file, uniform_files, write_static_int8
from hwnas.search.compression.preparation import EVIDENCE
from hwnas.search.compression.sensitivity import SENSITIVITY
from hwnas.search.config import ControllerConfig, SearchConfig
from hwnas.search.observer import Observer
from hwnas.search.reach import least_cost
from hwnas.search.run import best_trials, continue_run
from hwnas.search.run_folder import Run
from hwnas.search.training import Recipe
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.errors import InfeasibleError, InvalidFileError, UnknownNameError
from hwnas.spaces.files import replacing
from hwnas.spaces.joint import Joint
from hwnas.spaces.traced.space import TracedSpace


@dataclass(frozen=True)
class Method:
    """What is searched of a space, and by whom.

    Attributes:
        kinds: Of decisions; all others are as in the model.
        controller: Where it is the method's own; None for that of the file.
        proposals: Of its controller at most, for each candidate that is fine-tuned; None for as many as of the others.
    """

    kinds: tuple[str, ...]
    controller: ControllerConfig | None = None
    proposals: int | None = None


METHODS: Mapping[str, Method] = {
    "bits": Method(BITS),
    "channels": Method(("keep",)),
    "rank": Method(("rank",)),
    "depth": Method(("present",)),
    "sharing": Method(("shared",)),
    "haq": Method(BITS, ControllerConfig(name="ddpg"), proposals=600),
}
"""Each dimension alone; and HAQ (Wang et al., CVPR 2019), whose agent chooses bits.

It has as many episodes as there. Other than there, its proposals are judged by what single changes do before one is
fine-tuned, as all controllers' are.
"""
JOINT = "joint"
ROOM = 1.02
"""Where a dimension alone cannot reach what is wanted, its target is so many times the least that it can do."""


def alone(config: SearchConfig, name: str, *, branches: bool) -> SearchConfig:
    """The search by one of `METHODS`, in which whatever it does not search is as in the model.

    Args:
        config: Of the joint search, in a space that is not narrowed.
        name: Of the method.
        branches: Whether the model has branches that could be dropped.
    """
    method, joint = METHODS[name], Joint.of(config.space.joint)
    kept = {kind: list(getattr(joint, kind)) for kind in method.kinds if kind != "present"}
    narrow = {"*.present": [True]} if branches and "present" not in method.kinds else {}
    space = config.space.model_copy(update={"joint": kept, "narrow": narrow})
    proposals = min(config.compression.proposals, method.proposals or config.compression.proposals)
    changes = {
        "space": space,
        "controller": method.controller or config.controller,
        "compression": config.compression.model_copy(update={"proposals": proposals}),
    }
    return config.model_copy(update=changes)


def dimension_figures(
    config: SearchConfig, dimensions: Sequence[str], seeds: int, folder: Path, observer: Observer
) -> dict[str, Figures]:
    """Figures of each dimension's searches and of files that no search made, by seed, and their means over the seeds.

    All have the same budget of trainings. Files that are compared are measured together, at the end, where the device
    is this machine. What single changes do is measured once for each seed, by its joint search. Other searches and
    files that fail are left out, with a note.

    Args:
        config: Of the joint search.
        dimensions: Of `METHODS`, and `JOINT`.
        seeds: Searches of each.
        folder: For the runs; those that are there already are continued, or taken as they are.
        observer: Hears how each goes.

    Raises:
        UnknownNameError: A dimension that does not exist.
        InvalidFileError: The search is not that of a trained model in its whole space for one target, or a run in the
            folder is another one's.
        HwnasError: Other bad input, with what to do.
    """
    others = [name for name in dict.fromkeys(dimensions) if name != JOINT]
    _check(config, others)
    runs = searched(config, others, range(config.search.seed, config.search.seed + seeds), folder, observer)
    observer.stage("Comparison")
    files = {name: {seed: run.folder / "model.onnx" for seed, run in own.items()} for name, own in runs.items()}
    for seed, run in runs[JOINT].items():
        for name, path in (uniform_files(run, observer) | pruned_file(run, observer)).items():
            files.setdefault(name, {})[seed] = path
    whole = runs[JOINT][config.search.seed]
    static = folder / "static-int8.onnx"
    if not static.exists():
        write_static_int8(whole, static)
    by_seed = {f"{name} {seed}": path for name, own in files.items() for seed, path in own.items()}
    rows = file_figures(whole, by_seed | {STATIC: static, ORIGINAL: whole.folder / "reference.onnx"}, observer)
    for name, done in runs.items():
        for seed, run in done.items():
            rows[f"{name} {seed}"] |= _search_figures(run)
    means = {
        f"{name}, mean of {len(own)}": _mean([rows[f"{name} {seed}"] for seed in own])
        for name, own in files.items()
        if len(own) > 1
    }
    return rows | means


def _check(config: SearchConfig, others: Sequence[str]) -> None:
    """Raises an error where dimensions cannot be compared."""
    if config.space.model is None:
        raise InvalidFileError("dimensions are compared on a trained model: give space.model")
    for name in others:
        if name not in METHODS:
            raise UnknownNameError("dimension", name, (JOINT, *METHODS))
    if others and config.space.narrow:  # patterns for some decisions fit none where these are not searched
        raise InvalidFileError("dimensions are compared in whole spaces: leave out space.narrow")
    if config.also or config.objective.constraints or config.objective.constraint_ratios:
        raise InvalidFileError(
            "dimensions are compared at one target, which is eased for those that cannot reach it: leave out also, "
            "objective.constraints and objective.constraint_ratios"
        )


def searched(
    config: SearchConfig, others: Sequence[str], seeds: Sequence[int], folder: Path, observer: Observer
) -> dict[str, dict[int, Run]]:
    """The finished runs by method and seed; `JOINT` is one of the methods, and others may lack a seed.

    Args:
        config: Of the joint search.
        others: Of `METHODS`.
        seeds: Of the searches.
        folder: For the runs.
        observer: Hears how each goes, and why one is left out.

    Raises:
        InvalidFileError: A run in the folder is another one's.
        HwnasError: A joint search failed.
    """
    runs: dict[str, dict[int, Run]] = {name: {} for name in (JOINT, *others)}
    for seed in seeds:
        joint = config.model_copy(update={"search": config.search.model_copy(update={"seed": seed})})
        if runs[JOINT]:
            joint = _normalised_as(runs[JOINT][seeds[0]], joint)
        first = runs[JOINT][seed] = finished(_opened(folder / f"{JOINT}-{seed}", joint, observer), observer)
        assert isinstance(first.space, TracedSpace)
        assert first.original is not None
        joint = _normalised_as(runs[JOINT][seeds[0]], joint)
        for name in others:
            wanted = alone(joint, name, branches=bool(first.space.branches))
            if not first.original.space(wanted.space.joint, wanted.space.narrow).decisions:
                observer.note(f"{name} {seed} is left out: there is nothing that it could decide")
                continue
            run = _opened(folder / f"{name}-{seed}", wanted, observer, first)
            with left_out(f"{name} {seed}", observer):
                runs[name][seed] = _finished_alone(run, wanted, observer)
    return runs


def _normalised_as(run: Run, config: SearchConfig) -> SearchConfig:
    """Other seeds leave other images for training, with other statistics."""
    known = {"mean": tuple(run.dataset.mean), "std": tuple(run.dataset.std)}
    return config.model_copy(update={"data": config.data.model_copy(update=known)})


def _opened(folder: Path, wanted: SearchConfig, observer: Observer, first: Run | None = None) -> Run:
    """The run in the folder, or a new one; ``first`` is one of all dimensions, from which it has what is known."""
    observer.note(f"{folder.name}: {folder}")
    same = [section for section in SAME if first is None or section != "objective"]
    run = opened(folder, wanted, (*same, "compression", "controller"))
    if run.config.objective not in (wanted.objective, _eased(wanted, run.config.objective.target).objective):
        raise InvalidFileError(f"{folder} holds a run with another objective; give --out another folder")
    for name in (EVIDENCE, SENSITIVITY):
        if first is not None and not (run.folder / name).exists():
            with replacing(run.folder / name) as temporary:
                shutil.copyfile(first.folder / name, temporary)
    return run


def finished(run: Run, observer: Observer) -> Run:
    """The run, done: with as many trials as there are candidates to try, where these are fewer than it wants.

    Raises:
        InfeasibleError: Its target is out of reach.
        HwnasError: It failed otherwise.
    """
    try:
        continue_run(run, observer)
    except InfeasibleError:
        if not run.has_device or len(run.ledger.finished) == run.config.search.trials:
            raise
        run = _ended(run, observer)
        continue_run(run, observer)
    return run


def _finished_alone(run: Run, wanted: SearchConfig, observer: Observer) -> Run:
    """The run, done; with a target that it can reach, where that which is wanted is out of reach."""
    try:
        return finished(run, observer)
    except InfeasibleError:
        if run.has_device or run.config.objective != wanted.objective:
            raise
        return finished(_reachable(run, wanted, observer), observer)


def _ended(run: Run, observer: Observer) -> Run:
    """The run with no more trials than it has: nothing else was found that meets its target."""
    trials = len(run.ledger.finished)
    observer.note(f"it found nothing more to try after {trials} trials")
    search = run.config.search.model_copy(update={"trials": trials})
    return replace(run, config=run.config.model_copy(update={"search": search}))


def _reachable(run: Run, wanted: SearchConfig, observer: Observer) -> Run:
    """The run anew, with a target that is near the least that it can do."""
    device, metric = run.registered, wanted.objective.metric
    assert device is not None
    least = least_cost(run.space, CostModel(run.space, device), metric, np.random.default_rng(wanted.search.seed))
    observer.note(f"it can do {least:.4g} {metric} at best, so that its target is {ROOM:.0%} of this")
    return Run.create(run.folder, _eased(wanted, ROOM * least))


def _eased(config: SearchConfig, target: float | None) -> SearchConfig:
    """With another target, in the metric's unit."""
    objective = config.objective.model_copy(update={"target": target, "target_ratio": None})
    return config.model_copy(update={"objective": objective})


def _search_figures(run: Run) -> Figures:
    """Target and predicted cost as shares of the original's, seconds of the trials, images of trials and finals."""
    assert run.result is not None
    config, trials, whole = run.config, run.ledger.finished, run.space.reference()
    finals = len(best_trials(run, config.final.candidates, whole))
    images = sum(trial.steps for trial in trials) * _images(run, config.training)
    original, chosen = (run.cost.of(c)[config.objective.metric] for c in (whole, Candidate(run.result.candidates[0])))
    return {
        "target_ratio": round(run.objective.goals[0].target / original, 4),
        "cost_ratio": round(chosen / original, 4),
        "search_s": round(run.result.seconds["search"], 1),
        "trained_images": images + finals * config.final.epochs * _images(run, config.final_recipe),
    }


def _images(run: Run, recipe: Recipe) -> int:
    """Of an epoch."""
    return min(recipe.images or len(run.dataset.train), len(run.dataset.train))


def _mean(rows: Sequence[Figures]) -> Figures:
    """Of each figure, and how far the accuracies are spread."""
    mean = {name: fmean(row[name] for row in rows) for name in rows[0]}
    return mean | {"test_accuracy_std": pstdev(row["test_accuracy"] for row in rows)}
