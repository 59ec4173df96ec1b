"""What came of a search, in a sentence, in large figures and in a table: the chosen network beside the reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hwnas.search.report.data import (
    ENERGY,
    LATENCY,
    NOTHING,
    NetworkRow,
    Quantity,
    amount_of,
    count,
    data_size,
    known,
    millijoules,
    milliseconds,
    number,
    percent,
)

SAME = "the same"
NOTABLE_RATIO, NOTABLE_POINTS = 0.005, 0.05
"""Smaller differences, of a ratio from 1 and of an accuracy in points, are called the same."""
MEASURED_LATENCY, PREDICTED_LATENCY = "latency_measured_ms", "latency_predicted_ms"
PREDICTED_ENERGY = "energy_predicted_mj"


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure of networks that is better when it is less.

    Attributes:
        name: Of the attribute of `NetworkRow`.
        label, tile: What it is called in the headline table, and in large above it.
        write: A figure, and its standard deviation where there is one, for people.
        less, more: What a network is that has less or more of it.
        std_name: Of the attribute with the standard deviation.
    """

    name: str
    label: str
    write: Callable[..., str]
    less: str
    more: str
    tile: str = ""
    std_name: str = ""

    def text(self, row: NetworkRow) -> str:
        """The figure of a network."""
        deviations = [amount_of(row, self.std_name)] if self.std_name else []
        return self.write(amount_of(row, self.name), *deviations)

    def verdict(self, chosen: NetworkRow, reference: NetworkRow) -> str:
        """See `ratio`."""
        return ratio(amount_of(chosen, self.name), amount_of(reference, self.name), self.less, self.more)


MEASURES = {
    measure.name: measure
    for measure in (
        Measure(MEASURED_LATENCY, "Latency, measured", milliseconds, "faster", "slower", "latency"),
        Measure("latency_p90_ms", "Latency, 90th percentile", milliseconds, "faster", "slower"),
        Measure(PREDICTED_LATENCY, "Latency, predicted", milliseconds, "faster", "slower", "latency, predicted"),
        Measure(PREDICTED_ENERGY, "Energy, predicted", millijoules, "less", "more", "energy, predicted",
                "energy_predicted_std_mj"),
        Measure("file_bytes", "File", data_size, "smaller", "larger"),
        Measure("weight_bytes", "Weights", data_size, "smaller", "larger"),
        Measure("peak_memory_bytes", "Peak memory, predicted", data_size, "smaller", "larger"),
        Measure("macs", "Multiply-accumulates (MACs)", count, "fewer", "more"),
        Measure("params", "Parameters", count, "fewer", "more"),
    )
}  # fmt: skip
"""In the order of the headline table."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One line of the headline table, of the attribute ``name``; ``mood`` is ``better``, ``worse`` or empty."""

    name: str
    label: str
    chosen: str
    reference: str
    verdict: str
    mood: str


def outcome(networks: list[NetworkRow], cost: Quantity = LATENCY) -> str:
    """What came of the search, in one sentence that says so when nothing was gained; ``cost`` is what it traded."""
    if not networks:
        return "The search chose no network."
    if len(networks) == 1:
        return "There is no reference network to compare the chosen one with."
    chosen, reference = networks[:2]
    if chosen.digest == reference.digest:
        return "The search chose the reference network itself: it found nothing better."
    measure = headline_measure(networks[:2], cost)
    gain = measure.verdict(chosen, reference)
    accuracy = points(chosen.test_accuracy, reference.test_accuracy)
    if NOTHING in (gain, accuracy):
        return "The chosen network cannot be compared with the reference: a measurement is missing."
    size = ratio(chosen.file_bytes, reference.file_bytes, "smaller", "larger")
    more = "more" if accuracy.startswith("+") else "less"
    as_accurate = "equally accurate" if accuracy == SAME else f"{accuracy[1:]} {more} accurate"
    as_small = "of the same size" if size == SAME else size
    amounts = " against ".join(measure.write(amount_of(row, measure.name)) for row in (chosen, reference))
    shares = " against ".join(percent(row.test_accuracy) for row in (chosen, reference))
    where = "on the device" if measure.name == MEASURED_LATENCY else "by prediction"
    if measure.name == PREDICTED_ENERGY:
        needs = "takes as much energy as" if gain == SAME else f"takes {gain} energy than"
        goal, link = "energy efficiency", "is "
    else:
        needs = "is as fast as" if gain == SAME else f"is {gain} than"
        goal, link = "speed", ""
    return (
        f"{_lead(_gain(gain), _gain(accuracy), goal)}: the chosen network {needs} the reference {where}"
        f" ({amounts}), {link}{as_accurate} on the test images ({shares}), and its file is {as_small}."
    )


