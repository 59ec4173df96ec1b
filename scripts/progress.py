"""The live display of a run in a terminal, and plain lines where there is none."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from hwnas.search.ledger import Trial
from hwnas.search.observer import Observer
from hwnas.search.report.data import NetworkRow, data_size, milliseconds, percent
from hwnas.search.report.headline import compare

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

    def trial(self, trial: Trial, best: Trial | None, planned: int) -> None:
        """Shows the best so far."""
        done = trial.number + 1
        if trial.state == "failed":
            self.note(f"trial {done} failed: {trial.error}")
        text = f"trial {done} of {planned}"
        if best is not None and best.accuracy is not None:
            text += (
                f", best: {percent(best.accuracy)} at {milliseconds(best.known_costs['latency_ms'])}, "
                f"{data_size(int(best.known_costs['weight_bytes']))}"
            )
        self.progress(text, done / planned)

    def note(self, text: str) -> None:
        """A line that stays."""
        self.live.console.print(text, highlight=False)


def networks_table(networks: tuple[NetworkRow, ...], title: str = "The chosen network beside the reference") -> Table:
    """The chosen network beside the reference, in the most important lines of the report's table."""
    table = Table(title=title)
    for heading in ("", "chosen", "reference", ""):
        table.add_column(heading, justify="left" if not heading else "right")
    lines = {line.name: line for line in compare(*networks[:2])}
    for name, label in _LABELS.items():
        if line := lines.get(name):
            table.add_row(label, line.chosen, line.reference, line.verdict)
    return table


_LABELS = {
    "test_accuracy": "test accuracy",
    "latency_measured_ms": "latency, measured",
    "latency_predicted_ms": "latency, predicted",
    "energy_predicted_mj": "energy, predicted",
    "weight_bytes": "weights",
    "macs": "MACs",
    "params": "parameters",
}
