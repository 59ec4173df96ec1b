"""A supernet in training as a file: weights, θ, optimisers and generators as safetensors, the rest as JSON in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from hwnas.search.supernet.cost_terms import describe
from hwnas.search.supernet.training import EpochReport, SupernetTraining
from hwnas.spaces.errors import InvalidFileError
from hwnas.spaces.files import replacing

WEIGHTS = "weights."
KEY = "supernet"
"""Of the metadata."""


def save_checkpoint(training: SupernetTraining, path: Path) -> None:
    """Everything that a training needs to go on; written whole or not at all."""
    tensors = {f"{WEIGHTS}{name}": value for name, value in training.network.state_dict().items()}
    tensors |= {f"theta.{i}": theta.logits for i, theta in enumerate(training.thetas)}
    tensors["generator"] = training.generator.get_state()
    for name, optimizer in _optimizers(training).items():
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}.{index}.{key}": v for key, v in state.items() if isinstance(v, Tensor)}
    facts = {**_facts(training), "history": [asdict(report) for report in training.history]}
    with replacing(path) as temporary:
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(plain, temporary, metadata={KEY: json.dumps(facts)})


def load_checkpoint(training: SupernetTraining, path: Path) -> None:
    """The inverse of `save_checkpoint`: a training goes on as if it had never ended, on the processor to the bit.

    Args:
        training: Made with the same arguments, and at its beginning.
        path: Of the file.

    Raises:
        InvalidFileError: It is damaged, or of another training.
    """
    tensors, facts = _read(path)
    for name, value in _facts(training).items():
        if facts.get(name) != value:
            raise InvalidFileError(f"{path} is of a training with another {name}; give it a folder of its own")
    try:
        training.network.load_state_dict(_below(tensors, WEIGHTS))
        for i, theta in enumerate(training.thetas):
            theta.load_state_dict({"logits": tensors[f"theta.{i}"]})
        training.generator.set_state(tensors["generator"])
        for name, optimizer in _optimizers(training).items():
            state: dict[int, dict[str, Tensor]] = {}
            for full, tensor in _below(tensors, f"{name}.").items():
                index, _, key = full.partition(".")
                state.setdefault(int(index), {})[key] = tensor
            optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        training.history = _history(facts)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InvalidFileError(f"{path} cannot be restored ({error!r}); delete it to train afresh") from error


def read_history(path: Path) -> list[EpochReport]:
    """Reports of the epochs that a checkpoint has; raises `InvalidFileError` where it is none."""
    try:
        with safe_open(path, framework="pt") as file:
            return _history(json.loads(file.metadata()[KEY]))
    except Exception as error:
        raise _no_checkpoint(path, error) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state of a `SharedNetwork` from a checkpoint; raises `InvalidFileError` where it is none."""
    return _below(_read(path)[0], WEIGHTS)


def read_logits(path: Path) -> list[list[float]]:
    """θ of each goal from a checkpoint, (options,) each; raises `InvalidFileError` where it is none."""
    thetas = _below(_read(path)[0], "theta.")
    return [thetas[str(i)].tolist() for i in range(len(thetas))]


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()[KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise _no_checkpoint(path, error) from error
    return tensors, facts


def _no_checkpoint(path: Path, error: Exception) -> InvalidFileError:
    return InvalidFileError(f"{path} is no checkpoint of a supernet: {error!r}")


def _history(facts: Mapping[str, Any]) -> list[EpochReport]:
    reports = facts["history"]
    return [EpochReport(**{**report, "expected_costs": tuple(report["expected_costs"])}) for report in reports]


def _facts(training: SupernetTraining) -> dict[str, Any]:
    """What must be alike for a training to go on."""
    facts = {
        "space": training.space.key,
        "recipe": training.recipe.model_dump(),
        "goals": [describe(term) for term in training.terms],
        "seed": training.seed,
        "images": len(training.dataset.train),
    }
    plain: dict[str, Any] = json.loads(json.dumps(facts))
    return plain


def _optimizers(training: SupernetTraining) -> Mapping[str, torch.optim.Optimizer]:
    thetas = {f"theta_optimizer{i}": optimizer for i, optimizer in enumerate(training.theta_optimizers)}
    return {"weights_optimizer": training.weights_optimizer, **thetas}


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
