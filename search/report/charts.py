"""The charts of the report. Colours: Okabe and Ito's, told apart without colour vision and on white and on black."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence

import plotly.graph_objects as go

from hwnas.search.report.data import (
    LATENCY,
    STATES,
    CheckPoint,
    NetworkRow,
    Quantity,
    TrialPoint,
    duration,
    milliseconds,
    pareto_front,
)
from hwnas.search.report.hover_texts import network_text, trial_text

BLUE, GREEN, ORANGE, RED, PURPLE, GREY = "#3b8fd0", "#009e73", "#e69f00", "#d55e00", "#cc79a7", "#858b94"
CLEAR, GRID = "rgba(0,0,0,0)", "rgba(128,128,128,0.22)"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif"
AXIS = {
    "gridcolor": GRID,
    "linecolor": GREY,
    "zeroline": False,
    "tickcolor": GREY,
    "automargin": True,
    "title": {"standoff": 10},
}

MARKERS = {"complete": ("circle", BLUE), "pruned": ("triangle-down", ORANGE), "failed": ("x", GREY)}
MARKS = {"chosen": ("star", RED, 17), "reference": ("diamond", PURPLE, 13)}
FINALIST = ("hexagon2-open", GREY, 10)


def pareto(trials: Sequence[TrialPoint], networks: Sequence[NetworkRow], cost: Quantity = LATENCY) -> go.Figure | None:
    """Cost against accuracy of every trial, the front of those trained in full, chosen and reference marked."""
    if not trials:
        return None
    bottom, top = _limits([*(t.accuracy for t in trials), *(n.validation_accuracy for n in networks)])
    measured = cost == LATENCY and any(trial.measured for trial in trials)
    kind = "" if measured else "predicted "
    figure = styled(go.Figure(), 520, xaxis_title=f"{kind}{cost.name}, {cost.unit}", yaxis_title="validation accuracy")
    front = pareto_front(trials, cost)
    if front:
        right = max(cost.of(trial) for trial in trials)
        figure.add_scatter(
            x=[*(cost.of(trial) for trial in front), right],
            y=[*(trial.accuracy for trial in front), front[-1].accuracy],
            mode="lines",
            line={"shape": "hv", "color": GREEN, "width": 2},
            name="Pareto front",
            hoverinfo="skip",
        )
    _add_trials(figure, trials, lambda trial: (cost.of(trial), _or(trial.accuracy, bottom)))
    known = (lambda row: _or(row.latency_measured_ms, row.latency_predicted_ms)) if measured else cost.predicted
    _add_networks(figure, networks, lambda row: (known(row), row.validation_accuracy))
    figure.update_yaxes(tickformat=".2~%", range=[bottom, top])
    figure.update_xaxes(rangemode="tozero")
    return figure


def progress(trials: Sequence[TrialPoint]) -> go.Figure | None:
    """The reward of every trial, and the best of those trained in full up to then."""
    if not trials:
        return None
    bottom, top = _limits([trial.reward for trial in trials])
    figure = styled(go.Figure(), 400, xaxis_title="trial", yaxis_title="reward")
    ordered = sorted(trials, key=lambda trial: trial.number)
    best: list[tuple[int, float, str]] = []
    for trial in ordered:
        reward = _or(trial.reward, -math.inf) if trial.state == "complete" else -math.inf
        if reward > (best[-1][1] if best else -math.inf):
            best.append((trial.number, reward, duration(trial.finished_s)))
    if best:
        best.append((ordered[-1].number, best[-1][1], duration(max(trial.finished_s for trial in trials))))
        figure.add_scatter(
            x=[row[0] for row in best],
            y=[row[1] for row in best],
            text=[f"best reward {row[1]:.4g}<br>up to trial {row[0]}, after {row[2]}" for row in best],
            mode="lines",
            line={"shape": "hv", "color": GREEN, "width": 2},
            name="best so far",
            hoverinfo="text",
        )
    _add_trials(figure, trials, lambda trial: (trial.number, _or(trial.reward, bottom)))
    figure.update_yaxes(range=[bottom, top])
    return figure


def checks(points: Sequence[CheckPoint], networks: Sequence[NetworkRow]) -> go.Figure | None:
    """Predicted against measured latency of held-out networks, with the diagonal and a band of ±10 %."""
    if not points:
        return None
    pairs = [(p.measured_ms, p.predicted_ms) for p in points]
    pairs += [(row.latency_measured_ms, row.latency_predicted_ms) for row in networks]
    ends = [value for pair in pairs for value in pair if math.isfinite(value)] or [0.0, 1.0]
    low, high = 0.9 * min(ends), 1.08 * max(ends)
    figure = styled(go.Figure(), 520, xaxis_title="measured latency, ms", yaxis_title="predicted latency, ms")
    figure.add_scatter(
        x=[low, high, high, low],
        y=[1.1 * low, 1.1 * high, 0.9 * high, 0.9 * low],
        fill="toself",
        fillcolor="rgba(0,158,115,0.16)",
        line={"width": 0},
        mode="lines",
        name="within 10 %",
        hoverinfo="skip",
    )
    diagonal = {"color": GREEN, "width": 1.5, "dash": "dash"}
    figure.add_scatter(x=[low, high], y=[low, high], mode="lines", line=diagonal, name="exact", hoverinfo="skip")
    figure.add_scatter(
        x=[point.measured_ms for point in points],
        y=[point.predicted_ms for point in points],
        text=[f"predicted {milliseconds(p.predicted_ms)}<br>measured {milliseconds(p.measured_ms)}" for p in points],
        mode="markers",
        marker={"color": BLUE, "size": 8, "opacity": 0.8},
        name="held-out network",
        hoverinfo="text",
    )
    _add_networks(figure, networks, lambda row: (row.latency_measured_ms, row.latency_predicted_ms))
    figure.update_xaxes(range=[low, high])
    figure.update_yaxes(range=[low, high])
    return figure


def styled(figure: go.Figure, height: int, **layout: object) -> go.Figure:
    """The look that all charts share: transparent, mid-tone axes, the legend on top."""
    legend = {"orientation": "h", "x": 0, "y": 1 - 34 / height, "yanchor": "top", "yref": "container"}
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 70, "r": 24, "t": 70, "b": 52},
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font={"family": FONT, "size": 13, "color": GREY},
        hoverlabel={"bgcolor": "#23272d", "bordercolor": "#59616b", "font": {"color": "#f2f4f6"}, "align": "left"},
        legend=legend,
        modebar={"bgcolor": CLEAR, "color": GREY, "activecolor": BLUE},
        **layout,
    )
    figure.update_xaxes(**AXIS)
    figure.update_yaxes(**AXIS)
    return figure


def _add_trials(
    figure: go.Figure, trials: Sequence[TrialPoint], place: Callable[[TrialPoint], tuple[float, float]]
) -> None:
    for state in dict.fromkeys([*STATES, *(trial.state for trial in trials)]):
        members = [trial for trial in trials if trial.state == state]
        symbol, colour = MARKERS.get(state, ("cross", GREY))
        if members:
            figure.add_scatter(
                x=[place(trial)[0] for trial in members],
                y=[place(trial)[1] for trial in members],
                text=[trial_text(trial) for trial in members],
                mode="markers",
                marker={"symbol": symbol, "color": colour, "size": 9, "opacity": 0.75},
                name=f"{html.escape(STATES.get(state, state))} ({len(members)})",
                hoverinfo="text",
                cliponaxis=False,
            )


def _add_networks(
    figure: go.Figure, networks: Sequence[NetworkRow], place: Callable[[NetworkRow], tuple[float, float]]
) -> None:
    for row in networks:
        symbol, colour, size = MARKS.get(row.name, FINALIST)
        figure.add_scatter(
            x=[place(row)[0]],
            y=[place(row)[1]],
            text=[network_text(row)],
            mode="markers",
            marker={"symbol": symbol, "color": colour, "size": size, "line": {"color": "#ffffff", "width": 1}},
            name=html.escape(row.name),
            hoverinfo="text",
            cliponaxis=False,
        )


def _or(value: float | None, other: float) -> float:
    return value if value is not None and math.isfinite(value) else other


def _limits(values: Sequence[float | None]) -> tuple[float, float]:
    """Ends of an axis around the values, the lower end below them all: the place of those that are missing."""
    known = [value for value in values if value is not None and math.isfinite(value)] or [0.0, 1.0]
    span = (max(known) - min(known)) or 0.1
    return min(known) - 0.08 * span, max(known) + 0.06 * span
