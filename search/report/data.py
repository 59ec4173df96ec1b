"""What the report of a search shows: plain facts, and how they are written for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

NOTHING = "–"
"""Stands for a number that is not there."""
STATES = {"complete": "trained in full", "pruned": "stopped early", "failed": "failed"}
"""The states of a trial, in words."""


@dataclass(frozen=True, slots=True)
class TrialPoint:
    """One candidate that the search tried.

    Attributes:
        number: Position in the order in which the search asked for candidates.
        digest: Short name of the candidate.
        state: ``complete``, ``pruned`` (stopped early) or ``failed``.
        accuracy: On the validation images, 0 to 1; ``None`` when the trial never got that far.
        latency_ms: Predicted, or measured where the search measured its trials, in milliseconds.
        weight_bytes, macs, params: Bytes of the weights, multiply-accumulates of one image, number of weights.
        reward: What the search maximises; ``None`` when there was none.
        epochs: Passes over the training images.
        finished_s: Seconds from the start of the search to the end of the trial.
        changes: Short text of the candidate.
        energy_mj: Predicted, in millijoules; ``None`` where the device does not know energy.
        measured: Whether the latency was measured.
    """

    number: int
    digest: str
    state: str
    accuracy: float | None
    latency_ms: float
    weight_bytes: int
    macs: int
    params: int
    reward: float | None
    epochs: int
    finished_s: float
    changes: str
    energy_mj: float | None = None
    measured: bool = False


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One operator of a network, in the order in which it runs.

    Attributes:
        name, kind, shape: Such as ``s1b2.expand``, ``conv 3×3 /2`` and ``16×8×8 → 24×4×4``.
        in_channels, out_channels: Channels read and written.
        width_share: Share kept of the widest that the space offers for this position, 0 to 1.
        weight_bits: Bits of a weight, or of its index where weights are shared; ``None`` for operators without weights.
        act_bits: Bits of a value written.
        rank_share: Share of the full rank, 0 to 1; 1 is the whole layer.
        execution: ``native``, ``emulated``, ``stored only`` or ``not measured``.
        macs, weight_bytes: Multiply-accumulates of one image, bytes of the weights.
        latency_ms, latency_std_ms: Milliseconds, and their standard deviation.
        measured: Whether the latency was measured in the table; otherwise it is estimated.
        energy_mj, energy_std_mj: Predicted, and the standard deviation; ``None`` where the device does not know energy.
    """

    name: str
    kind: str
    shape: str
    in_channels: int
    out_channels: int
    width_share: float
    weight_bits: int | None
    act_bits: int
    rank_share: float
    execution: str
    macs: int
    weight_bytes: int
    latency_ms: float
    latency_std_ms: float
    measured: bool
    energy_mj: float | None = None
    energy_std_mj: float | None = None


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """One network that was trained to the end and run on the device.

    Attributes:
        name: ``chosen``, ``reference``, ``finalist 2`` …
        digest: Short name of the candidate.
        test_accuracy, validation_accuracy: 0 to 1.
        latency_predicted_ms, latency_predicted_std_ms: From the table, with the standard deviation, in milliseconds.
        latency_measured_ms, latency_p90_ms: Of the whole network on the device: typical, and 90 % are faster.
        weight_bytes, file_bytes: Bytes of the weights, and of the exported file.
        macs, params: Multiply-accumulates of one image, number of weights.
        peak_memory_bytes: What the device's runtime allocates at its peak beside the loaded model, predicted; where it
            does not tell, most bytes of activations alive at once.
        energy_predicted_mj, energy_predicted_std_mj: Of an inference, with the standard deviation, in millijoules;
            ``None`` where the device does not know energy. It is not measured when a run ends.
    """

    name: str
    digest: str
    test_accuracy: float
    validation_accuracy: float
    latency_predicted_ms: float
    latency_predicted_std_ms: float
    latency_measured_ms: float
    latency_p90_ms: float
    weight_bytes: int
    file_bytes: int
    macs: int
    params: int
    peak_memory_bytes: int
    energy_predicted_mj: float | None = None
    energy_predicted_std_mj: float | None = None


@dataclass(frozen=True, slots=True)
class CheckPoint:
    """A held-out network: the prediction against the measurement, both in milliseconds."""

    predicted_ms: float
    measured_ms: float


@dataclass(frozen=True, slots=True)
class Quantity:
    """Latency or energy: what is traded against accuracy, and what layers have shares of.

    Attributes:
        name, unit: As in the names of what rows hold: ``latency_ms``, ``latency_std_ms``, ``latency_predicted_ms``.
        less: What a network is that needs less of it.
    """

    name: str
    unit: str
    less: str

    def of(self, row: TrialPoint | LayerRow) -> float:
        """Of a trial or a layer; NaN where that is not known."""
        return amount_of(row, f"{self.name}_{self.unit.lower()}")

    def std_of(self, row: LayerRow) -> float:
        """Its standard deviation; NaN where that is not known."""
        return amount_of(row, f"{self.name}_std_{self.unit.lower()}")

    def predicted(self, row: NetworkRow) -> float:
        """Of a network; NaN where that is not known."""
        return amount_of(row, f"{self.name}_predicted_{self.unit.lower()}")


LATENCY = Quantity("latency", "ms", "faster")
ENERGY = Quantity("energy", "mJ", "more frugal")


