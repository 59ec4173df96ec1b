"""The live display of a run in a terminal, and plain lines where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from hwnas.search.ledger import Trial
from hwnas.search.observer import Observer
from hwnas.search.report import points, ratio
from hwnas.search.report_data import NetworkRow, count, data_size, milliseconds, percent

PLAIN_EVERY_S = 10.0


class TerminalObserver(Observer):
    """One bar per step with what is going on; notes scroll above it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.fields[title]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.live.add_task("", title="", total=1.0)
        self.best: Trial | None = None
        self._printed = 0.0

    def __enter__(self) -> TerminalObserver:
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def stage(self, title: str) -> None:
        """Begins a bar of its own."""
        self.live.remove_task(self.task)
        self.task = self.live.add_task("", title=title, total=1.0)
        self.note(f"[bold]{title}[/bold]")

    def progress(self, text: str, share: float) -> None:
        """Moves the bar; without a terminal, a line now and then."""
        self.live.update(self.task, completed=share, description=text)
        if not self.console.is_terminal and time.monotonic() - self._printed > PLAIN_EVERY_S:
            self._printed = time.monotonic()
            self.note(text)

    def trial(self, trial: Trial, done: int, planned: int) -> None:
        """Shows the best so far."""
        if trial.state == "failed":
            self.note(f"trial {trial.number} failed: {trial.error}")
        if trial.state == "complete" and trial.reward is not None:
            best = self.best.reward if self.best and self.best.reward is not None else float("-inf")
            self.best = trial if trial.reward > best else self.best
        text = f"trial {done} of {planned}"
        if self.best and self.best.accuracy is not None:
            text += (
                f", best: {percent(self.best.accuracy)} at {milliseconds(self.best.costs['latency_ms'])}, "
                f"{data_size(int(self.best.costs['weight_bytes']))}"
            )
        self.progress(text, done / planned)

    def note(self, text: str) -> None:
        """A line that stays."""
        self.live.console.print(text, highlight=False)


def networks_table(networks: tuple[NetworkRow, ...]) -> Table:
    """The chosen network beside the reference."""
    table = Table(title="The chosen network beside the reference")
    chosen, reference = networks[0], networks[1]
    for heading in ("", "chosen", "reference", ""):
        table.add_column(heading, justify="left" if not heading else "right")
    for label, name, form, words in _ROWS:
        a, b = getattr(chosen, name), getattr(reference, name)
        table.add_row(label, form(a), form(b), ratio(a, b, *words) if words else points(a, b))
    return table


_ROWS: tuple[tuple[str, str, Callable[[float], str], tuple[str, str] | None], ...] = (
    ("test accuracy", "test_accuracy", percent, None),
    ("latency, measured", "latency_measured_ms", milliseconds, ("faster", "slower")),
    ("latency, predicted", "latency_predicted_ms", milliseconds, ("faster", "slower")),
    ("weights", "weight_bytes", data_size, ("smaller", "larger")),
    ("MACs", "macs", count, ("fewer", "more")),
    ("parameters", "params", count, ("fewer", "more")),
)
