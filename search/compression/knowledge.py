"""A trained model and what was found out about it: all that candidates' networks are made of, as plain data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from hwnas.spaces.candidate import Candidate
from hwnas.spaces.catalog import space_from_spec
from hwnas.spaces.errors import InvalidFileError
from hwnas.spaces.files import write_bytes
from hwnas.spaces.network import Network
from hwnas.spaces.traced.space import TracedSpace
from hwnas.spaces.traced.weights import Evidence, compressed

KEY = "layers"
"""Of the metadata."""


@dataclass(frozen=True)
class TrainedWeights:
    """What a candidate's network begins with; see `hwnas.search.evaluators.fine_tune.FineTuningEvaluator`.

    Attributes:
        space_spec: See `Space.spec`.
        state: What the model has learnt, by the names that its graph has.
        evidence: What to keep of it.
    """

    space_spec: Mapping[str, Any]
    state: Mapping[str, Tensor]
    evidence: Evidence

    @cached_property
    def space(self) -> TracedSpace:
        """The space, built once in each process."""
        space = space_from_spec(self.space_spec)
        assert isinstance(space, TracedSpace)
        return space

    def extract(self, candidate: Candidate) -> Network:
        """The candidate's network, with what it keeps of the model."""
        return compressed(self.space, candidate, self.state, self.evidence)


def save_evidence(evidence: Evidence, path: Path) -> None:
    """As a safetensors file."""
    tensors = {f"moment.{i}": moment.contiguous() for i, moment in enumerate(evidence.moments.values())}
    tensors["bundles"] = torch.tensor(list(evidence.importance), dtype=torch.int64)
    tensors["importance"] = torch.tensor(list(evidence.importance.values()), dtype=torch.float64)
    write_bytes(path, save(tensors, metadata={KEY: json.dumps(list(evidence.moments))}))


def load_evidence(path: Path) -> Evidence:
    """What `save_evidence` wrote; raises `InvalidFileError` where it did not."""
    try:
        with safe_open(path, "pt") as file:
            layers = json.loads((file.metadata() or {})[KEY])
            moments = {(name, form): file.get_tensor(f"moment.{i}") for i, (name, form) in enumerate(layers)}
            bundles, importance = file.get_tensor("bundles"), file.get_tensor("importance")
    except Exception as error:
        raise InvalidFileError(f"{path} is no evidence of a model: {error!r}; delete it to measure it again") from error
    return Evidence(dict(zip(bundles.tolist(), importance.tolist(), strict=True)), moments)