@dataclass(frozen=True, slots=True)
class FurtherNetwork:
    """Another network that came of the same trainings.

    Attributes:
        name: As the search calls it.
        href: Of its own report.
        device, target: What it is for, in words.
        chosen: On its device.
        warnings: What it lacks, in words.
    """

    name: str
    href: str
    device: str
    target: str
    chosen: NetworkRow
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SensitivityPoint:
    """What one change of a trained model does, without any training.

    Attributes:
        name: The layer or branch.
        kind: Of the decision, such as ``keep``.
        option: In words.
        divergence: KL(whole ‖ changed) of the answers, in nats.
        accuracy: A share, of the training images looked at.
        chosen: Whether the chosen network has this option.
    """

    name: str
    kind: str
    option: str
    divergence: float
    accuracy: float
    chosen: bool


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything that the page shows.

    Attributes:
        title, created: Heading, and when the report was made.
        command: The command that reproduces the run.
        device_facts, settings, agreement: Facts in words; ``agreement`` of the exported file with the network.
        precisions: Rows with the weight bits, activation bits, execution, relative latency and exactness.
        latency_mape, latency_within_10: Mean relative error, and the share predicted within 10 %; both 0 to 1.
        latency_kendall: Rank correlation of predictions and measurements, -1 to 1.
        checks: The held-out networks behind these three numbers.
        trials: Every candidate tried.
        networks: The chosen network first, the reference second, then other finalists.
        layers, reference_layers: Of the chosen network and of the reference.
        target: The objective in words.
        traded: What the charts trade against accuracy.
        further: Other networks that came of the same trainings.
        warnings: What the chosen network lacks, in words.
        sensitivity: Of a trained model, what each single change does; nothing of other searches.
        left: Of a trained model, what is left as it is, and why.
    """

    title: str
    created: str
    command: str
    device_facts: dict[str, str]
    precisions: list[dict[str, str]]
    latency_mape: float
    latency_kendall: float
    latency_within_10: float
    checks: list[CheckPoint]
    trials: list[TrialPoint]
    networks: list[NetworkRow]
    layers: list[LayerRow]
    reference_layers: list[LayerRow]
    target: str
    agreement: dict[str, str]
    settings: dict[str, str]
    traded: Quantity = LATENCY
    further: list[FurtherNetwork] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    sensitivity: list[SensitivityPoint] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)

    @property
    def knows_energy(self) -> bool:
        """Whether the device knows energy; else the page does not speak of it."""
        return any(known(row.energy_predicted_mj) for row in self.networks)


def known(value: float | None) -> bool:
    """Whether there is a number that can be drawn."""
    return value is not None and math.isfinite(value)


def amount_of(row: object, name: str) -> float:
    """A number of a row; NaN where it is not there."""
    found = getattr(row, name)
    return math.nan if found is None else float(found)


def pareto_front(trials: Sequence[TrialPoint], cost: Quantity = LATENCY) -> list[TrialPoint]:
    """The trials trained in full that no other one beats in cost and accuracy, the one of least cost first."""
    rows = [
        (cost.of(trial), -trial.accuracy, trial)
        for trial in trials
        if trial.state == "complete" and trial.accuracy is not None and known(trial.accuracy) and known(cost.of(trial))
    ]
    front, best = [], 1.0
    for _, loss, trial in sorted(rows, key=lambda row: row[:2]):
        if loss < best:
            front.append(trial)
            best = loss
    return front


def decimals(value: float) -> int:
    """Decimals that write a number with three digits, never more than six."""
    if not math.isfinite(value) or value == 0:
        return 0
    return min(6, max(0, 2 - math.floor(math.log10(abs(float(f"{value:.2e}"))))))


def number(value: float | None) -> str:
    """Three significant digits, such as 0.123 or 41.2."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:.{decimals(value)}f}"


def with_unit(value: float | None, unit: str, deviation: float | None = None) -> str:
    """0.123 ms, or 0.123 ± 0.004 ms; without a deviation of zero, which is that of something computed."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if deviation is None or not math.isfinite(deviation) or deviation == 0:
        return f"{number(value)} {unit}"
    return f"{number(value)} ± {deviation:.{decimals(value)}f} {unit}"


def milliseconds(value: float | None, deviation: float | None = None) -> str:
    """See `with_unit`."""
    return with_unit(value, "ms", deviation)


def millijoules(value: float | None, deviation: float | None = None) -> str:
    """See `with_unit`."""
    return with_unit(value, "mJ", deviation)


def scaled(value: float, units: tuple[str, ...]) -> str:
    """A number in the unit, each 1000 times the one before, that leaves at most three digits before the point."""
    size, unit = float(value), 0
    while abs(size) >= 999.5 and unit + 1 < len(units):
        size, unit = size / 1000, unit + 1
    digits = number(size) if unit else f"{size:.0f}"
    return f"{digits} {units[unit]}".strip()


def data_size(value: float) -> str:
    """Bytes for people: 812 B, 41.2 kB, 3.05 MB."""
    return scaled(value, ("B", "kB", "MB", "GB"))


def count(value: float) -> str:
    """A count for people: 812, 41.2 k, 1.54 M."""
    return scaled(value, ("", "k", "M", "G", "T"))


def percent(share: float | None) -> str:
    """98.3 %."""
    return NOTHING if share is None or not math.isfinite(share) else f"{share * 100:.1f} %"


def duration(seconds: float) -> str:
    """12 s, 3 min 12 s, 1 h 02 min."""
    if not math.isfinite(seconds):
        return NOTHING
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
