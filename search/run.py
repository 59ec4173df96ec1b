"""The steps of a run: device, search, final trainings, export, report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import torch

from hwnas.latency_tables.device import Device, list_devices
from hwnas.latency_tables.machine import same_machine
from hwnas.latency_tables.profiler import Plan
from hwnas.predictors.cost import CostModel
from hwnas.predictors.registration import check, covers, register
from hwnas.search.compression.preparation import ensure_knowledge
from hwnas.search.conclusion import conclude
from hwnas.search.config import SearchConfig, load_config
from hwnas.search.device_node import check_address
from hwnas.search.evaluation import controller_of, ensure_supernet, evaluator_of
from hwnas.search.finals import Final, train_final, weights_file
from hwnas.search.focus import PARENTS, can_focus, focus_after, focus_before
from hwnas.search.ledger import Trial
from hwnas.search.objective import Objective
from hwnas.search.observer import Observer
from hwnas.search.reach import check_reachable
from hwnas.search.run_folder import Run
from hwnas.search.run_lock import held
from hwnas.search.run_result import RunResult
from hwnas.search.session import SearchSession
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.errors import DivergedError, UnavailableError
from hwnas.spaces.files import is_full, no_room, write_bytes


def run_search(
    config: SearchConfig | Path,
    folder: Path | None = None,
    observer: Observer | None = None,
    address: str | None = None,
) -> RunResult:
    """A whole search, the same as ``hwnas search``.

    Args:
        config: The search, or the path of its YAML file.
        folder: For the run; ``runs/<date-time>`` by default.
        observer: Hears how it goes.
        address: Of a running Ray cluster; one is started on this machine otherwise.

    Raises:
        HwnasError: Bad input, with what to do.
    """
    config = load_config(config) if isinstance(config, Path) else config
    folder = folder or Path("runs") / datetime.now().strftime("%Y-%m-%d-%H%M%S")
    return continue_run(Run.create(folder, config), observer or Observer(), address)


def continue_run(run: Run, observer: Observer, address: str | None = None) -> RunResult:
    """Does what a run still lacks. Nothing that was finished is done again.

    Raises:
        UnavailableError: Another search is running in the folder, or something that the run needs is not there.
        DiskFullError: There is no room for what must be written.
        HwnasError: Other bad input, with what to do.
    """
    from hwnas.search.report.page import write_report
    from hwnas.search.report.summary import report_data

    if run.outer is not None and run.result is None:
        raise UnavailableError(f"{run.folder} is a part of another run; continue that with '{run.resume_command}'")
    torch.set_num_threads(1)
    try:
        with held((run.outer or run).folder):
            result = run.result or finish_run(run, observer, address)
            for each in reversed(run.all):
                if each.result is not None:
                    write_report(each.folder / "report.html", report_data(each, each.result))
    except OSError as error:
        if is_full(error):
            raise no_room(run.folder) from error
        raise
    return result


def finish_run(run: Run, observer: Observer, address: str | None = None) -> RunResult:
    """The devices, the search, the final trainings and the exports, each from where it was left.

    Whatever further networks are wanted are chosen from the same trials; the run has its result when all of them have
    theirs.
    """
    from hwnas.search.ray_cluster import cluster
    from hwnas.search.ray_measuring import check_nodes

    observer.stage("Device")
    ensure_devices(run, observer, address)
    budget = run.config.search
    workers = max(budget.workers, run.config.supernet.workers if run.config.supernet is not None else 1)
    with cluster(math.ceil(workers * budget.resources["cpu"]), address):
        check_nodes(run.measured_on)
        ensure_knowledge(run, observer)
        ensure_supernet(run, observer)
        observer.stage("Search")
        search(run, observer)
        observer.stage("Final training")
        for part in run.parts.values():
            part.adopt_trials(run.ledger.finished)
        for group in run.by_device:
            refine(group, observer)
        runs = run.all[::-1]
        finals = train_finals(runs, observer)
    observer.stage("Export")
    for each, own in zip(runs, finals, strict=True):
        if each.result is None and own:
            conclude(each, own, observer, address)
    missing = [each for each in runs if each.result is None]
    if missing:
        folders = ", ".join(str(each.folder) for each in missing)
        raise DivergedError(
            "the final training of the reference or of every candidate diverged; lower training.learning_rate "
            f"(config.yaml in {folders})"
        )
    assert run.result is not None
    return run.result


def ensure_devices(run: Run, observer: Observer, address: str | None = None) -> None:
    """Puts the devices into the folders, measuring this machine first where it was not measured for the space.

    What is known without measuring is checked before anything is measured. The run's own device is put there last:
    until then, the run may be replaced by a corrected one.
    """
    for first, *_ in run.by_device:
        known = first.device if first.has_device else _known_device(first)
        if first.measures_trials and known is not None and not same_machine(known.profile.facts):
            check_address(known, address)
    groups = [group for group in run.by_device if not group[0].has_device]
    for group in groups:
        known = _known_device(group[0])
        if known is not None:
            _check_goals(group, known)
    for group in reversed(groups):
        ensure_device(group, observer)


def ensure_device(runs: Sequence[Run], observer: Observer) -> None:
    """The device of some runs that share it; see `ensure_devices`."""
    run = runs[0]
    if run.has_device:
        return
    known = _known_device(run)
    if known is None:
        known = register(
            run.config.device.name,
            run.space,
            plan=Plan(seconds=run.config.device.register_seconds),
            known=run.registered,
            steadiness=run.steadiness,
            progress=observer.progress,
            note=observer.note,
        )
        if known.profile.off_speed:
            observer.note(known.profile.off_speed_in_words)
    observer.note(f"{known.name}: {known.profile.facts.get('processor', '')}, {known.profile.facts.get('runtime', '')}")
    held_out = check(known, run.space)
    observer.note(
        f"latency of whole networks held out: {held_out.error}" if held_out else "simulated: costs are computed"
    )
    _check_goals(runs, known)
    if can_focus(run, known):
        known = focus_before(runs, known, observer)
    run.keep_device(known)


def _known_device(run: Run) -> Device | None:
    """As it was measured for the space, or None where it is still to be."""
    name = run.config.device.name
    known = run.registered
    if known is None or covers(known, run.space):
        return known
    if name not in list_devices():
        raise UnavailableError(
            f"the device in {name} was not measured for this space; give the name of a registered device, or "
            "'this-machine'"
        )
    return None


def _check_goals(runs: Sequence[Run], device: Device) -> None:
    """Raises an error where a run's goal is out of reach on the device."""
    cost = CostModel(runs[0].space, device)
    objective = Objective(cost, tuple(run.goal_with(cost) for run in runs))
    check_reachable(objective, runs[0].space, np.random.default_rng(runs[0].config.search.seed))


