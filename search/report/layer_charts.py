"""The charts of a report about the layers of its networks."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from hwnas.search.report.charts import BLUE, CLEAR, GREEN, GREY, ORANGE, PURPLE, RED, styled
from hwnas.search.report.data import LATENCY, LayerRow, Quantity, percent, with_unit
from hwnas.search.report.hover_texts import layer_text

EXECUTIONS = {"native": (GREEN, "#7fcdb8"), "emulated": (ORANGE, "#f2cf80"), "stored only": (PURPLE, "#e5bcd3")}
MEASURED, ESTIMATED, PREDICTED = "measured in the table", "estimated", "predicted"
SOURCES = {"latency": {MEASURED: "", ESTIMATED: "/"}, "energy": {PREDICTED: ""}}
"""How bars are filled. A power meter sees whole networks alone, so energy of a layer is predicted everywhere."""


def layer_costs(
    layers: Sequence[LayerRow], reference: Sequence[LayerRow], cost: Quantity = LATENCY
) -> go.Figure | None:
    """Bars of the cost of each layer, chosen on the left and reference on the right, on one scale."""
    if not layers and not reference:
        return None
    rows = max(len(layers), len(reference))
    titles = [
        f"<b>{name}</b>: {with_unit(sum(map(cost.of, side)), cost.unit)} in {len(side)} layers"
        for name, side in (("chosen", layers), ("reference", reference))
    ]
    figure = make_subplots(cols=2, shared_xaxes="all", horizontal_spacing=0.17, subplot_titles=titles)
    styled(figure, 150 + 17 * rows, bargap=0.25, margin_t=98)
    for column, side in enumerate((layers, reference), start=1):
        for source, pattern in SOURCES[cost.name].items():
            places = [place for place, row in enumerate(side) if _source(row, cost) == source]
            figure.add_bar(
                x=[cost.of(side[place]) for place in places],
                y=places,
                error_x={"array": [cost.std_of(side[place]) for place in places], "color": GREY, "width": 2},
                text=[layer_text(side[place]) for place in places],
                name=source,
                legendgroup=source,
                showlegend=bool(places) and (column == 1 or not layers),
                marker={"color": BLUE, "pattern": {"shape": pattern, "fgcolor": BLUE, "bgcolor": CLEAR, "size": 5}},
                orientation="h",
                hoverinfo="text",
                textposition="none",
                row=1,
                col=column,
            )
        names = {"tickvals": [*range(len(side))], "ticktext": [html.escape(row.name) for row in side]}
        figure.update_yaxes(range=[rows - 0.4, -0.6], **names, tickfont={"size": 11}, showgrid=False, col=column)
    figure.update_xaxes(title=f"{cost.name}, {cost.unit}", rangemode="tozero")
    return figure


def strategy(layers: Sequence[LayerRow]) -> go.Figure | None:
    """Bits per layer (weights up, activations down), and under them the shares of width and rank that are kept."""
    if not layers:
        return None
    figure = make_subplots(rows=2, shared_xaxes=True, row_heights=[0.66, 0.34], vertical_spacing=0.07)
    styled(figure, 600, barmode="relative", bargap=0.2)
    for execution in dict.fromkeys([*EXECUTIONS, *(row.execution for row in layers)]):
        places = [place for place, row in enumerate(layers) if row.execution == execution]
        for direction in (1, -1) if places else ():
            bits = [layers[p].weight_bits if direction > 0 else layers[p].act_bits for p in places]
            figure.add_bar(
                x=places,
                y=[direction * _steps(value) for value in bits],
                text=["" if value is None else str(value) for value in bits],
                hovertext=[layer_text(layers[place]) for place in places],
                name=html.escape(execution),
                legendgroup=execution,
                showlegend=direction > 0,
                marker={"color": EXECUTIONS.get(execution, (GREY, "#c2c5c9"))[direction < 0]},
                textfont={"size": 10, "color": "#101214"},
                insidetextanchor="end",
                textangle=0,
                constraintext="none",
                hoverinfo="text",
                row=1,
                col=1,
            )
    _add_shares(figure, layers)
    widest = max(max(row.weight_bits or 1, row.act_bits) for row in layers)
    marks = [bits for bits in (2, 4, 8, 16, 32, 64) if bits <= max(8, widest)]
    places_of_marks = [*(-_steps(bits) for bits in reversed(marks)), 0, *(_steps(bits) for bits in marks)]
    figure.update_yaxes(
        title="← activations · bits · weights →",
        tickvals=places_of_marks,
        ticktext=[*map(str, reversed(marks)), "0", *map(str, marks)],
        zeroline=True,
        zerolinecolor=GREY,
        row=1,
    )
    figure.update_yaxes(title="share kept", tickformat=".0%", range=[0, 1.08], tickvals=[0, 0.5, 1], row=2)
    names = [html.escape(row.name) for row in layers]
    figure.update_xaxes(tickvals=[*range(len(layers))], showgrid=False, range=[-0.7, len(layers) - 0.3])
    figure.update_xaxes(ticktext=names, tickangle=-90 if len(layers) > 20 else -45, tickfont={"size": 11}, row=2)
    return figure


def _source(row: LayerRow, cost: Quantity) -> str:
    """Where the figure of a layer comes from, see `SOURCES`."""
    if cost.name == "energy":
        return PREDICTED
    return MEASURED if row.measured else ESTIMATED


def _add_shares(figure: go.Figure, layers: Sequence[LayerRow]) -> None:
    shares = (
        ("width kept", [row.width_share for row in layers], BLUE, "circle", "solid"),
        ("rank kept", [row.rank_share for row in layers], RED, "diamond-open", "dot"),
    )
    for name, values, colour, symbol, dash in shares:
        figure.add_scatter(
            x=[*range(len(layers))],
            y=values,
            text=[f"{html.escape(row.name)}<br>{name}: {percent(v)}" for row, v in zip(layers, values, strict=True)],
            mode="lines+markers",
            line={"color": colour, "dash": dash, "width": 1.5, "shape": "hvh"},
            marker={"symbol": symbol, "size": 7},
            name=name,
            hoverinfo="text",
            cliponaxis=False,
            row=2,
            col=1,
        )


def _steps(bits: int | None) -> float:
    """Height of a bar: one more for each doubling, so that 4 and 8 bits can be told apart beside 32."""
    return math.log2(bits) + 1 if bits else 0.0
