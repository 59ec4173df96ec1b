"""The product: an ONNX file that computes what the torch module computes, on the kernels that were promised."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import torch

from hwnas.latency_tables.device import Device
from hwnas.latency_tables.machine import same_machine
from hwnas.latency_tables.runtimes.onnxruntime import OnnxExecutable, OnnxRuntime
from hwnas.search.datasets import Dataset, Split
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.errors import HwnasError, UnavailableError
from hwnas.spaces.files import replacing
from hwnas.spaces.images import fit
from hwnas.spaces.network import Network
from hwnas.spaces.onnx_graph import to_onnx, weight_bytes
from hwnas.spaces.operator import NETWORK_INPUT
from hwnas.spaces.space import Space

AGREEMENT_IMAGES = 256
TOLERANCE = 0.02
"""Largest mean logit difference, relative to the spread of the logits. Integer kernels add exactly, torch adds in
float32, so a value at a rounding tie may fall on the other side, and a few such steps travel to the logits."""

TIE = 0.1
"""Two best logits closer than this share of the spread of the logits are a tie."""


class ExportError(HwnasError, RuntimeError):
    """The exported file does not compute what the torch module computes."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """The exported file against the torch module on real images.

    Attributes:
        images: How many.
        same_top1: On how many both say the same class.
        ties: On how many of the others the module's two best logits are closer than `TIE` times ``logit_std``.
        largest_difference: Of any logit.
        mean_difference: Of all logits.
        logit_std: Spread of the module's logits, to compare the differences with.
        integer_layers: Layers that should run in integers.
        integer_kernels: Of those, how many ONNX Runtime's optimised graph runs in an integer kernel.
        file_bytes, weight_bytes: Of the file, and of the constants in it.
    """

    images: int
    same_top1: int
    ties: int
    largest_difference: float
    mean_difference: float
    logit_std: float
    integer_layers: int
    integer_kernels: int
    file_bytes: int
    weight_bytes: int

    @property
    def agrees(self) -> bool:
        """Whether the file keeps its promise."""
        same = self.same_top1 + self.ties == self.images
        return (
            same and self.mean_difference <= TOLERANCE * self.logit_std and self.integer_kernels == self.integer_layers
        )


def export_network(
    network: Network, candidate: Candidate, space: Space, dataset: Dataset, runtime: OnnxRuntime, path: Path
) -> Agreement:
    """Writes the network to ``path`` and checks the file; a file that fails the check is not left there.

    The file's metadata hold the candidate, the space (but for a traced model's graph), the classes, and how images are
    normalised.

    Raises:
        ExportError: The file computes something else, or an integer layer does not run in integers.
    """
    metadata = {
        "candidate": candidate.to_json(),
        "space": json.dumps({key: value for key, value in space.spec.items() if key != "graph"}),
        "classes": json.dumps(dataset.classes),
        "normalisation": json.dumps({"scale": 1 / 255, "mean": dataset.mean, "std": dataset.std}),
    }
    model = to_onnx(network, weights_8bit=runtime.weights_8bit, metadata=metadata)
    onnx.checker.check_model(model, full_check=True)
    with replacing(path) as temporary:
        onnx.save(model, temporary)
        agreement = check_file(temporary, network, dataset, dataset.validation, runtime)
        if not agreement.agrees:
            raise ExportError(f"the ONNX file does not agree with the torch module: {asdict(agreement)}")
    return agreement


def check_file(path: Path, network: Network, dataset: Dataset, split: Split, runtime: OnnxRuntime) -> Agreement:
    """Compares an exported file with its torch module on the first 256 images of a split."""
    images = dataset.normalise(split.images[:AGREEMENT_IMAGES])
    with torch.no_grad():
        expected = network.eval()(images).numpy()
    executable = OnnxExecutable(runtime, path, network.input_shape)
    (actual,) = runtime.session(path).run(None, {NETWORK_INPUT: fit(images, network.input_shape[1:]).numpy()})
    difference = np.abs(actual - expected)
    same = actual.argmax(1) == expected.argmax(1)
    ordered = np.sort(expected, axis=1)
    margin = ordered[:, -1] - ordered[:, -2]
    ties = ~same & (margin <= TIE * expected.std())
    times = executable.operator_times(3)
    integer = [o for o in network.workload.operators if o.weights and o.integer]
    classes = [{runtime.kernel_class(k) for k in times[o.name].kernels} for o in integer if o.name in times]
    return Agreement(
        images=len(images),
        same_top1=int(same.sum()),
        ties=int(ties.sum()),
        largest_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        logit_std=float(expected.std()),
        integer_layers=len(integer),
        integer_kernels=sum("integer" in c for c in classes),
        file_bytes=path.stat().st_size,
        weight_bytes=weight_bytes(onnx.load(path)),
    )


def export_runtime(device: Device) -> OnnxRuntime:
    """ONNX Runtime as the device was measured with it, or on this machine's CPU.

    The latter for a device of another runtime, and for another machine whose provider is not here: then 8-bit weights
    are stored as that machine needs them.
    """
    profile = device.profile
    if profile.runtime != OnnxRuntime.name:
        runtime = OnnxRuntime()
        runtime.check_integer_kernels()
        return runtime
    try:
        return OnnxRuntime(**profile.runtime_settings)
    except UnavailableError:
        if same_machine(profile.facts):
            raise
        uint8 = profile.runtime_settings.get("weights_8bit") == "uint8"
        return OnnxRuntime(weights_8bit="uint8" if uint8 else "int8")


def file_accuracy(path: Path, dataset: Dataset, split: Split, runtime: OnnxRuntime) -> float:
    """Share of a split that the exported file itself classifies rightly."""
    session = runtime.session(path)
    height, width = session.get_inputs()[0].shape[2:]
    size, right = (int(height), int(width)), 0
    for start in range(0, len(split), AGREEMENT_IMAGES):
        part = slice(start, start + AGREEMENT_IMAGES)
        images = fit(dataset.normalise(split.images[part]), size)
        (logits,) = session.run(None, {NETWORK_INPUT: images.numpy()})
        right += int((logits.argmax(1) == split.labels[part].numpy()).sum())
    return right / len(split)
