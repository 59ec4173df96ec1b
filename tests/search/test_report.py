"""The report as a reader's browser sees it, and the words in which it sums a search up."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest

from hwnas.search.report.data import (
    CheckPoint,
    LayerRow,
    NetworkRow,
    ReportData,
    TrialPoint,
    count,
    data_size,
    duration,
    milliseconds,
    pareto_front,
    percent,
)
from hwnas.search.report.headline import compare, outcome, points, ratio
from hwnas.search.report.page import CHARTS, render, write_report

from .browser import find_browser, missing_charts, open_page, remote_loads

needs_browser = pytest.mark.skipif(find_browser() is None, reason="no Chromium or Chrome on PATH")
EVIL = "</script><script>console.error('pwned')</script><img src=x onerror=\"console.error('pwned')\">"


def a_trial(number: int, state: str, accuracy: float | None, latency_ms: float, changes: str = "") -> TrialPoint:
    reward = None if accuracy is None else accuracy * (latency_ms / 0.25) ** -0.07
    size = int(150_000 * latency_ms)
    epochs = {"complete": 12, "pruned": 4}.get(state, 0)
    return TrialPoint(
        number=number,
        digest=f"{number * 7919 % 16**6:06x}",
        state=state,
        accuracy=accuracy,
        latency_ms=latency_ms,
        weight_bytes=size,
        macs=14 * size,
        params=size * 2,
        reward=reward,
        epochs=epochs,
        finished_s=31.0 * (number + 1),
        changes=changes
        or "stem 8, s1 16×1, s2 24×2 k5 e6 w4 a8 keep 0.75, s3 32×2 k3 e3 w8 a8 rank 0.5, head 128 w7 a8",
    )


def some_trials(amount: int = 160) -> list[TrialPoint]:
    rng = np.random.default_rng(5)
    trials = []
    for number in range(amount):
        latency = float(0.09 + 0.45 * rng.beta(1.6, 2.2) * (1.25 - 0.5 * number / amount))
        accuracy = float(0.982 - 0.03 * math.exp(-(latency - 0.08) / 0.09) - abs(rng.normal(0, 0.012)))
        state = rng.choice(["complete", "pruned", "failed"], p=[0.6, 0.34, 0.06])
        seen = {"complete": accuracy, "pruned": accuracy - 0.04 - abs(rng.normal(0, 0.05)), "failed": None}[state]
        trials.append(a_trial(number, str(state), seen, latency))
    return trials


def some_layers(widths: tuple[int, ...], bits: tuple[int, ...], executions: tuple[str, ...]) -> list[LayerRow]:
    layers = []
    for place in range(len(widths) * 4):
        stage, part = divmod(place, 4)
        kind = ("conv 1×1", "conv 3×3 dw", "conv 1×1", "add")[part]
        width, side = widths[stage], max(4, 16 >> (stage // 2))
        weighted = part < 3
        macs = (width * width * 3, width * 27, width * width * 3, width)[part] * side * side
        layers.append(
            LayerRow(
                name=f"s{stage // 2 + 1}b{stage % 2 + 1}.{('expand', 'depthwise', 'project', 'add')[part]}",
                kind=kind,
                shape=f"{width}×{side}×{side} → {width * 3}×{side}×{side}",
                in_channels=width,
                out_channels=width * 3 if part == 0 else width,
                width_share=1.0 if part == 3 else (0.5, 0.75, 1.0)[(stage + part) % 3],
                weight_bits=bits[place % len(bits)] if weighted else None,
                act_bits=bits[(place + 1) % len(bits)],
                rank_share=(0.5, 1.0, 0.25)[stage % 3] if part == 0 else 1.0,
                execution=executions[place % len(executions)],
                macs=macs,
                weight_bytes=macs // (side * side) if weighted else 0,
                latency_ms=0.003 + macs * 4.1e-8,
                latency_std_ms=0.0006,
                measured=place % 7 != 4,
            )
        )
    return layers


def a_network(name: str, digest: str, test: float, measured_ms: float, file_bytes: int) -> NetworkRow:
    return NetworkRow(
        name=name,
        digest=digest,
        test_accuracy=test,
        validation_accuracy=test + 0.003,
        latency_predicted_ms=measured_ms * 1.04,
        latency_predicted_std_ms=measured_ms * 0.02,
        latency_measured_ms=measured_ms,
        latency_p90_ms=measured_ms * 1.09,
        weight_bytes=file_bytes - 9000,
        file_bytes=file_bytes,
        macs=35 * file_bytes,
        params=file_bytes,
        peak_memory_bytes=file_bytes // 3,
    )


CHOSEN = a_network("chosen", "a1b2c3", 0.971, 0.2, 41_200)
REFERENCE = a_network("reference", "d4e5f6", 0.963, 0.5, 123_600)


def a_report() -> ReportData:
    rng = np.random.default_rng(3)
    measured = rng.uniform(0.1, 0.55, 40)
    return ReportData(
        title="Digits on this laptop: mbconv with bits, sparsity and rank",
        created="2025-11-24 21:40",
        command="hwnas search --space mbconv --data digits --device local --target '0.25 ms' --trials 160 --seed 0",
        device_facts={
            "Device": "this-machine",
            "Processor": "AMD EPYC 7763, 1 of 2 cores",
            "Runtime": "ONNX Runtime 1.22.0, CPU, 1 thread",
            "Measured": "312 operators, 200 runs each",
        },
        precisions=[
            {"weights": "32", "activations": "32", "execution": "native", "relative latency": "1.00", "exact": "yes"},
            {"weights": "8", "activations": "8", "execution": "native", "relative latency": "0.46", "exact": "yes"},
            {"weights": "7", "activations": "8", "execution": "native", "relative latency": "0.46", "exact": "yes"},
            {"weights": "4", "activations": "8", "execution": "stored only", "relative latency": "0.48", "exact": "no"},
        ],
        latency_mape=0.043,
        latency_kendall=0.94,
        latency_within_10=0.925,
        checks=[CheckPoint(float(value * rng.normal(1.01, 0.05)), float(value)) for value in measured],
        trials=some_trials(),
        networks=[CHOSEN, REFERENCE, a_network("finalist 2", "0a0b0c", 0.967, 0.18, 38_100)],
        layers=some_layers(
            (8, 16, 24, 24, 32, 32),
            (8, 4, 8, 32),
            ("native", "stored only", "native", "emulated", "native", "native", "native"),
        ),
        reference_layers=some_layers((16, 24, 24, 32, 32, 32, 64, 64), (32,), ("native",)),
        target="the most accurate network that takes at most 0.25 ms for one image",
        agreement={"Same answer": "1797 of 1797 test images", "Largest logit difference": "0.01"},
        settings={"trials": "160", "seed": "0", "evaluator": "train", "epochs": "12"},
    )


def an_empty_report() -> ReportData:
    lists = {name: [] for name in ("precisions", "checks", "trials", "networks", "layers", "reference_layers")}
    facts = {name: {} for name in ("device_facts", "agreement", "settings")}
    return dataclasses.replace(a_report(), latency_mape=math.nan, **lists, **facts)


@needs_browser
def test_every_chart_is_drawn_without_errors_and_without_a_network(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", a_report())
    page = open_page(tmp_path / "report.html")
    assert page.console_errors == []
    assert missing_charts(page.dom, CHARTS) == []
    assert remote_loads(page.dom) == []
    assert "2.50× faster" in page.dom
    assert 'data-title="Zoom in"' in page.dom
    assert 'data-title="Share' not in page.dom


@needs_browser
def test_text_from_outside_never_runs(tmp_path: Path) -> None:
    data = a_report()
    trials = [a_trial(0, "complete", 0.97, 0.2, EVIL), dataclasses.replace(data.trials[1], state=EVIL, digest=EVIL)]
    layers = [dataclasses.replace(row, name=EVIL, kind=EVIL, shape=EVIL, execution=EVIL) for row in data.layers[:2]]
    networks = [CHOSEN, REFERENCE, dataclasses.replace(CHOSEN, name=EVIL, digest=EVIL)]
    facts = {EVIL: EVIL}
    evil = ReportData(
        EVIL, EVIL, EVIL, facts, [facts], 0, 0, 0, data.checks, trials, networks, layers, layers, EVIL, facts, facts
    )
    write_report(tmp_path / "report.html", evil)
    page = open_page(tmp_path / "report.html")
    assert page.console_errors == []
    assert missing_charts(page.dom, CHARTS) == []
    assert "&lt;/script&gt;&lt;script&gt;" in page.dom
    assert not re.search(r"<img[^>]*onerror", page.dom)


@needs_browser
def test_an_empty_run_is_a_page_too(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", an_empty_report())
    page = open_page(tmp_path / "report.html")
    assert page.console_errors == []
    assert missing_charts(page.dom, CHARTS) == list(CHARTS)
    assert "There were no trials." in page.dom
    assert "The search chose no network." in page.dom


@needs_browser
def test_the_browser_tells_of_faults(tmp_path: Path) -> None:
    faults = "<script>console.error('first\\nsecond')</script><script>undefined_function()</script>"
    (tmp_path / "page.html").write_text(f"<div id=a></div><p>{faults}<svg class=main-svg></svg>")
    page = open_page(tmp_path / "page.html")
    assert page.console_errors[0] == "first\nsecond"
    assert "undefined_function is not defined" in page.console_errors[1]
    assert missing_charts(page.dom, ["a"]) == ["a"]


def test_missing_charts_looks_inside_the_element_only() -> None:
    drawn = (
        '<div id="a"><br><svg class="main-svg"><path></path></svg></div><div id="b"></div><svg class="main-svg"></svg>'
    )
    assert missing_charts(drawn, ["a", "b", "c"]) == ["b", "c"]
    assert remote_loads('<script src="https://a.b/c.js"></script><a href="https://a.b">a</a>') == ["https://a.b/c.js"]


def test_the_page_loads_nothing_and_has_plotly_once() -> None:
    page = render(a_report())
    assert page.count("<script>/**\n* plotly.js v") == 1
    own = re.sub(r"<script>/\*\*\n\* plotly.js v.*?</script>", "", page, flags=re.DOTALL)
    assert len(own) < 1_000_000
    assert not re.search(r"https?://", own)
    assert "default-src 'none'" in own


def test_ratios_are_those_worked_out_by_hand() -> None:
    assert ratio(0.2, 0.5, "faster", "slower") == "2.50× faster"
    assert ratio(0.5, 0.2, "faster", "slower") == "2.50× slower"
    assert ratio(41_200, 123_600, "smaller", "larger") == "3.00× smaller"
    assert ratio(1000, 1004, "smaller", "larger") == "the same"
    assert ratio(math.nan, 1.0, "faster", "slower") == ratio(0, 1, "faster", "slower") == "–"
    assert points(0.971, 0.963) == "+0.8 points"
    assert points(0.955, 0.963) == "−0.8 points"
    assert points(0.9631, 0.9630) == "the same"


def test_the_headline_table_has_ratios_and_moods() -> None:
    lines = {line.label: line for line in compare(CHOSEN, REFERENCE)}
    assert lines["Latency, measured"].verdict == "2.50× faster"
    assert lines["File"] == dataclasses.replace(
        lines["File"], chosen="41.2 kB", reference="124 kB", verdict="3.00× smaller", mood="better"
    )
    assert lines["Multiply-accumulates (MACs)"].verdict == "3.00× fewer"
    assert lines["Test accuracy"].verdict == "+0.8 points"
    backwards = {line.label: line.mood for line in compare(REFERENCE, CHOSEN)}
    assert set(backwards.values()) == {"worse"}


def test_the_outcome_says_what_was_gained() -> None:
    assert outcome([CHOSEN, REFERENCE]) == (
        "The search paid off: the chosen network is 2.50× faster than the reference on the device"
        " (0.200 ms against 0.500 ms), 0.8 points more accurate on the test images (97.1 % against 96.3 %),"
        " and its file is 3.00× smaller."
    )


@pytest.mark.parametrize(
    ("test", "measured_ms", "start", "words"),
    [
        (0.953, 0.6, "The search gained neither speed nor accuracy", ("1.20× slower", "1.0 points less accurate")),
        (0.963, 0.6, "The search gained neither speed nor accuracy", ("1.20× slower", "equally accurate")),
        (0.953, 0.5, "The search gained neither speed nor accuracy", ("as fast as the reference", "less accurate")),
        (0.953, 0.25, "The search traded accuracy for speed", ("2.00× faster", "1.0 points less accurate")),
        (0.973, 0.6, "The search traded speed for accuracy", ("1.20× slower", "1.0 points more accurate")),
        (0.963, 0.5, "The search gained neither speed nor accuracy", ("as fast as the reference", "equally accurate")),
        (0.963, 0.25, "The search paid off", ("2.00× faster", "equally accurate")),
    ],
)
def test_the_outcome_is_honest(test: float, measured_ms: float, start: str, words: tuple[str, str]) -> None:
    sentence = outcome([a_network("chosen", "fffff", test, measured_ms, 123_600), REFERENCE])
    assert sentence.startswith(start)
    assert all(word in sentence for word in words)
    assert sentence.endswith("its file is of the same size.")


def test_the_outcome_without_a_comparison() -> None:
    assert "nothing better" in outcome([dataclasses.replace(REFERENCE, name="chosen"), REFERENCE])
    assert "no reference" in outcome([CHOSEN])
    assert "missing" in outcome([dataclasses.replace(CHOSEN, latency_measured_ms=math.nan), REFERENCE])


def test_where_nothing_was_measured_predictions_are_compared() -> None:
    networks = [dataclasses.replace(n, latency_measured_ms=math.nan) for n in (CHOSEN, REFERENCE)]
    times = " against ".join(milliseconds(n.latency_predicted_ms) for n in networks)
    assert f"than the reference by prediction ({times})" in outcome(networks)


def test_the_front_holds_trials_that_nothing_beats() -> None:
    trials = [
        a_trial(0, "complete", 0.95, 0.3),
        a_trial(1, "complete", 0.94, 0.4),
        a_trial(2, "complete", 0.97, 0.5),
        a_trial(3, "complete", 0.93, 0.3),
        a_trial(4, "pruned", 0.99, 0.1),
        a_trial(5, "failed", None, 0.1),
        a_trial(6, "complete", 0.80, 0.2),
        a_trial(7, "complete", math.nan, 0.1),
    ]
    assert [trial.number for trial in pareto_front(trials)] == [6, 0, 2]


@pytest.mark.parametrize("missing", [None, math.nan, math.inf])
def test_only_failed_trials_still_make_a_page(missing: float | None) -> None:
    failed = [dataclasses.replace(a_trial(0, "failed", None, 0.1), accuracy=missing, reward=missing)]
    assert 'id="chart-pareto"' in render(dataclasses.replace(a_report(), trials=failed))


def test_numbers_are_written_for_people() -> None:
    assert [milliseconds(value) for value in (0.123, 12.34, 0.00412, 0.9996)] == [
        "0.123 ms",
        "12.3 ms",
        "0.00412 ms",
        "1.00 ms",
    ]
    assert milliseconds(0.123, 0.00449) == "0.123 ± 0.004 ms"
    assert [data_size(value) for value in (0, 812, 41_200, 999_900, 3_050_000)] == [
        "0 B",
        "812 B",
        "41.2 kB",
        "1.00 MB",
        "3.05 MB",
    ]
    assert [count(value) for value in (812, 1_540_000)] == ["812", "1.54 M"]
    assert percent(0.9834) == "98.3 %"
    assert [duration(value) for value in (12, 192, 3720)] == ["12 s", "3 min 12 s", "1 h 02 min"]
