"""The chart of what each single change does to a trained model."""

from __future__ import annotations

import html
from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from hwnas.search.report.charts import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, styled
from hwnas.search.report.data import SensitivityPoint, percent

KINDS = {
    "present": "branch dropped",
    "keep": "channels kept",
    "rank": "rank kept",
    "weight_bits": "bits of weights",
    "act_bits": "bits of values",
    "shared": "bits of shared weights",
}
"""Kinds of decisions, in the order of the page."""
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, GREY)
LEAST = 1e-5
"""In nats: less is drawn there, as a logarithm has no zero."""


def sensitivity(points: Sequence[SensitivityPoint]) -> go.Figure | None:
    """A row per kind of decision: layers from left to right, one line per option, what was chosen in rings."""
    there = dict.fromkeys(p.kind for p in points)
    kinds = [*(kind for kind in KINDS if kind in there), *(kind for kind in there if kind not in KINDS)]
    if not kinds:
        return None
    titles = [f"<b>{html.escape(KINDS.get(kind, kind))}</b>" for kind in kinds]
    figure = make_subplots(rows=len(kinds), vertical_spacing=0.15 / len(kinds) + 0.05, subplot_titles=titles)
    styled(figure, 130 + 300 * len(kinds), margin_t=110)
    for row, kind in enumerate(kinds, 1):
        own = [p for p in points if p.kind == kind]
        for colour, option in zip(COLOURS * len(own), dict.fromkeys(p.option for p in own), strict=False):
            _add(figure, row, [p for p in own if p.option == option], f"{KINDS.get(kind, kind)}: {option}", colour)
        chosen = [p for p in own if p.chosen]
        figure.add_scatter(
            x=[html.escape(p.name) for p in chosen], y=[max(LEAST, p.divergence) for p in chosen], mode="markers",
            marker={"symbol": "circle-open", "size": 15, "color": RED, "line": {"width": 2}}, name="chosen",
            legendgroup="chosen", showlegend=row == 1, hoverinfo="skip", row=row, col=1,
        )  # fmt: skip
        figure.update_xaxes(tickangle=-60, tickfont={"size": 10}, showgrid=False, row=row, col=1)
        figure.update_yaxes(type="log", title="KL, nats", dtick=1, row=row, col=1)
    return figure


def _add(figure: go.Figure, row: int, points: Sequence[SensitivityPoint], name: str, colour: str) -> None:
    texts = [
        f"{html.escape(p.name)}<br>{html.escape(name)}<br>KL {p.divergence:.3g} nats<br>accuracy {percent(p.accuracy)}"
        for p in points
    ]
    figure.add_scatter(
        x=[html.escape(p.name) for p in points], y=[max(LEAST, p.divergence) for p in points], text=texts,
        mode="lines+markers", line={"color": colour, "width": 1, "dash": "dot"}, marker={"color": colour, "size": 7},
        name=html.escape(name), hoverinfo="text", row=row, col=1,
    )  # fmt: skip
