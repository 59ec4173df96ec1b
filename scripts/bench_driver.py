"""What the driver costs, and whether a search survives: trials of no length, a resume, and kills."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from hwnas.scripts.made_up_search import BEGUN, MadeUpSearch
from hwnas.search.ledger import Trial
from hwnas.spaces.errors import HwnasError, UnavailableError

Heard = Callable[[str, float], None]
WORKER = "ray::_Trial"
"""What Ray's worker processes that evaluate trials are called."""
TIMEOUT_S = 600.0
POLL_S = 0.01


def overhead_figures(controller: str, trials: int, seed: int = 0) -> dict[str, float]:
    """Milliseconds of a search's process per trial of no length on two workers, from the first result to the last.

    ``processor_ms`` are of all its threads; the rest of the time it waits for the workers. The controller's are among
    them.
    """
    from hwnas.search.ray_cluster import cluster

    with tempfile.TemporaryDirectory() as folder:
        search = MadeUpSearch(folder, controller, trials, workers=2, seed=seed, steps=1, step_s=0.0)
        session = search.session()
        marks: list[tuple[float, float]] = []
        with cluster(search.workers):
            search.run(session, lambda trial: marks.append((time.perf_counter(), time.process_time())))
    (first, first_cpu), (last, last_cpu) = marks[0], marks[-1]
    middle, half = marks[len(marks) // 2], len(marks) // 2
    return {
        "trials": trials,
        "ms_per_trial": 1000 * (last - first) / (trials - 1),
        "ms_per_trial_of_second_half": 1000 * (last - middle[0]) / (trials - 1 - half),
        "processor_ms_per_trial": 1000 * (last_cpu - first_cpu) / (trials - 1),
        "controller_ms_per_trial": 1000 * session.controller_s / trials,
    }


def resume_figures(controller: str, trials: int, seed: int = 0) -> dict[str, float]:
    """Milliseconds per trial of the session alone (ledger, state and controller), and seconds to open it again."""
    with tempfile.TemporaryDirectory() as folder:
        search = MadeUpSearch(folder, controller, 2 * trials, seed=seed, steps=1)
        session, rng = search.session(), np.random.default_rng(seed)
        begun, processor = time.perf_counter(), time.process_time()
        for _ in range(trials):
            trial = session.next()
            assert trial is not None
            session.finish(trial.number, "complete", accuracy=rng.uniform(), steps=1)
        seconds, processor = time.perf_counter() - begun, time.process_time() - processor
        controller_s = session.controller_s
        begun, resuming = time.perf_counter(), time.process_time()
        again = search.session()
        figures = {"resume_s": time.perf_counter() - begun, "resume_processor_s": time.process_time() - resuming}
        assert len(again.ledger) == trials
    return {
        "trials": trials,
        "session_ms_per_trial": 1000 * seconds / trials,
        "session_processor_ms_per_trial": 1000 * processor / trials,
        "controller_ms_per_trial": 1000 * controller_s / trials,
        **figures,
    }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a kill did to a search.

    Attributes:
        killed: ``worker`` or ``driver``.
        lost: Trials that are missing at the end, or whose result was there before the kill and is another one after.
        duplicated: Candidates that were evaluated under two numbers, and finished trials that were evaluated again.
        differing: Trials that are not as those of a search that nobody killed.
    """

    killed: str
    lost: int
    duplicated: int
    differing: int


def kill_figures(
    controller: str, runs: int, trials: int, seed: int = 0, heard: Heard = lambda text, share: None
) -> dict[str, int]:
    """Searches with one worker, each killed once at a random moment and resumed, against one that was left alone.

    Moments, and what is killed, are drawn anew for every controller.
    """
    rng = np.random.default_rng([seed, *controller.encode()])
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        plain = MadeUpSearch(str(Path(folder, "plain")), controller, trials, seed=seed)
        heard(f"{controller}: a search that is left alone", 0.0)
        with SearchProcess(plain) as process:
            begun = process.wait_for_first_trial()
            process.wait()
            lasts_s = time.perf_counter() - begun
        whole = plain.ledger().trials()
        outcomes: list[Outcome] = []
        for run in range(runs):
            search = replace(plain, folder=str(Path(folder, f"run{run}")))
            outcomes.append(_killed_once(search, whole, lasts_s, rng))
            heard(f"{controller}: {outcomes[-1]}", (run + 1) / runs)
    figures = {name: sum(getattr(o, name) for o in outcomes) for name in ("lost", "duplicated", "differing")}
    kinds = Counter(outcome.killed for outcome in outcomes)
    return {"trials": trials, "workers_killed": kinds["worker"], "drivers_killed": kinds["driver"], **figures}


def _killed_once(search: MadeUpSearch, whole: Sequence[Trial], lasts_s: float, rng: np.random.Generator) -> Outcome:
    kind = str(rng.choice(["worker", "driver"]))
    before: list[Trial] = []
    started = 0
    with SearchProcess(search) as process:
        moment = process.wait_for_first_trial() + rng.uniform(0, lasts_s)
        while time.perf_counter() < moment and process.running:
            time.sleep(POLL_S)
        if kind == "worker":
            process.kill_a_worker()
            process.wait()
        else:
            process.kill()
            before, started = search.ledger().finished, len(_begun(search))
    if kind == "driver":
        with SearchProcess(search) as process:
            process.wait()
    return judge(kind, before, search.ledger().trials(), whole, _begun(search)[started:])


def judge(
    kind: str, before: Sequence[Trial], after: Sequence[Trial], whole: Sequence[Trial], begun: Sequence[int]
) -> Outcome:
    """What became of a search.

    Args:
        kind: Of process that was killed.
        before: Trials that were finished when the search was killed, where it was its driver.
        after: All trials at the end.
        whole: Those of the search that was left alone.
        begun: Evaluations since the search was resumed, by number of their trial.
    """
    found = {trial.number: trial for trial in after if trial.state != "running"}
    same = [t for t in whole if t.number in found and _story(found[t.number]) == _story(t)]
    kept = [t for t in before if t.number in found and found[t.number].finished_s == t.finished_s]
    numbers = {trial.number for trial in before}
    return Outcome(
        kind,
        lost=len(whole) - len(found) + len(before) - len(kept),
        duplicated=len(after) - len({t.digest for t in after}) + sum(number in numbers for number in begun),
        differing=len(whole) - len(same),
    )


def _story(trial: Trial) -> tuple[Any, ...]:
    return trial.digest, trial.state, trial.accuracy, trial.reward, trial.steps, trial.curve, trial.place


def _begun(search: MadeUpSearch) -> list[int]:
    path = Path(search.folder, BEGUN)
    return [int(line) for line in path.read_text().split()] if path.exists() else []


class SearchProcess:
    """A search as a process of its own; nothing of it, nor of the Ray that it started, is left at the end."""

    def __init__(self, search: MadeUpSearch) -> None:
        self.search = search
        Path(search.folder).mkdir(exist_ok=True)
        self.said = Path(search.folder, "said.txt")
        with self.said.open("ab") as file:
            self.process = psutil.Popen(search.command, stdout=file, stderr=file, start_new_session=True)
        self.family: list[psutil.Process] = []

    def __enter__(self) -> SearchProcess:
        return self

    def __exit__(self, *error: object) -> None:
        if self.running:
            self.kill()
        for member in self.family:
            if member.is_running():  # the same process, not another one of that number
                member.kill()
        psutil.wait_procs(self.family, TIMEOUT_S)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def wait_for_first_trial(self) -> float:
        """When it was seen that an evaluation began."""
        end = time.perf_counter() + TIMEOUT_S
        while not _begun(self.search):
            if not self.running or time.perf_counter() > end:
                raise self._error("did not begin")
            time.sleep(POLL_S)
        return time.perf_counter()

    def wait(self) -> None:
        """Until it has ended well."""
        if self.process.wait(TIMEOUT_S) != 0:
            raise self._error("ended badly")

    def kill(self) -> None:
        """The driver; what it started is noted."""
        with suppress(psutil.NoSuchProcess):  # it may end by itself just then
            self.family = self.process.children(recursive=True)
            self.process.kill()
        self.process.wait()

    def kill_a_worker(self) -> None:
        """The process that evaluates; where it has not begun yet or again, as soon as it has."""
        while self.running:
            with suppress(psutil.NoSuchProcess):  # processes come and go
                for member in self.process.children(recursive=True):
                    if " ".join(member.cmdline()).startswith(WORKER):
                        member.kill()
                        return
            time.sleep(POLL_S)

    def _error(self, what: str) -> HwnasError:
        return UnavailableError(f"a search for the benchmark {what}: {self.said.read_text()[-2000:]}")
