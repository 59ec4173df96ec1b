"""The exported file keeps its promise, and a file that does not is never left behind."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from hwnas.latency_tables.machine import machine_facts
from hwnas.latency_tables.runtimes.base import KernelClass
from hwnas.latency_tables.runtimes.onnxruntime import OnnxRuntime
from hwnas.search.export import (
    AGREEMENT_IMAGES,
    Agreement,
    ExportError,
    check_file,
    export_network,
    export_runtime,
    file_accuracy,
)
from hwnas.search.training import Recipe, Trainer, accuracy
from hwnas.spaces import Candidate
from hwnas.spaces.errors import UnavailableError
from hwnas.spaces.network import Network
from hwnas.spaces.onnx_graph import snap_biases, weight_bytes
from hwnas.spaces.units import ConvUnit

from .fixtures import digits, digits_space, synthetic_device, thin_row


class OnlyFloats(OnnxRuntime):
    """A runtime that says of every kernel that it computes in float32."""

    def kernel_class(self, kernel: str) -> KernelClass:
        return "other"


@cache
def trained() -> tuple[Network, Candidate]:
    """A thin network of 8 bits after two epochs."""
    space = digits_space()
    candidate = space.decode(thin_row(8, 8))
    torch.manual_seed(0)
    trainer = Trainer(space.build(candidate), digits(), Recipe(epochs=2, batch_size=32, learning_rate=0.02), 0)
    for _ in range(2):
        trainer.train_epoch()
    network = trainer.calibrated()
    snap_biases(network)
    return network, candidate


def export(path: Path, network: Network | None = None, runtime: OnnxRuntime | None = None) -> Agreement:
    own, candidate = trained()
    return export_network(
        network or own, candidate, digits_space(), digits(), runtime or export_runtime(synthetic_device()), path
    )


def test_the_file_agrees_on_real_images_and_runs_in_integers(tmp_path: Path) -> None:
    network, _ = trained()
    path = tmp_path / "model.onnx"
    agreement = export(path)
    assert agreement.agrees
    assert agreement.images == AGREEMENT_IMAGES == 256
    assert agreement.same_top1 + agreement.ties == 256
    layers = [o for o in network.workload.operators if o.weights]
    assert agreement.integer_kernels == agreement.integer_layers == len(layers) > 0
    assert agreement.file_bytes == path.stat().st_size
    assert agreement.weight_bytes == network.workload.weight_bytes == weight_bytes(onnx.load(path))
    assert agreement.mean_difference <= agreement.largest_difference < agreement.logit_std
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_as_accurate_as_the_module(tmp_path: Path) -> None:
    network, _ = trained()
    export(tmp_path / "model.onnx")
    runtime = export_runtime(synthetic_device())
    found = file_accuracy(tmp_path / "model.onnx", digits(), digits().test, runtime)
    assert found == pytest.approx(accuracy(network, digits(), digits().test), abs=2.5 / len(digits().test))
    assert found > 0.3


def test_the_file_alone_says_how_to_use_it(tmp_path: Path) -> None:
    """With nothing but the file: what to feed it, what its outputs are called, and which network it is."""
    _, candidate = trained()
    export(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    notes = session.get_modelmeta().custom_metadata_map
    form = json.loads(notes["normalisation"])
    split = digits().test
    images = (split.images.numpy() * form["scale"] - np.reshape(form["mean"], (-1, 1, 1))) / np.reshape(
        form["std"], (-1, 1, 1)
    )
    (logits,) = session.run(None, {session.get_inputs()[0].name: images.astype(np.float32)})
    classes = json.loads(notes["classes"])
    named = [classes[i] for i in logits.argmax(1)]
    right = np.mean([name == str(label) for name, label in zip(named, split.labels.tolist(), strict=True)])
    assert right == pytest.approx(file_accuracy(tmp_path / "model.onnx", digits(), split, OnnxRuntime()), abs=0.01)
    assert Candidate.from_json(notes["candidate"]) == candidate
    assert json.loads(notes["space"]) == digits_space().spec


def after_negating_a_layer(folder: Path) -> Agreement:
    """An exported file against its module with the last convolution's weights negated since."""
    export(folder / "model.onnx")
    network = copy.deepcopy(trained()[0])
    last = [u for u in network.units.values() if isinstance(u, ConvUnit)][-1]
    with torch.no_grad():
        last.conv.weight.neg_()
    runtime = export_runtime(synthetic_device())
    return check_file(folder / "model.onnx", network, digits(), digits().validation, runtime)


