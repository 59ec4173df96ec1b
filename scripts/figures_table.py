"""Figures of several ways to do one thing, as a table for people beside the JSON."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from hwnas.scripts.consoles import table_console


def print_figures(ways: Mapping[str, Mapping[str, float | str]], title: str = "", *, stderr: bool = True) -> None:
    """Prints a row per way and a column per figure; a figure that a way lacks stays empty."""
    table = Table("", title=title or None, title_justify="left")
    names = list(dict.fromkeys(name for figures in ways.values() for name in figures))
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for way, figures in ways.items():
        table.add_row(way, *(_text(figures[name]) if name in figures else "" for name in names))
    table_console(stderr=stderr).print(table)


def _text(figure: float | str) -> str:
    if isinstance(figure, str):
        return figure
    if isinstance(figure, bool):
        return "yes" if figure else "no"
    return f"{figure:,.0f}" if abs(figure) >= 1000 else f"{figure:.4g}"
