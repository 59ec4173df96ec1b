"""`hwnas space`: what a space offers, and whether it holds a published network."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from hwnas.scripts.network_files import FoundNetwork, MissingNetwork


@click.group()
def space() -> None:
    """See what a space offers, and find published networks in spaces."""


@space.command()
@click.argument("name")
@click.option("--joint", help="Dimensions of the space.  [default: the file's, or bits,sparsity,rank]")
@click.option("--input-shape", help="Channels, height, width.  [default: those it was published for]")
@click.option("--classes", type=int, help="Classes.  [default: as many as it was published for]")
def show(name: str, joint: str | None, input_shape: str | None, classes: int | None) -> None:
    """Say what the space NAME offers: a name, a YAML file, or package.module:function."""
    from hwnas.scripts.consoles import table_console
    from hwnas.scripts.space_options import chosen_space
    from hwnas.scripts.space_tables import architecture_table, joint_table, references_table, whole_layers

    found = chosen_space(name, input_shape, classes, joint)
    plain = chosen_space(name, input_shape, classes, "")
    console = table_console()
    console.print(
        f"{plain.name}, for images of {'×'.join(map(str, plain.input_shape))} and {plain.num_classes} classes\n"
        f"10^{plain.log10_size:.1f} rows of {len(plain.decisions)} decisions in {len(plain.slots)} slots",
        highlight=False,
    )
    joined = len(found.decisions) > len(plain.decisions)
    if joined:
        console.print(
            f"10^{found.log10_size:.1f} rows of {len(found.decisions)} decisions with {', '.join(found.spec['joint'])}",
            highlight=False,
        )
    console.print(architecture_table(plain))
    if joined:
        console.print(joint_table(found, plain))
        for line in whole_layers(found):
            console.print(line, highlight=False)
    console.print(references_table(plain))


@space.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--space", "space_name", help="The only space to look in.  [default: all that come with hwnas]")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="JSON file to write the candidates to.")
def check(file: Path, space_name: str | None, out: Path | None) -> None:
    """Find the networks of FILE in the spaces, and count their parameters and MACs.

    FILE holds one network as a stage table, or many by name. Where it says what others counted (`computed`), the
    figures must be equal. The exit status is 1 where a network is not found, or counts otherwise.
    """
    from hwnas.scripts.network_files import Finder, FoundNetwork, read_networks
    from hwnas.spaces.files import write_text

    finder = Finder([space_name]) if space_name else Finder()
    results = [finder.find(network) for network in read_networks(file)]
    found = [r for r in results if isinstance(r, FoundNetwork)]
    _print(results)
    if out is not None:
        candidates = {
            r.network.name: {"space": r.space.spec, "digest": r.candidate.digest, "candidate": dict(r.candidate)}
            for r in found
        }
        write_text(out, json.dumps(candidates, indent=1) + "\n")
    if len(found) < len(results) or any(r.differs for r in found):
        sys.exit(1)


def _print(results: Sequence[FoundNetwork | MissingNetwork]) -> None:
    from rich.table import Column, Table

    from hwnas.scripts.consoles import table_console
    from hwnas.scripts.network_files import FoundNetwork

    console = table_console()
    table = Table(
        Column("network", no_wrap=True),
        "space",
        Column("parameters", justify="right", no_wrap=True),
        Column("MACs", justify="right", no_wrap=True),
        "equal",
        "published",
        Column("digest", no_wrap=True),
    )
    for r in results:
        if isinstance(r, FoundNetwork):
            same = "" if not r.network.computed else "no" if r.differs else "yes"
            table.add_row(
                r.network.name, ", ".join(r.spaces), f"{r.counts['params']:,}", f"{r.counts['macs']:,}", same,
                _published(r), r.candidate.digest,
            )  # fmt: skip
    if table.rows:
        console.print(table)
    for r in results:
        if not isinstance(r, FoundNetwork):
            for start, reason in zip((f"{r.network.name} is in no space:", " ", " "), r.reasons, strict=False):
                console.print(f"{start} {reason}", highlight=False, soft_wrap=True)
            continue
        for name, more in r.differs.items():
            console.print(
                f"{r.network.name} differs: {r.network.computed[name]:,} {name} were computed, and {r.counts[name]:,} "
                f"are counted here ({more:+,})", highlight=False, soft_wrap=True,
            )  # fmt: skip


def _published(found: FoundNetwork) -> str:
    kinds = ("params_m", "madds_m", "flops_m")
    return ", ".join(f"{found.network.published[k]} M" for k in kinds if k in found.network.published)
