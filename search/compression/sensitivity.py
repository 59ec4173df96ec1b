"""How much each single change of a trained model changes its answers, without any training: measured once, by layer."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from hwnas.search.compression.knowledge import TrainedWeights
from hwnas.search.training import TRACKED
from hwnas.spaces.calibration import recalibrate
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.compression.range_calibration import calibrate_ranges
from hwnas.spaces.decision import Option
from hwnas.spaces.errors import InvalidFileError, InvalidOptionError
from hwnas.spaces.files import write_text
from hwnas.spaces.network import Network
from hwnas.spaces.space import Space

Change = tuple[tuple[str, Option], ...]
"""Decisions, and what they are in place of what the whole model has."""
BATCH = 128
SENSITIVITY = "sensitivity.json"
"""The file in a run's folder."""


@dataclass(frozen=True)
class Part:
    """Decisions that are judged together: most alone, a layer's rank with the form of its factors.

    Attributes:
        decisions: Their names.
        options: Of each.
    """

    decisions: tuple[str, ...]
    options: tuple[tuple[Option, ...], ...]

    @property
    def kind(self) -> str:
        """The last part of the first one's name, such as ``keep``."""
        return self.decisions[0].rpartition(".")[2]

    def changes(self) -> Iterator[Change]:
        """Of all combinations of options, in the order of `itertools.product`."""
        for combination in itertools.product(*self.options):
            yield tuple(zip(self.decisions, combination, strict=True))


def parts(space: Space) -> list[Part]:
    """The decisions of a traced model's space, as they are judged."""
    names = [d.name for d in space.decisions]
    found = []
    for decision in space.decisions:
        layer, _, kind = decision.name.rpartition(".")
        if kind == "form":
            continue
        form = f"{layer}.form"
        own = (decision.name, form) if kind == "rank" and form in names else (decision.name,)
        found.append(Part(own, tuple(space.options[name] for name in own)))
    return found


@dataclass(frozen=True)
class Probe:
    """What a change is judged with; sent to worker processes.

    Attributes:
        weights: Of the model.
        calibration: Images, as the model reads them, for the statistics and ranges of a changed network.
        images: Others, for its answers.
        labels: Of these.
        ranges: How those of activations are found; see `hwnas.search.training.Recipe`.
    """

    weights: TrainedWeights
    calibration: Tensor
    images: Tensor
    labels: Tensor
    ranges: str = TRACKED

    @cached_property
    def answers(self) -> Tensor:
        """Logarithms of the whole model's probabilities, shape (images, classes).

        It is calibrated as changed ones are, so that what calibration does to all of them counts for none.
        """
        reference = self.weights.extract(self.weights.space.reference())
        self.calibrate(reference)
        return functional.log_softmax(_logits(reference, self.images), dim=1)

    def calibrate(self, network: Network) -> None:
        """Statistics of normalisations and ranges of activations, for the weights that a network has."""
        batches = self.calibration.tensor_split(-(-len(self.calibration) // BATCH))  # none of a single image
        recalibrate(network, batches)
        if self.ranges != TRACKED:
            calibrate_ranges(network, batches, self.ranges)


@dataclass(frozen=True, slots=True)
class Effect:
    """What a change does.

    Attributes:
        divergence: KL(whole ‖ changed) of the probabilities, in nats, the mean over the probe's images.
        accuracy: Share of them that the changed network classifies rightly.
    """

    divergence: float
    accuracy: float


def effect_of(probe: Probe, candidate_json: str) -> Effect:
    """Of the changes that a candidate makes, its normalisations and ranges calibrated. Runs in a worker process."""
    network = probe.weights.extract(Candidate.from_json(candidate_json))
    try:
        probe.calibrate(network)
    except InvalidOptionError:  # values that are not finite have no range
        return Effect(math.inf, 0.0)
    logits = _logits(network, probe.images)
    answers = functional.log_softmax(logits, dim=1)
    divergence = functional.kl_div(answers, probe.answers, reduction="batchmean", log_target=True)
    right = (logits.argmax(1) == probe.labels).float().mean()
    return Effect(float(divergence) if math.isfinite(float(divergence)) else math.inf, float(right))


@torch.no_grad()
def _logits(network: Any, images: Tensor) -> Tensor:
    network.eval().to(memory_format=torch.channels_last)
    batches = torch.split(images.contiguous(memory_format=torch.channels_last), BATCH)
    return torch.cat([network(batch) for batch in batches])


@dataclass
class Sensitivity:
    """The effects of all single changes.

    Attributes:
        accuracy: Of the whole model, on the same images.
        effects: By change; a change that leaves the model as it is has none.
    """

    accuracy: float
    effects: dict[Change, Effect] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """As JSON."""
        rows = [[list(map(list, change)), e.divergence, e.accuracy] for change, e in self.effects.items()]
        write_text(path, json.dumps({"accuracy": self.accuracy, "effects": rows}, indent=None))

    @classmethod
    def load(cls, path: Path) -> Sensitivity:
        """What `save` wrote; raises `InvalidFileError` where it did not."""
        try:
            data = json.loads(path.read_text())
            effects = {tuple((str(n), o) for n, o in c): Effect(float(d), float(a)) for c, d, a in data["effects"]}
            return cls(float(data["accuracy"]), effects)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidFileError(
                f"{path} holds no sensitivities: {error!r}; delete it to measure them again"
            ) from error


Map = Callable[[Callable[..., Effect], object, Sequence[tuple[Any, ...]], Callable[[int, Effect], None]], object]
"""Calls a function with a shared object and each of several arguments, and says of each result as it comes."""


def measure_sensitivity(
    space: Space, probe: Probe, each: Map, path: Path, heard: Callable[[float], None] = lambda share: None
) -> Sensitivity:
    """Every single change of the space, those apart that are known in a file already.

    Args:
        space: Of the model.
        probe: What changes are judged with.
        each: Evaluates side by side, such as `hwnas.search.ray_map.map_parallel`.
        path: Of the file, which is written after every change, and read first where it is there.
        heard: Hears what share of them is known.
    """
    original = space.reference()
    whole = space.encode(original)
    known = Sensitivity.load(path) if path.exists() else Sensitivity(_accuracy(probe))
    candidates: dict[str, list[Change]] = {}
    for part in parts(space):
        for change in part.changes():
            row = space.encode({**original, **dict(change)})
            if change not in known.effects and not (row == whole).all():
                candidates.setdefault(space.decode(row).to_json(), []).append(change)
    texts = list(candidates)

    def keep(i: int, effect: Effect) -> None:
        known.effects.update(dict.fromkeys(candidates[texts[i]], effect))
        known.save(path)
        heard((i + 1) / len(texts))

    if texts:
        each(effect_of, probe, [(text,) for text in texts], keep)
    known.save(path)
    return known


def _accuracy(probe: Probe) -> float:
    return float((probe.answers.argmax(1) == probe.labels).float().mean())


def table(part: Part, effects: Mapping[Change, Effect]) -> list[float]:
    """The divergence of each change of a part, in the order of `Part.changes`; 0 where the model stays as it is."""
    return [effects[change].divergence if change in effects else 0.0 for change in part.changes()]
