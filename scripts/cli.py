"""The `hwnas` command."""

from __future__ import annotations

import sys

import click

from hwnas.scripts.cli_adapt import adapt
from hwnas.scripts.cli_bench import bench
from hwnas.scripts.cli_device import device
from hwnas.scripts.cli_kit import import_command, kit
from hwnas.scripts.cli_measure import register, verify
from hwnas.scripts.cli_search import export, report, search
from hwnas.scripts.cli_space import space
from hwnas.spaces.errors import HwnasError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hwnas")
def cli() -> None:
    """Find networks that are fast, frugal and accurate on the device they run on.

    The main job: `hwnas search FILE.yaml` measures this machine, searches, and exports an ONNX file with a report.
    """


for command in (search, report, export, adapt, device, space, bench):
    cli.add_command(command)
for command in (register, verify, kit, import_command):
    device.add_command(command)


def main() -> None:
    """Runs the command; an expected error is one line on stderr, without a traceback."""
    try:
        cli.main(standalone_mode=False)
    except HwnasError as error:
        click.echo(f"hwnas: {' '.join(str(error).split())}", err=True)
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("\nhwnas: interrupted", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
