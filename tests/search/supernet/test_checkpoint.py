"""A training of a supernet goes on from its checkpoint, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hwnas.search.supernet.checkpoint import load_checkpoint, save_checkpoint
from hwnas.search.supernet.cost_terms import HingeTerm
from hwnas.search.supernet.training import SupernetTraining
from hwnas.spaces.errors import DiskFullError, HwnasError, InvalidFileError

from .toys import recipe, toy_images, training


def state(made: SupernetTraining, path: Path) -> bytes:
    save_checkpoint(made, path)
    return path.read_bytes()


@pytest.mark.parametrize(("mode", "joint"), [("mixture", ()), ("single path", ("bits",))])
def test_a_resumed_training_equals_one_that_was_not_interrupted(
    mode: str, joint: tuple[str, ...], tmp_path: Path
) -> None:
    own = recipe(mode)
    whole, first = training(own, joint=joint), training(own, joint=joint)
    for _ in range(2):
        whole.train_epoch()
        first.train_epoch()
    save_checkpoint(first, tmp_path / "first")
    torch.manual_seed(99)
    second = training(own, joint=joint)
    load_checkpoint(second, tmp_path / "first")
    assert second.epoch == 2
    whole.train_epoch()
    second.train_epoch()
    assert state(second, tmp_path / "second") == state(whole, tmp_path / "whole")
    assert second.history == whole.history


def test_other_trainings_and_damaged_files_are_not_resumed(tmp_path: Path) -> None:
    path = tmp_path / "supernet.safetensors"
    made = training()
    made.train_epoch()
    save_checkpoint(made, path)
    for other, word in (
        (training(recipe(epochs=4)), "recipe"),
        (training(seed=1), "seed"),
        (training(terms=[HingeTerm("latency_ms", 3.0)]), "goals"),
        (training(joint=("bits",)), "space"),
        (training(data=toy_images(96)), "images"),
    ):
        with pytest.raises(InvalidFileError, match=f"of a training with another {word}"):
            load_checkpoint(other, path)
    whole = path.read_bytes()
    for damaged in (b"", whole[:100], whole[:-10], b"x" * 50):
        path.write_bytes(damaged)
        with pytest.raises(HwnasError, match="is no checkpoint of a supernet"):
            load_checkpoint(training(), path)
    with pytest.raises(HwnasError, match="is no checkpoint"):
        load_checkpoint(training(), tmp_path / "none")


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "supernet.safetensors"
    made = training()
    before = state(made, path)
    made.train_epoch()

    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hwnas.search.supernet.checkpoint.save_file", full)
    with pytest.raises(DiskFullError, match="no room on the disk"):
        save_checkpoint(made, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
