"""The report of one search: a single HTML page that needs no network and can be mailed, archived and printed."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from hwnas.search import report_charts as charts
from hwnas.search import report_data as written
from hwnas.search.report_data import NOTHING, NetworkRow, ReportData
from hwnas.spaces.files import write_text

CHARTS = ("chart-pareto", "chart-progress", "chart-latency", "chart-strategy", "chart-checks")
"""The ids of the charts, in the order of the page."""

SAME = "the same"
NOTABLE_RATIO, NOTABLE_POINTS = 0.005, 0.05
"""Smaller differences, of a ratio from 1 and of an accuracy in points, are called the same."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One line of the headline table; ``mood`` is ``better``, ``worse`` or empty."""

    label: str
    chosen: str
    reference: str
    verdict: str
    mood: str


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
        number=written.number,
        known=written.known,
        size=written.data_size,
        count=written.count,
        percent=written.percent,
        duration=written.duration,
        unbroken=_unbroken,
    )
    page = environment.get_template("report.html.j2").render(
        data=data,
        outcome=outcome(data.networks),
        comparisons=compare(*data.networks[:2]) if len(data.networks) > 1 else [],
        precision_columns=list(dict.fromkeys(column for row in data.precisions for column in row)),
        charts=_charts(data),
        states=written.STATES,
        plotly=Markup(get_plotlyjs()),
    )
    return page + "\n"


def outcome(networks: list[NetworkRow]) -> str:
    """What came of the search, in one sentence that says so when nothing was gained."""
    if not networks:
        return "The search chose no network."
    if len(networks) == 1:
        return "There is no reference network to compare the chosen one with."
    chosen, reference = networks[:2]
    if chosen.digest == reference.digest:
        return "The search chose the reference network itself: it found nothing better."
    computed = all(math.isnan(row.latency_measured_ms) for row in (chosen, reference))
    latencies = [row.latency_predicted_ms if computed else row.latency_measured_ms for row in (chosen, reference)]
    speed = ratio(latencies[0], latencies[1], "faster", "slower")
    accuracy = points(chosen.test_accuracy, reference.test_accuracy)
    if NOTHING in (speed, accuracy):
        return "The chosen network cannot be compared with the reference: a measurement is missing."
    size = ratio(chosen.file_bytes, reference.file_bytes, "smaller", "larger")
    as_fast = "as fast as" if speed == SAME else f"{speed} than"
    more = "more" if accuracy.startswith("+") else "less"
    as_accurate = "equally accurate" if accuracy == SAME else f"{accuracy[1:]} {more} accurate"
    as_small = "of the same size" if size == SAME else size
    times = " against ".join(map(written.milliseconds, latencies))
    shares = " against ".join(written.percent(row.test_accuracy) for row in (chosen, reference))
    where = "by prediction" if computed else "on the device"
    return (
        f"{_lead(_gain(speed), _gain(accuracy))}: the chosen network is {as_fast} the reference {where}"
        f" ({times}), {as_accurate} on the test images ({shares}), and its file is {as_small}."
    )


def compare(chosen: NetworkRow, reference: NetworkRow) -> list[Comparison]:
    """The lines of the headline table."""
    accuracies = (("Test accuracy", "test_accuracy"), ("Validation accuracy", "validation_accuracy"))
    measures = (
        ("Latency, measured", "latency_measured_ms", written.milliseconds, "faster", "slower"),
        ("Latency, 90th percentile", "latency_p90_ms", written.milliseconds, "faster", "slower"),
        ("Latency, predicted", "latency_predicted_ms", written.milliseconds, "faster", "slower"),
        ("File", "file_bytes", written.data_size, "smaller", "larger"),
        ("Weights", "weight_bytes", written.data_size, "smaller", "larger"),
        ("Peak memory of activations", "peak_memory_bytes", written.data_size, "smaller", "larger"),
        ("Multiply-accumulates (MACs)", "macs", written.count, "fewer", "more"),
        ("Parameters", "params", written.count, "fewer", "more"),
    )
    lines = []
    for label, name in accuracies:
        mine, other = getattr(chosen, name), getattr(reference, name)
        lines.append(_comparison(label, written.percent(mine), written.percent(other), points(mine, other)))
    for label, name, write, less, more in measures:
        mine, other = getattr(chosen, name), getattr(reference, name)
        lines.append(_comparison(label, write(mine), write(other), ratio(mine, other, less, more)))
    return lines


def ratio(chosen: float, reference: float, less: str, more: str) -> str:
    """How many times less or more the chosen network needs, such as ``2.41× faster``."""
    if not (math.isfinite(chosen) and math.isfinite(reference)) or chosen <= 0 or reference <= 0:
        return NOTHING
    factor = max(chosen, reference) / min(chosen, reference)
    if factor < 1 + NOTABLE_RATIO:
        return SAME
    return f"{written.number(factor)}× {less if chosen < reference else more}"


def points(chosen: float, reference: float) -> str:
    """The difference of two accuracies in percentage points, such as ``+0.8 points``."""
    difference = (chosen - reference) * 100
    if not math.isfinite(difference):
        return NOTHING
    if abs(difference) < NOTABLE_POINTS:
        return SAME
    return f"{'+' if difference > 0 else '−'}{abs(difference):.1f} points"


def _unbroken(text: str) -> str:
    """The text with every unit kept on the line of its number."""
    return re.sub(r"(?<=\d) (?=%|ms|[kMG]?B\b|points)", "\N{NO-BREAK SPACE}", text)


def _gain(verdict: str) -> int:
    """1 when a verdict speaks for the chosen network, -1 when against it."""
    if verdict in (SAME, NOTHING):
        return 0
    return 1 if verdict.startswith("+") or verdict.endswith(("faster", "smaller", "fewer")) else -1


def _comparison(label: str, chosen: str, reference: str, verdict: str) -> Comparison:
    return Comparison(label, chosen, reference, verdict, ("", "better", "worse")[_gain(verdict)])


def _lead(speed: int, accuracy: int) -> str:
    if speed <= 0 and accuracy <= 0:
        return "The search gained neither speed nor accuracy"
    if speed > 0 > accuracy:
        return "The search traded accuracy for speed"
    if accuracy > 0 > speed:
        return "The search traded speed for accuracy"
    return "The search paid off"


def _charts(data: ReportData) -> dict[str, Markup | None]:
    figures = (
        charts.pareto(data.trials, data.networks),
        charts.progress(data.trials),
        charts.layer_latency(data.layers, data.reference_layers),
        charts.strategy(data.layers),
        charts.checks(data.checks, data.networks),
    )
    pairs = zip(CHARTS, figures, strict=True)
    return {name: None if figure is None else Markup(_html_of(figure, name)) for name, figure in pairs}


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
