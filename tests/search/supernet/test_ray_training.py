"""Several workers train one supernet on Ray."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from hwnas.search.ray_cluster import cluster
from hwnas.search.supernet.checkpoint import load_checkpoint, read_history
from hwnas.search.supernet.shard import Shard
from hwnas.search.supernet.task import SupernetTask, train_supernet
from hwnas.search.supernet.training import SupernetTraining
from hwnas.spaces.errors import InvalidOptionError, UnavailableError

from .toys import a_task

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_killed_worker_changes_nothing(tmp_path: Path) -> None:
    """Two workers end where two end of which one died; their losses are near those of one, which normalises whole
    batches."""
    from hwnas.search.supernet.ray_training import train_on_ray

    marker = str(tmp_path / "killed")

    class Dying(SupernetTask):
        """The second worker dies in its second epoch, once."""

        def begin(self, shard: Shard | None = None, *, on_gpu: bool = False) -> SupernetTraining:
            training = super().begin(shard, on_gpu=on_gpu)
            whole = training.train_epoch

            def train_epoch() -> object:
                if training.epoch == 1 and training.shard.rank == 1 and not Path(marker).exists():
                    Path(marker).touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                return whole()

            training.train_epoch = train_epoch  # type: ignore[method-assign, assignment]
            return training

    task, heard = a_task(), []
    with cluster(2):
        train_on_ray(task, tmp_path / "whole" / "supernet.safetensors", workers=2, heard=heard.append)
        train_on_ray(Dying(**vars(task)), tmp_path / "killed_once" / "supernet.safetensors", workers=2)
    assert Path(marker).exists()
    whole, killed = ((tmp_path / name / "supernet.safetensors").read_bytes() for name in ("whole", "killed_once"))
    assert whole == killed
    assert [report.epoch for report in heard] == list(range(task.recipe.epochs))
    assert sorted(path.name for path in (tmp_path / "whole").iterdir()) == ["ray", "supernet.safetensors"]
    train_on_ray(task, tmp_path / "whole" / "supernet.safetensors", workers=2)  # asks no cluster: nothing is missing
    together = task.begin(Shard(0, 2))
    load_checkpoint(together, tmp_path / "whole" / "supernet.safetensors")
    alone = train_supernet(task, tmp_path / "alone.safetensors")
    assert len(together.history) == task.recipe.epochs
    for one, other in zip(together.history, alone.history, strict=True):
        assert one.weights_loss == pytest.approx(other.weights_loss, rel=0.1)
    assert together.history[-1].weights_loss < together.history[0].weights_loss


def test_what_a_worker_raises_and_what_the_cluster_lacks_is_said(tmp_path: Path) -> None:
    from hwnas.search.supernet.ray_training import train_on_ray

    task = a_task()
    too_small = replace(task, recipe=task.recipe.model_copy(update={"batch_size": 3}))
    begun = tmp_path / "begun"

    class Counted(SupernetTask):
        def begin(self, shard: Shard | None = None, *, on_gpu: bool = False) -> SupernetTraining:
            with begun.open("a") as file:
                file.write("x" if shard is not None and shard.rank == 0 else "")
            return super().begin(shard, on_gpu=on_gpu)

    with cluster(2):
        with pytest.raises(InvalidOptionError, match="batches of 3 of 48 images are too small for 2 workers"):
            train_on_ray(Counted(**vars(too_small)), tmp_path / "supernet.safetensors", workers=2)
        assert begun.read_text() == "x", "what raises an error is not begun again"
        with pytest.raises(UnavailableError, match=r"a training needs 1 CPU, 1000 GPU of one node"):
            train_on_ray(task, tmp_path / "supernet.safetensors", workers=1, resources={"cpu": 1, "gpu": 1000})
        with pytest.raises(UnavailableError, match=r"3 workers need 1 CPU each, and the Ray cluster has that 2 times"):
            train_on_ray(task, tmp_path / "supernet.safetensors", workers=3)


def test_workers_that_see_another_folder_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hwnas.search.supernet import ray_training

    monkeypatch.setattr(ray_training, "write_text", lambda path, text: path.write_text("of another driver"))
    with (
        cluster(1),
        pytest.raises(UnavailableError, match=r"does not see the driver's folder .* on a file system that"),
    ):
        ray_training.train_on_ray(a_task(), tmp_path / "supernet.safetensors", workers=1)
    assert not (tmp_path / "supernet.safetensors").exists()


def test_an_interrupt_ends_the_training_and_a_resume_goes_on(tmp_path: Path) -> None:
    from hwnas.search.supernet.ray_training import train_on_ray

    class Interrupting:
        def __call__(self, report: object) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    task, path = a_task(), tmp_path / "supernet.safetensors"
    task = replace(task, recipe=task.recipe.model_copy(update={"epochs": 30}))
    with pytest.raises(KeyboardInterrupt), cluster(1):
        train_on_ray(task, path, workers=1, heard=Interrupting())
    assert 0 < len(read_history(path)) < 30
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    heard: list[int] = []
    before = len(read_history(path))
    with cluster(1):
        train_on_ray(task, path, workers=1, heard=lambda report: heard.append(report.epoch))
    assert heard == list(range(before, 30))