def search(run: Run, observer: Observer) -> None:
    """Evaluates candidates until the budget is spent."""
    from hwnas.search.ray_driver import run_trials
    from hwnas.search.ray_measuring import measuring

    budget = run.config.search
    controller = controller_of(run)
    evaluator = evaluator_of(run)
    state = run.folder / "controller.json"
    session = SearchSession(
        controller, run.ledger, state, trials=budget.trials, minutes=budget.minutes, steps=evaluator.steps
    )
    observer.note(f"{run.space}; maximising {run.wanted.describe()}")
    if session.exhausted or (run.folder / "finals").exists():
        return

    def on_trial(trial: Trial) -> None:
        full = [t for t in run.ledger.finished if t.state == "complete"]
        observer.trial(trial, max(full, key=lambda t: t.reward or 0.0, default=None), session.trials)

    try:
        with measuring(run.space, run.measured_on, observer) as nodes:
            run_trials(
                session,
                evaluator,
                run.folder,
                workers=budget.workers,
                early_stopping=budget.early_stopping,
                seed=budget.seed,
                on_trial=on_trial,
                resources=budget.resources,
                measuring=nodes,
                note=observer.note,
            )
    finally:
        run.ledger.settle()


def best_trials(run: Run, n: int, others_than: Candidate | None = None) -> list[Trial]:
    """The finished trials of highest reward among those that were trained to the end, or failing that to any point.

    Rewards and constraints are judged by what was measured, else by what the run's device predicts now. Those that meet
    what the run asks for, if there are any, are all that counts: with several networks wanted, not every trial is for
    this one.
    """
    trials = [t for t in run.ledger.finished if t.accuracy is not None]
    if not trials:
        errors = {t.error for t in run.ledger.trials() if t.error}
        raise UnavailableError(
            f"no trial of this run succeeded; their errors: {'; '.join(sorted(errors)[:3]) or 'none'}"
        )
    costs = run.costs_of(trials)
    rewards = run.objective.reward(np.array([t.accuracy for t in trials], dtype=np.float64), costs)
    meets = run.objective.factor(costs) > 0
    kept = [i for i in range(len(trials)) if meets[i] or not meets.any()]
    kept = [i for i in kept if trials[i].state == "complete"] or kept
    kept.sort(key=lambda i: -rewards[i])
    own = [trials[i] for i in kept]
    if others_than is not None:
        excluded = run.space.encode(others_than)
        own = [t for t in own if (t.row != excluded).any()]
    return own[:n]


