"""What the charts of a report tell of the mark under the pointer: plotly's little HTML, all else escaped."""

from __future__ import annotations

import html
import textwrap

from hwnas.search.report.data import (
    STATES,
    LayerRow,
    NetworkRow,
    TrialPoint,
    count,
    data_size,
    duration,
    known,
    millijoules,
    milliseconds,
    number,
    percent,
)


def trial_text(trial: TrialPoint) -> str:
    """Of a trial."""
    accuracy = "no accuracy" if not known(trial.accuracy) else f"accuracy {percent(trial.accuracy)}"
    return _hover(
        f"trial {trial.number}, {STATES.get(trial.state, trial.state)}",
        f"{accuracy}, {milliseconds(trial.latency_ms)}, {_energy(trial.energy_mj)}reward {number(trial.reward)}",
        f"{data_size(trial.weight_bytes)}, {count(trial.macs)} MACs, {count(trial.params)} weights",
        f"{trial.epochs} epochs, finished after {duration(trial.finished_s)}",
        trial.changes,
    )


def network_text(row: NetworkRow) -> str:
    """Of a network."""
    energy = f"energy: predicted {millijoules(row.energy_predicted_mj, row.energy_predicted_std_mj)}"
    return _hover(
        row.name,
        f"accuracy: validation {percent(row.validation_accuracy)}, test {percent(row.test_accuracy)}",
        f"latency: predicted {milliseconds(row.latency_predicted_ms, row.latency_predicted_std_ms)},",
        f"measured {milliseconds(row.latency_measured_ms)}",
        energy if known(row.energy_predicted_mj) else "",
        f"{data_size(row.weight_bytes)}, {count(row.macs)} MACs, {count(row.params)} weights",
    )


def layer_text(row: LayerRow) -> str:
    """Of a layer."""
    bits = "no weights" if row.weight_bits is None else f"{row.weight_bits}-bit weights"
    return _hover(
        row.name,
        f"{row.kind}, {row.shape}",
        f"{bits}, {row.act_bits}-bit activations, {row.execution}",
        f"width {percent(row.width_share)}, rank {percent(row.rank_share)} kept",
        f"{milliseconds(row.latency_ms, row.latency_std_ms)}, {'measured' if row.measured else 'estimated'}",
        f"{millijoules(row.energy_mj, row.energy_std_mj)}, predicted" if known(row.energy_mj) else "",
        f"{count(row.macs)} MACs, {data_size(row.weight_bytes)}",
    )


def _energy(value: float | None) -> str:
    return f"{millijoules(value)}, " if known(value) else ""


def _hover(head: str, *lines: str) -> str:
    wrapped = [part for line in lines if line for part in textwrap.wrap(line, 64) or [""]]
    return "<br>".join([f"<b>{html.escape(head)}</b>", *(html.escape(line) for line in wrapped)])
