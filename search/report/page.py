"""The report of one search: a single HTML page that needs no network and can be mailed, archived and printed."""

from __future__ import annotations

import re
from pathlib import Path

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from hwnas.search.report import charts, layer_charts
from hwnas.search.report import data as written
from hwnas.search.report.data import ENERGY, ReportData
from hwnas.search.report.headline import compare, outcome, tiles
from hwnas.search.report.sensitivity_chart import sensitivity
from hwnas.spaces.files import write_text

CHARTS = ("chart-pareto", "chart-progress", "chart-latency", "chart-strategy", "chart-checks")
"""The ids of the charts, in the order of the page."""
ENERGY_CHART = "chart-energy"
"""Where the device knows energy, there is one more."""
SENSITIVITY_CHART = "chart-sensitivity"
"""And where a trained model was compressed."""


def write_report(path: Path, data: ReportData) -> None:
    """Writes the page, or nothing."""
    write_text(path, render(data))


def render(data: ReportData) -> str:
    """The page as HTML. Text from outside is escaped; plotly.js is inside, once."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        ms=written.milliseconds,
        mj=written.millijoules,
        number=written.number,
        size=written.data_size,
        count=written.count,
        percent=written.percent,
        duration=written.duration,
        unbroken=_unbroken,
    )
    page = environment.get_template("report.html.j2").render(
        data=data,
        outcome=outcome(data.networks, data.traded),
        tiles=tiles(data.networks, data.traded),
        comparisons=compare(*data.networks[:2]) if len(data.networks) > 1 else [],
        precision_columns=list(dict.fromkeys(column for row in data.precisions for column in row)),
        charts=_charts(data),
        states=written.STATES,
        plotly=Markup(get_plotlyjs()),
    )
    return page + "\n"


def _unbroken(text: str) -> str:
    """The text with every unit kept on the line of its number."""
    return re.sub(r"(?<=\d) (?=%|ms|mJ|[kMG]?B\b|points)", "\N{NO-BREAK SPACE}", text)


def _charts(data: ReportData) -> dict[str, Markup | None]:
    layers = (data.layers, data.reference_layers)
    figures = (
        charts.pareto(data.trials, data.networks, data.traded),
        charts.progress(data.trials),
        layer_charts.layer_costs(*layers),
        layer_charts.strategy(data.layers),
        charts.checks(data.checks, data.networks),
    )
    named = dict(zip(CHARTS, figures, strict=True))
    if data.knows_energy:
        named[ENERGY_CHART] = layer_charts.layer_costs(*layers, ENERGY)
    if data.sensitivity:
        named[SENSITIVITY_CHART] = sensitivity(data.sensitivity)
    return {name: None if figure is None else Markup(_html_of(figure, name)) for name, figure in named.items()}


def _html_of(figure: go.Figure, name: str) -> str:
    """The figure as HTML for a page that already has plotly.js; its element has the id ``name``."""
    config = {
        "displaylogo": False,
        "showSendToCloud": False,
        "responsive": True,
        "scrollZoom": False,
        "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d", "zoom2d", "pan2d"],
        "toImageButtonOptions": {"filename": name},
    }
    return str(
        figure.to_html(full_html=False, include_plotlyjs=False, include_mathjax=False, div_id=name, config=config)
    )
