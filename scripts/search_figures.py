"""How controllers compare, for people: a table, and a page with regrets over evaluations."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots
from rich.table import Table

from hwnas.scripts.bench_search import PERCENTILES, WITHIN, Trace, Traces, standard_error
from hwnas.scripts.consoles import table_console
from hwnas.search.goal import Floats
from hwnas.search.report.charts import BLUE, FONT, GREEN, GREY, ORANGE, PURPLE, RED, styled
from hwnas.spaces.files import write_text

AFTER = (50, 100, 200)
"""Of the regrets those that the table shows, beside the last one."""
COLOURS = (GREY, BLUE, RED, GREEN, ORANGE, PURPLE, "#56b4e9", "#b8a800", "#7a5cc7")
"""Okabe and Ito's, and two more; dashed when they come again."""
FLOOR = 1e-4
"""Regrets below are drawn here: their logarithm has no end."""
TICKS = [n * 10.0**power for power in range(-4, 1) for n in (1, 2, 5)]
PANELS = 3
"""Side by side."""

Figures = Mapping[str, float | None]


def print_table(column: str, rows: Mapping[str, Figures], seeds: int) -> None:
    """Prints a row per controller on stderr, of at most 120 columns where options are not named at length."""
    after = [int(name.removeprefix("regret_")) for name in next(iter(rows.values())) if name.startswith("regret_")]
    shown = [n for n in after if n in AFTER or n == after[-1]][-3:]
    table = Table(
        "",
        title=f"{column}, mean of {seeds} seeds ± standard error; p25 and p50 are bounds of cost",
        title_justify="left",
    )
    for n in shown:
        table.add_column(f"regret\nafter {n}", justify="right")
    for percentile in PERCENTILES:
        table.add_column(f"to {100 * WITHIN:g} points\n≤ p{percentile} (found)", justify="right")
    table.add_column("ms per\ncandidate", justify="right")
    for name, row in rows.items():
        regrets = [_with_error(row[f"regret_{n}"], row[f"error_{n}"], 4) for n in shown]
        needed = [
            f"{_with_error(row[f'evaluations_{p}'], row[f'evaluations_error_{p}'], 0)} ({row[f'found_{p}']}/{seeds})"
            for p in PERCENTILES
        ]
        table.add_row(name, *regrets, *needed, f"{row['ms_per_candidate']:.3g}")
    table_console(stderr=True).print(table)


def write_plot(path: Path, traces: Traces) -> None:
    """Writes the page, or nothing; plotly.js is inside."""
    chart = regret_chart(traces).to_html(
        full_html=False, include_plotlyjs=False, include_mathjax=False, div_id="chart-regret",
        config={"displaylogo": False, "responsive": True},
    )  # fmt: skip
    seeds = len(next(iter(next(iter(traces.values())).values()))[None])
    heading = f"Hypervolume regret, mean of {seeds} searches and its standard error"
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Controllers compared</title>\n'
        f"<style>body {{ font-family: {FONT}; margin: 24px; color: #23272d; background: #fff }}</style>\n"
        f"<script>{get_plotlyjs()}</script></head>\n<body><h1>Controllers compared</h1>\n<p>{heading}.</p>\n"
        f"{chart}\n</body></html>\n"
    )
    write_text(path, page)


def regret_chart(traces: Traces) -> go.Figure:
    """One panel per column, one colour per controller: the mean regret, and a band of one standard error around it."""
    across = min(PANELS, len(traces))
    down = -(-len(traces) // across)
    titles = [html.escape(column) for column in traces]
    figure = make_subplots(down, across, subplot_titles=titles, vertical_spacing=0.3 / down, horizontal_spacing=0.05)
    for i, rows in enumerate(traces.values()):
        place = {"row": i // across + 1, "col": i % across + 1}
        for j, (name, searches) in enumerate(rows.items()):
            colour = COLOURS[j % len(COLOURS)]
            dash = "solid" if j < len(COLOURS) else "dash"
            group = {"legendgroup": name, "name": html.escape(name)}
            mean, error = _mean(searches[None])
            x = np.arange(1, len(mean) + 1)
            if np.isfinite(error).all():
                edge = np.concatenate([mean + error, (mean - error)[::-1]]).clip(FLOOR)
                figure.add_scatter(
                    x=[*x.tolist(), *x[::-1].tolist()], y=edge.tolist(), fill="toself", fillcolor=colour, opacity=0.18,
                    mode="lines", line={"width": 0}, hoverinfo="skip", showlegend=False, **group, **place,
                )  # fmt: skip
            figure.add_scatter(
                x=x.tolist(), y=mean.clip(FLOOR).tolist(), mode="lines",
                line={"color": colour, "width": 2, "dash": dash}, showlegend=i == 0,
                hovertemplate="%{y:.4f} after %{x}", **group, **place,
            )  # fmt: skip
    styled(figure, 110 + 400 * down)
    figure.update_layout(margin_t=110)
    figure.update_xaxes(title_text="evaluations")
    figure.update_yaxes(type="log", tickvals=TICKS, ticktext=[f"{tick:g}" for tick in TICKS])
    figure.update_yaxes(title_text="hypervolume regret", col=1)
    return figure


def _mean(searches: Sequence[Trace]) -> tuple[Floats, Floats]:
    """Over seeds, and its standard error, shape (evaluations,) each."""
    regret = np.array([trace.regret for trace in searches])
    return regret.mean(axis=0), standard_error(regret)


def _with_error(value: float | None, error: float | None, digits: int) -> str:
    if value is None:
        return "–"
    return f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")