def test_a_module_whose_weights_changed_after_the_export_does_not_agree(tmp_path: Path) -> None:
    agreement = after_negating_a_layer(tmp_path)
    assert not agreement.agrees
    assert agreement.same_top1 < agreement.images / 2
    assert agreement.integer_kernels == agreement.integer_layers


def test_another_class_is_no_tie_where_the_module_was_sure(tmp_path: Path) -> None:
    agreement = after_negating_a_layer(tmp_path)
    assert agreement.same_top1 + agreement.ties < agreement.images


def test_the_slightest_shift_of_every_logit_is_noticed(tmp_path: Path) -> None:
    """No class changes, yet the file is not what the module computes."""
    path = tmp_path / "model.onnx"
    export(path)
    network = copy.deepcopy(trained()[0])
    spread = 0.0
    with torch.no_grad():
        spread = float(network(digits().normalise(digits().validation.images)).std())
        network.units["classifier"].linear.bias += 0.1 * spread
    agreement = check_file(path, network, digits(), digits().validation, export_runtime(synthetic_device()))
    assert agreement.same_top1 + agreement.ties == agreement.images
    assert agreement.mean_difference == pytest.approx(0.1 * spread, rel=0.2)
    assert not agreement.agrees


@pytest.mark.parametrize("before", [None, b"what was there"])
def test_a_failed_check_leaves_no_file_and_what_was_there_as_it_was(before: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "model.onnx"
    if before:
        path.parent.mkdir()
        path.write_bytes(before)
    settings = export_runtime(synthetic_device()).settings()
    with pytest.raises(ExportError, match=r"does not agree .*'integer_kernels': 0"):
        export(path, runtime=OnlyFloats(**settings))  # type: ignore[arg-type]
    assert [p.read_bytes() for p in path.parent.iterdir()] == ([before] if before else [])


def test_a_device_elsewhere_may_have_a_provider_that_is_not_here() -> None:
    device = synthetic_device()
    settings = device.profile.runtime_settings | {"provider": "QNNExecutionProvider", "weights_8bit": "uint8"}
    board = replace(device, profile=device.profile.model_copy(update={"runtime_settings": settings}))
    runtime = export_runtime(board)
    assert (runtime.provider, runtime.weights_8bit) == ("CPUExecutionProvider", "uint8")
    here = board.profile.model_copy(update={"facts": machine_facts()})
    with pytest.raises(UnavailableError, match="no QNNExecutionProvider here"):
        export_runtime(replace(board, profile=here))


@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_weights_that_are_no_numbers_are_not_exported(tmp_path: Path) -> None:
    network = copy.deepcopy(trained()[0])
    with torch.no_grad():
        network.units["classifier"].linear.bias.fill_(float("nan"))
    with pytest.raises(ExportError):
        export(tmp_path / "model.onnx", network)
    assert list(tmp_path.iterdir()) == []


def test_agreement_needs_all_three() -> None:
    good = Agreement(
        images=10,
        same_top1=9,
        ties=1,
        largest_difference=1.0,
        mean_difference=0.02,
        logit_std=1.0,
        integer_layers=4,
        integer_kernels=4,
        file_bytes=1,
        weight_bytes=1,
    )
    assert good.agrees
    for change in ({"same_top1": 8}, {"ties": 0}, {"mean_difference": 0.021}, {"integer_kernels": 3}):
        assert not Agreement(**{name: getattr(good, name) for name in good.__slots__} | change).agrees