def refine(runs: Sequence[Run], observer: Observer) -> None:
    """Measures neighbours of the best trials, so that the last choice rests on predictions that hold there.

    The runs share a device.
    """
    first = runs[0]
    if (first.folder / "finals").exists():
        return
    if can_focus(first, first.device):
        best = [t.row for run in runs for t in best_trials(run, max(1, PARENTS // len(runs)))]
        first.keep_device(focus_after(first, np.unique(best, axis=0), observer))
    for run in reversed(runs):
        (run.folder / "finals").mkdir(exist_ok=True)


def train_finals(runs: Sequence[Run], observer: Observer) -> list[list[Final]]:
    """Trains the best candidates of each run and the reference, side by side, on the final budget of the first.

    A network that several runs want is trained once. The reference comes last in each run's list, and alone counts as a
    choice, too, where no other candidate was tried. Lists are empty where the reference or all others diverged.
    """
    first = runs[0]
    reference, n = first.space.reference(), first.config.final.candidates
    wanted = [
        [*([run.space.decode(t.row) for t in best_trials(run, n, reference)] or [reference]), reference] for run in runs
    ]
    # The reference is the slowest to train, so it goes first.
    candidates = list(dict.fromkeys([reference, *(c for own in wanted for c in own)]))
    accuracies = dict(zip(candidates, _train(runs, wanted, candidates, observer), strict=True))
    for c, accuracy in accuracies.items():
        words = f"validation accuracy {accuracy:.2%}"
        observer.note(f"{c.digest}: {words if np.isfinite(accuracy) else 'its final training diverged; left out'}")
    trained = [[c for c in own if np.isfinite(accuracies[c])] for own in wanted]
    return [
        [Final(c, accuracies[c], run.weights_path(c)) for c in own] if len(own) > 1 and own[-1] == reference else []
        for run, own in zip(runs, trained, strict=True)
    ]


def _train(
    runs: Sequence[Run], wanted: Sequence[Sequence[Candidate]], candidates: Sequence[Candidate], observer: Observer
) -> list[float]:
    """Validation accuracy of each candidate; its weights are written into the folder of every run that wants it."""
    from hwnas.search.ray_map import map_parallel
    from hwnas.search.ray_nodes import shared_out

    first = runs[0]
    recipe, search_budget = first.config.final_recipe, first.config.search
    evaluator = evaluator_of(first, recipe)
    observer.progress(f"training {len(candidates)} networks for {recipe.epochs} epochs", 0.0)
    paths = {c: [r.weights_path(c) for r, own in zip(runs, wanted, strict=True) if c in own] for c in candidates}

    def keep(i: int, result: tuple[float, bytes]) -> None:
        if weights := result[1]:
            for path in paths[candidates[i]]:
                if not path.exists():
                    write_bytes(path, weights)

    if first.original is not None:
        whole = first.space.reference()
        keep(candidates.index(whole), (0.0, weights_file(first.original.network, whole)))
    known = [next((p.read_bytes() for p in paths[c] if p.exists()), None) for c in candidates]
    resources = shared_out(search_budget.resources, known.count(None))
    arguments = [(c.to_json(), search_budget.seed, weights) for c, weights in zip(candidates, known, strict=True)]
    results = map_parallel(train_final, evaluator, arguments, resources, keep)
    return [accuracy for accuracy, _ in results]
