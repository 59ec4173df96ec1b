"""The steps of a run: device, search, final trainings, export, report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import torch

from hwnas.latency_tables.device import list_devices
from hwnas.latency_tables.profiler import Plan
from hwnas.predictors.cost import CostModel
from hwnas.predictors.registration import check, covers, register
from hwnas.search.conclusion import conclude
from hwnas.search.config import SearchConfig, load_config
from hwnas.search.controllers.controller import make_controller
from hwnas.search.evaluation import ensure_supernet, evaluator_of
from hwnas.search.evaluators.train import TrainingEvaluator
from hwnas.search.finals import Final, train_final
from hwnas.search.focus import PARENTS, can_focus, focus_after, focus_before
from hwnas.search.ledger import Trial
from hwnas.search.observer import Observer
from hwnas.search.reach import check_reachable
from hwnas.search.run_folder import Run, RunResult
from hwnas.search.run_lock import held
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

    if run.result is None and run.whole != run.folder:
        raise UnavailableError(f"{run.folder} is a part of another run; continue that with '{run.resume_command}'")
    torch.set_num_threads(1)
    try:
        with held(run.folder):
            result = run.result or finish_run(run, observer, address)
            for each in (*run.parts.values(), run):
                if each.result is not None:
                    write_report(each.folder / "report.html", report_data(each, each.result))
    except OSError as error:
        if is_full(error):
            raise no_room(run.folder) from error
        raise
    return result


def finish_run(run: Run, observer: Observer, address: str | None = None) -> RunResult:
    """The device, the search, the final trainings and the export, each from where it was left.

    Whatever further networks are wanted is chosen from the same trials, on devices of their own; the run has its result
    when all of them have theirs.
    """
    from hwnas.search.ray_cluster import cluster

    observer.stage("Device")
    for part in run.parts.values():
        if not (part.folder / "device").exists():
            _ = part.registered  # a device that does not exist is an error before anything is measured
    ensure_device(run, observer)
    for part in run.parts.values():
        part.begin()
        ensure_device(part, observer)
    budget = run.config.search
    with cluster(math.ceil(budget.workers * budget.resources["cpu"]), address):
        ensure_supernet(run, observer)
        observer.stage("Search")
        search(run, observer)
        observer.stage("Final training")
        refine(run, observer)
        for part in run.parts.values():
            part.adopt_trials(run.ledger.finished)
            refine(part, observer)
        runs = [*run.parts.values(), run]
        finals = train_finals(runs, observer)
    observer.stage("Export")
    results = [each.result or conclude(each, own, observer) for each, own in zip(runs, finals, strict=True)]
    return results[-1]


def ensure_device(run: Run, observer: Observer) -> None:
    """Puts the device into the run's folder, measuring this machine first where it was not measured for the space."""
    if (run.folder / "device" / "profile.yaml").exists():
        return
    name = run.config.device.name
    known = run.registered
    if known is not None and name not in list_devices() and not covers(known, run.space):
        raise UnavailableError(
            f"the device in {name} was not measured for this space; give the name of a registered device, or "
            "'this-machine'"
        )
    if known is None or not covers(known, run.space):
        plan = Plan(seconds=run.config.device.register_seconds)
        known = register(
            name,
            run.space,
            plan=plan,
            known=known,
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
    objective = run.objective_with(CostModel(run.space, known))
    check_reachable(objective, run.space, np.random.default_rng(run.config.search.seed))
    if can_focus(run, known):
        known = focus_before(run, known, observer)
    known.save(run.folder / "device")


def search(run: Run, observer: Observer) -> None:
    """Evaluates candidates until the budget is spent."""
    from hwnas.search.ray_driver import run_trials

    budget = run.config.search
    controller = make_controller(
        run.config.controller.name, run.space, run.wanted, budget.seed, **run.controller_options
    )
    evaluator = evaluator_of(run)
    state = run.folder / "controller.json"
    session = SearchSession(
        controller, run.ledger, state, trials=budget.trials, minutes=budget.minutes, steps=evaluator.steps
    )
    observer.note(f"{run.space}; maximising {run.wanted.describe()}")
    if session.exhausted or (run.folder / "finals").exists():
        return

    def on_trial(trial: Trial) -> None:
        observer.trial(trial, trial.number + 1, session.trials)

    try:
        run_trials(
            session,
            evaluator,
            run.folder,
            workers=budget.workers,
            early_stopping=budget.early_stopping,
            seed=budget.seed,
            on_trial=on_trial,
            resources=budget.resources,
        )
    finally:
        run.ledger.settle()


def best_trials(run: Run, n: int) -> list[Trial]:
    """The finished trials of highest reward among those that were trained to the end, or failing that to any point.

    Rewards and constraints are judged by what the run's device predicts now; trials that were within a constraint when
    they were proposed, and are not any more, come last.
    """
    trials = [t for t in run.ledger.trials() if t.reward is not None]
    complete = [t for t in trials if t.state == "complete"] or trials
    if not complete:
        errors = {t.error for t in run.ledger.trials() if t.error}
        raise UnavailableError(
            f"no trial of this run succeeded; their errors: {'; '.join(sorted(errors)[:3]) or 'none'}"
        )
    rows = np.array([t.row for t in complete])
    rewards = run.objective.reward(np.array([t.accuracy for t in complete], dtype=np.float64), run.cost(rows))
    order = np.lexsort((-rewards, ~run.objective.feasible(rows)))
    return [complete[i] for i in order[:n]]


def refine(run: Run, observer: Observer) -> None:
    """Measures neighbours of the best trials, so that the last choice rests on predictions that hold there."""
    if (run.folder / "finals").exists():
        return
    if can_focus(run, run.device):
        parents = np.array([t.row for t in best_trials(run, PARENTS)])
        run.replace_device(focus_after(run, parents, observer))
    (run.folder / "finals").mkdir()


def train_finals(runs: Sequence[Run], observer: Observer) -> list[list[Final]]:
    """Trains the best candidates of each run and the reference, side by side, on the final budget of the first.

    A network that several runs want is trained once. The reference comes last in each run's list.
    """
    first = runs[0]
    reference, final = first.space.reference(), first.config.final
    chosen = [[first.space.decode(t.row) for t in best_trials(run, final.candidates)] for run in runs]
    wanted = [[*(c for c in own if c != reference), reference] for own in chosen]
    # The reference is the slowest to train, so it goes first.
    candidates = list(dict.fromkeys([reference, *(c for own in wanted for c in own)]))
    accuracies = dict(zip(candidates, _train(runs, wanted, candidates, observer), strict=True))
    for c, accuracy in accuracies.items():
        words = f"validation accuracy {accuracy:.2%}"
        observer.note(f"{c.digest}: {words if np.isfinite(accuracy) else 'its final training diverged; left out'}")
    trained = [[c for c in own if np.isfinite(accuracies[c])] for own in wanted]
    if any(len(own) < 2 or own[-1] != reference for own in trained):
        raise DivergedError(
            "the final training of the reference or of every candidate diverged; lower training.learning_rate"
        )
    return [[Final(c, accuracies[c], run.weights_path(c)) for c in own] for run, own in zip(runs, trained, strict=True)]


def _train(
    runs: Sequence[Run], wanted: Sequence[Sequence[Candidate]], candidates: Sequence[Candidate], observer: Observer
) -> list[float]:
    """Validation accuracy of each candidate; its weights are written into the folder of every run that wants it."""
    from hwnas.search.ray_driver import map_parallel

    first = runs[0]
    final, search_budget = first.config.final, first.config.search
    recipe = first.config.training.model_copy(update={"epochs": final.epochs, "images": final.images})
    evaluator = TrainingEvaluator(first.space.spec, first.dataset, recipe)
    observer.progress(f"training {len(candidates)} networks for {recipe.epochs} epochs", 0.0)
    paths = {c: [r.weights_path(c) for r, own in zip(runs, wanted, strict=True) if c in own] for c in candidates}
    known = [next((p.read_bytes() for p in paths[c] if p.exists()), None) for c in candidates]

    def keep(i: int, result: tuple[float, bytes]) -> None:
        if weights := result[1]:
            for path in paths[candidates[i]]:
                if not path.exists():
                    write_bytes(path, weights)

    arguments = [(c.to_json(), search_budget.seed, weights) for c, weights in zip(candidates, known, strict=True)]
    results = map_parallel(train_final, evaluator, arguments, search_budget.resources, keep)
    return [accuracy for accuracy, _ in results]