def headline_measure(rows: Sequence[NetworkRow], cost: Quantity = LATENCY) -> Measure:
    """By which the page compares two networks first.

    Energy where the search traded it and it is known. Else latency: as measured, or as predicted where neither of the
    two was measured.
    """
    if cost == ENERGY and all(known(row.energy_predicted_mj) for row in rows):
        return MEASURES[PREDICTED_ENERGY]
    return MEASURES[MEASURED_LATENCY if any(known(r.latency_measured_ms) for r in rows) else PREDICTED_LATENCY]


def tiles(networks: list[NetworkRow], cost: Quantity = LATENCY) -> dict[str, Comparison]:
    """What the page shows in large, by short name; nothing where there is nothing to compare."""
    if len(networks) < 2:
        return {}
    measure = headline_measure(networks[:2], cost)
    lines = {line.name: line for line in compare(*networks[:2])}
    shown = {measure.tile: measure.name, "file": "file_bytes", "test accuracy": "test_accuracy"}
    return {label: lines[name] for label, name in shown.items() if name in lines}


def compare(chosen: NetworkRow, reference: NetworkRow) -> list[Comparison]:
    """The lines of the headline table; without those of what is known of neither network."""
    lines = []
    for label, name in (("Test accuracy", "test_accuracy"), ("Validation accuracy", "validation_accuracy")):
        mine, other = getattr(chosen, name), getattr(reference, name)
        lines.append(_comparison(name, label, percent(mine), percent(other), points(mine, other)))
    for measure in MEASURES.values():
        if any(known(amount_of(row, measure.name)) for row in (chosen, reference)):
            texts = measure.text(chosen), measure.text(reference)
            lines.append(_comparison(measure.name, measure.label, *texts, measure.verdict(chosen, reference)))
    return lines


def ratio(chosen: float, reference: float, less: str, more: str) -> str:
    """How many times less or more the chosen network needs, such as ``2.41× faster``."""
    if not (math.isfinite(chosen) and math.isfinite(reference)) or chosen <= 0 or reference <= 0:
        return NOTHING
    factor = max(chosen, reference) / min(chosen, reference)
    if factor < 1 + NOTABLE_RATIO:
        return SAME
    return f"{number(factor)}× {less if chosen < reference else more}"


def points(chosen: float, reference: float) -> str:
    """The difference of two accuracies in percentage points, such as ``+0.8 points``."""
    difference = (chosen - reference) * 100
    if not math.isfinite(difference):
        return NOTHING
    if abs(difference) < NOTABLE_POINTS:
        return SAME
    return f"{'+' if difference > 0 else '−'}{abs(difference):.1f} points"


def _gain(verdict: str) -> int:
    """1 when a verdict speaks for the chosen network, -1 when against it."""
    if verdict in (SAME, NOTHING):
        return 0
    return 1 if verdict.startswith("+") or verdict.endswith(("faster", "smaller", "fewer", "less")) else -1


def _comparison(name: str, label: str, chosen: str, reference: str, verdict: str) -> Comparison:
    return Comparison(name, label, chosen, reference, verdict, ("", "better", "worse")[_gain(verdict)])


def _lead(gain: int, accuracy: int, goal: str) -> str:
    if gain <= 0 and accuracy <= 0:
        return f"The search gained neither {goal} nor accuracy"
    if gain > 0 > accuracy:
        return f"The search traded accuracy for {goal}"
    if accuracy > 0 > gain:
        return f"The search traded {goal} for accuracy"
    return "The search paid off"
