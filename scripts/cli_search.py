"""`hwnas search`, `hwnas report` and `hwnas export`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

if TYPE_CHECKING:
    from hwnas.search.run_result import RunResult


@click.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option(
    "--resume", "resume", type=click.Path(path_type=Path), metavar="RUN", help="Continue the run in this folder."
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the run (default: runs/<date-time>).")
@click.option("--data", help="Instead of the file's data.name.")
@click.option("--test-data", help="Instead of the file's data.test_path.")
@click.option("--seed", type=int, help="Instead of the file's search.seed.")
@click.option("--trials", type=int, help="Instead of the file's search.trials.")
@click.option("--minutes", type=float, help="Instead of the file's search.minutes.")
@click.option("--address", help="Join the Ray cluster at this address ('auto' for the one on this machine).")
def search(
    file: Path | None,
    resume: Path | None,
    out: Path | None,
    data: str | None,
    test_data: str | None,
    seed: int | None,
    trials: int | None,
    minutes: float | None,
    address: str | None,
) -> None:
    """Search as FILE (YAML) says, or continue a run with --resume.

    Measures the device if it is new, searches, trains the best candidates in full, exports the winner as ONNX, and
    writes a report. Ctrl-C keeps everything that was finished.
    """
    from hwnas.scripts.progress import TerminalObserver
    from hwnas.search.config import load_changed
    from hwnas.search.run import continue_run
    from hwnas.search.run_folder import Run
    from hwnas.spaces.errors import DiskFullError, NoisyMeasurementError

    if (file is None) == (resume is None):
        raise click.UsageError("give either a search FILE or --resume RUN")
    if resume is not None:
        run = Run.open(resume)
    else:
        assert file is not None
        changes: dict[str, dict[str, Any]] = {
            "search": {"seed": seed, "trials": trials, "minutes": minutes},
            "data": {"name": data, "test_path": test_data},
        }
        folder = out or Path("runs") / datetime.now().strftime("%Y-%m-%d-%H%M%S")
        run = Run.create(folder, load_changed(file, changes))
    console = Console()
    try:
        with TerminalObserver(console) as observer:
            result = continue_run(run, observer, address)
    except KeyboardInterrupt:
        click.echo(f"\nInterrupted; everything finished is kept. Continue with:\n  {run.resume_command}", err=True)
        raise SystemExit(130) from None
    except NoisyMeasurementError as error:
        raise NoisyMeasurementError(
            f"{error}; everything finished is kept, continue with: {run.resume_command}"
        ) from error
    except DiskFullError as error:
        raise DiskFullError(f"{error}. Continue with: {run.resume_command}") from error
    _show(console, result)
    for name, part in run.parts.items():
        if (own := part.result) is not None:
            _show(console, own, f"{name}: {part.objective.describe()} on {part.device.name}")
    for each in run.all:
        console.print(f"model:  {each.folder / 'model.onnx'}\nreport: {each.folder / 'report.html'}", highlight=False)


def _show(console: Console, result: RunResult, *title: str) -> None:
    from hwnas.scripts.progress import networks_table

    console.print(networks_table(result.networks, *title))
    for warning in result.warnings:
        console.print(f"[bold]The chosen network {warning}[/bold]", highlight=False)


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
def report(run_folder: Path) -> None:
    """Write RUN/report.html again, and print the table."""
    from hwnas.search.report.page import write_report
    from hwnas.search.report.summary import report_data
    from hwnas.search.run_folder import Run

    run = Run.open(run_folder)
    result = run.result
    if result is None:
        raise click.ClickException(f"the run has not finished; continue it with '{run.resume_command}'")
    write_report(run.folder / "report.html", report_data(run, result))
    console = Console()
    _show(console, result)
    console.print(f"report: {run.folder / 'report.html'}", highlight=False)


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The ONNX file to write.")
@click.option(
    "--network",
    type=click.Choice(["chosen", "reference"]),
    default="chosen",
    show_default=True,
    help="Which of the two.",
)
def export(run_folder: Path, out: Path, network: str) -> None:
    """Write a network of RUN as an ONNX file, checked against its torch module."""
    from hwnas.search.export import export_network, export_runtime
    from hwnas.search.finals import load_network
    from hwnas.search.run_folder import Run
    from hwnas.spaces.candidate import Candidate

    run = Run.open(run_folder)
    result = run.result
    if result is None:
        raise click.ClickException(f"the run has not finished; continue it with '{run.resume_command}'")
    candidate = run.space.decode(run.space.encode(Candidate(result.candidates[network == "reference"])))
    module = load_network(run.space, candidate, run.folder / "finals" / f"{candidate.digest}.safetensors")
    agreement = export_network(module, candidate, run.space, run.dataset, export_runtime(run.device), out)
    click.echo(
        f"{out}: {agreement.file_bytes:,} bytes; same class as the torch module on {agreement.same_top1} of "
        f"{agreement.images} images ({agreement.ties} ties), largest logit difference "
        f"{agreement.largest_difference:.3g}; "
        f"{agreement.integer_kernels} of {agreement.integer_layers} integer layers run in integer kernels"
    )
