"""What a run says of energy: what is planted where a power meter was read, and nothing where none was."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from hwnas.scripts.progress import networks_table
from hwnas.search.report.charts import pareto
from hwnas.search.report.data import ENERGY, LATENCY, NetworkRow, ReportData, millijoules, pareto_front
from hwnas.search.report.headline import compare, outcome, tiles
from hwnas.search.report.layer_charts import layer_costs
from hwnas.search.report.page import CHARTS, ENERGY_CHART, render, write_report
from hwnas.search.report.summary import layer_rows, report_data
from hwnas.search.run_folder import Run
from hwnas.search.run_result import RunResult
from hwnas.spaces import Candidate

from .browser import missing_charts, open_page
from .fixtures import PER_NETWORK_MJ, conclude_again, metered_device, planted_mj, synthetic_device
from .test_report import CHOSEN, REFERENCE, a_report, a_trial, needs_browser


def with_energy(row: NetworkRow, mj: float, std_mj: float) -> NetworkRow:
    return dataclasses.replace(row, energy_predicted_mj=mj, energy_predicted_std_mj=std_mj)


FRUGAL, HUNGRY = with_energy(CHOSEN, 0.25, 0.01), with_energy(REFERENCE, 0.5, 0.02)


def a_metered_report() -> ReportData:
    plain = a_report()
    layers = [dataclasses.replace(row, energy_mj=2 * row.latency_ms, energy_std_mj=0.001) for row in plain.layers]
    trials = [dataclasses.replace(trial, energy_mj=2 * trial.latency_ms) for trial in plain.trials]
    return dataclasses.replace(plain, networks=[FRUGAL, HUNGRY], layers=layers, trials=trials, traded=ENERGY)


def own_part(page: str) -> str:
    return re.sub(r"<script>/\*\*\n\* plotly.js v.*?</script>", "", page, flags=re.DOTALL)


def test_energy_is_written_with_its_deviation() -> None:
    assert millijoules(0.25, 0.01) == "0.250 ± 0.010 mJ"
    assert millijoules(0.25, 0.0) == millijoules(0.25) == "0.250 mJ"  # computed: there is nothing to be wrong about
    assert millijoules(None) == "–"


def test_the_table_compares_energies_where_they_are_known() -> None:
    (line,) = [line for line in compare(FRUGAL, HUNGRY) if "nergy" in line.label]
    assert (line.label, line.chosen, line.reference) == ("Energy, predicted", "0.250 ± 0.010 mJ", "0.500 ± 0.020 mJ")
    assert (line.verdict, line.mood) == ("2.00× less", "better")
    (line,) = [line for line in compare(HUNGRY, FRUGAL) if "nergy" in line.label]
    assert (line.verdict, line.mood) == ("2.00× more", "worse")
    assert not [line for line in compare(CHOSEN, REFERENCE) if "nergy" in line.label]


def test_what_the_search_traded_leads() -> None:
    assert list(tiles([FRUGAL, HUNGRY], ENERGY)) == ["energy, predicted", "file", "test accuracy"]
    assert tiles([FRUGAL, HUNGRY], ENERGY)["energy, predicted"].verdict == "2.00× less"
    assert list(tiles([FRUGAL, HUNGRY])) == ["latency", "file", "test accuracy"]
    assert list(tiles([CHOSEN, REFERENCE], ENERGY)) == ["latency", "file", "test accuracy"]
    assert tiles([FRUGAL], ENERGY) == {}


def test_the_outcome_of_a_search_for_energy() -> None:
    assert outcome([FRUGAL, HUNGRY], ENERGY) == (
        "The search paid off: the chosen network takes 2.00× less energy than the reference by prediction (0.250 mJ"
        " against 0.500 mJ), is 0.8 points more accurate on the test images (97.1 % against 96.3 %), and its file is"
        " 3.00× smaller."
    )
    hungry = with_energy(CHOSEN, 0.75, 0.01)
    assert outcome([hungry, HUNGRY], ENERGY).startswith("The search traded energy efficiency for accuracy")
    poor = dataclasses.replace(with_energy(CHOSEN, 0.5, 0.01), test_accuracy=0.9)
    sentence = outcome([poor, HUNGRY], ENERGY)
    assert sentence.startswith("The search gained neither energy efficiency nor accuracy")
    assert "takes as much energy as the reference by prediction" in sentence
    assert outcome([CHOSEN, REFERENCE], ENERGY) == outcome([CHOSEN, REFERENCE], LATENCY)


def test_the_trade_off_is_drawn_in_what_was_traded() -> None:
    trials = [
        dataclasses.replace(a_trial(i, "complete", accuracy, ms), energy_mj=mj)
        for i, (accuracy, ms, mj) in enumerate([(0.90, 0.1, 3.0), (0.95, 0.2, 1.0), (0.97, 0.3, 2.0)])
    ]
    assert [t.number for t in pareto_front(trials)] == [0, 1, 2]
    assert [t.number for t in pareto_front(trials, ENERGY)] == [1, 2]
    drawn = pareto(trials, [FRUGAL, HUNGRY], ENERGY)
    assert drawn is not None
    assert drawn.layout.xaxis.title.text == "predicted energy, mJ"
    assert {trace.name: list(trace.x) for trace in drawn.data} == {
        "Pareto front": [1.0, 2.0, 3.0],
        "trained in full (3)": [3.0, 1.0, 2.0],
        "chosen": [0.25],
        "reference": [0.5],
    }


def test_bars_are_the_layers_energies_with_their_deviations() -> None:
    layers = a_metered_report().layers
    drawn = layer_costs(layers, [], ENERGY)
    assert drawn is not None
    bars = drawn.data[0]
    assert (bars.name, list(bars.x)) == ("predicted", [row.energy_mj for row in layers])
    assert list(bars.error_x.array) == [0.001] * len(layers)
    total = sum(row.energy_mj or 0.0 for row in layers)
    assert drawn.layout.annotations[0].text == f"<b>chosen</b>: {millijoules(total)} in {len(layers)} layers"
    latencies = layer_costs(layers, [])
    assert latencies is not None
    assert [trace.name for trace in latencies.data[:2]] == ["measured in the table", "estimated"]
    assert list(latencies.data[1].x) == [row.latency_ms for row in layers if not row.measured]


def test_where_energy_is_not_known_the_page_does_not_speak_of_it() -> None:
    assert "nergy" not in own_part(render(a_report()))


@needs_browser
def test_a_page_with_energy_has_a_chart_of_it(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", a_metered_report())
    page = open_page(tmp_path / "report.html")
    assert page.console_errors == []
    assert missing_charts(page.dom, [*CHARTS, ENERGY_CHART]) == []
    assert "Where the energy goes" in page.dom
    assert "further left is more frugal" in page.dom
    assert page.dom.count("Energy predicted, mJ") == 1


@pytest.fixture(scope="module")
def metered(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, RunResult]:
    folder = tmp_path_factory.mktemp("metered") / "run"
    return conclude_again(finished, folder, metered_device(), objective={"metric": "energy_mj"})


def test_the_result_has_the_planted_energy_and_how_far_it_can_be_trusted(metered: tuple[Run, RunResult]) -> None:
    run, found = metered
    written = json.loads((run.folder / "result.json").read_text())["networks"]
    assert run.cost.energy is not None
    for network, values, in_file in zip(found.networks, found.candidates, written, strict=True):
        truth = PER_NETWORK_MJ + sum(map(planted_mj, run.space.workload(Candidate(values)).operators))
        assert network.energy_predicted_mj == pytest.approx(truth, rel=0.03)
        relative = network.energy_predicted_std_mj / network.energy_predicted_mj  # type: ignore[operator]
        assert relative == pytest.approx(run.cost.energy.relative_std)
        assert 0.005 < relative < 0.03
        assert in_file["energy_predicted_mj"] == network.energy_predicted_mj
        assert in_file["energy_predicted_std_mj"] == network.energy_predicted_std_mj
    assert RunResult.from_json(run.folder / "result.json").networks == pytest.approx(found.networks, nan_ok=True)


def test_layers_add_up_to_the_networks_energy(metered: tuple[Run, RunResult]) -> None:
    run, found = metered
    model = run.cost.energy
    assert model is not None
    for network, values in zip(found.networks, found.candidates, strict=True):
        rows = layer_rows(run, values)
        energies = [row.energy_mj or 0.0 for row in rows]
        assert sum(energies) + model.per_network == pytest.approx(network.energy_predicted_mj, rel=1e-6)
        assert all(row.energy_std_mj is not None and row.energy_std_mj >= 0 for row in rows)
        assert layer_rows(run, values, 2.0)[0].energy_mj == energies[0]  # a slow machine takes longer, and no more


def test_the_report_and_the_terminal_show_it(metered: tuple[Run, RunResult]) -> None:
    run, found = metered
    data = report_data(run, found)
    assert data.traded == ENERGY
    assert data.device_facts["energy"].startswith("a meter made up for tests; 3 windows of 1 s, 4.0 W idle power")
    costs = run.cost.of(run.space.decode(run.ledger.finished[0].row))
    assert data.trials[0].energy_mj == pytest.approx(costs["energy_mj"])
    page = (run.folder / "report.html").read_text()
    shown = millijoules(found.networks[0].energy_predicted_mj, found.networks[0].energy_predicted_std_mj)
    assert shown in page
    console = Console(width=120)
    with console.capture() as said:
        console.print(networks_table(found.networks))
    (line,) = [line for line in said.get().splitlines() if "energy, predicted" in line]
    assert shown in line
    assert "latency, measured" not in said.get()


def test_without_a_meter_nothing_is_said(finished: Path, tmp_path: Path) -> None:
    run, found = conclude_again(finished, tmp_path / "run", synthetic_device())
    assert "nergy" not in (run.folder / "result.json").read_text()
    assert "nergy" not in own_part((run.folder / "report.html").read_text())
    assert {row.energy_mj for row in layer_rows(run, found.candidates[0])} == {None}
    console = Console(width=120)
    with console.capture() as said:
        console.print(networks_table(found.networks))
    assert "nergy" not in said.get()
