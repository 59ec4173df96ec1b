"""What a user's module may be like: its files, its precision, what it returns, what only trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from hwnas.search.distillation import teaching
from hwnas.search.finals import load_network, weights_file
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.errors import InvalidFileError, InvalidSpaceError
from hwnas.spaces.traced.model import load_model, trace_model
from hwnas.spaces.traced.weights import Evidence, compressed
from tests.spaces.traced.models import CLASSES, SHAPE, settled


class Plain(nn.Module):
    """Convolutions with normalisations of another epsilon; the last two layers have one weight."""

    def __init__(self, returns: str = "tensor") -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16, eps=1e-1), nn.ReLU(), nn.Dropout(0.2))
        self.one, self.two = nn.Conv2d(16, 16, 1, bias=False), nn.Conv2d(16, 16, 1, bias=False)
        self.two.weight = self.one.weight
        self.head = nn.Linear(16, CLASSES)
        self.returns = returns

    def forward(self, x: Tensor) -> Any:
        y = self.head(self.two(torch.relu(self.one(self.first(x)))).mean((2, 3)))
        return {"dict": {"logits": y}, "tuple": (y,), "pair": (y, y)}.get(self.returns, y)


class Brief(Plain):
    """With a buffer of a type that files of ONNX are not written of."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.ones(3, 1, 1, dtype=torch.bfloat16))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - self.mean)


class Counting(Plain):
    """Counts how often it ran."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("runs", torch.zeros(()))

    def forward(self, x: Tensor) -> Any:
        self.runs += 1
        return super().forward(x)


class TwoInputs(Plain):
    """Wants more than images."""

    def forward(self, x: Tensor, y: Tensor) -> Any:  # type: ignore[override]
        return super().forward(x) + y


class Careful(nn.Module):
    """Attention that computes its weights in float32, whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.head = nn.Conv2d(3, 16, 8, 8), nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        weights = torch.softmax(tokens @ tokens.transpose(1, 2), dim=-1, dtype=torch.float32)
        return self.head((weights @ tokens).mean(1))


def test_a_trained_network_is_the_same_after_it_was_written(tmp_path: Path) -> None:
    """Epsilons are the model's, not torch's."""
    model = trace_model(settled(Plain()), torch.zeros(1, *SHAPE))
    space = model.space({})
    candidate = Candidate(space.reference())
    network = compressed(space, candidate, model.state, Evidence({}))
    path = tmp_path / "weights.safetensors"
    path.write_bytes(weights_file(network, candidate))
    x = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(load_network(space, candidate, path)(x), network(x))


@pytest.mark.parametrize("returns", ["dict", "tuple"])
def test_one_tensor_may_come_in_a_container(returns: str) -> None:
    assert trace_model(Plain(returns), torch.zeros(1, *SHAPE)).graph.output.shape == (CLASSES,)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Plain("pair"), "must return one tensor, not 2"),
        (Plain().half(), r"in float32, and its first.0.weight is torch.float16: call .float\(\)"),
        (Brief(), r"in float32, and its mean is torch.bfloat16: call .float\(\)"),
        (Counting(), "changes its runs when it runs"),
        (TwoInputs(), "must read one tensor of images"),
    ],
)
def test_what_cannot_be_a_model_is_said(module: nn.Module, message: str) -> None:
    with pytest.raises(InvalidSpaceError, match=message):
        trace_model(module, torch.zeros(1, *SHAPE))


def test_a_function_must_be_named() -> None:
    with pytest.raises(InvalidSpaceError, match=r"'tests\.spaces\.traced\.models' names no function"):
        load_model("tests.spaces.traced.models", None, SHAPE, {})


def test_files_of_tied_weights_have_one_or_all(tmp_path: Path) -> None:
    module, path = settled(Plain()), tmp_path / "weights.safetensors"
    here = f"{__name__}:Plain"
    images = torch.zeros(1, *SHAPE)
    expected = trace_model(module, images).state
    save_model(module, path)
    assert all(torch.equal(t, expected[n]) for n, t in load_model(here, path, SHAPE, {}).state.items())
    tensors = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    save_file(tensors, path)
    assert all(torch.equal(t, expected[n]) for n, t in load_model(here, path, SHAPE, {}).state.items())
    for changed in ({"other": torch.zeros(1)}, {"head.bias": None}):
        save_file({n: t for n, t in (tensors | changed).items() if t is not None}, path)
        with pytest.raises(InvalidFileError, match=next(iter(changed))):
            load_model(here, path, SHAPE, {})


def test_dropout_is_named_as_what_fine_tuning_lacks() -> None:
    model = trace_model(Plain(), torch.zeros(1, *SHAPE))
    assert "dropout of 20%" in model.space({}).left["first.3"]


def test_a_space_in_which_all_weights_are_shared_is_refused() -> None:
    with pytest.raises(InvalidSpaceError, match="must leave 32 among the bits and shared"):
        trace_model(Plain(), torch.zeros(1, *SHAPE)).space({"shared": [2, 4]})


def test_a_teacher_that_asks_for_floats_answers_in_floats() -> None:
    model = trace_model(settled(Careful()), torch.zeros(1, *SHAPE))
    x = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(teaching(model.network)(x), model.network(x), rtol=0.1, atol=0.05)
