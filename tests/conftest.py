"""One thread for torch and for linear algebra: matrices are small, and what measures latency shares the cores."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import threadpoolctl
import torch

from tests.search.fixtures import finished_run, registered

torch.set_num_threads(1)
threadpoolctl.threadpool_limits(1, user_api="blas")
gc.set_threshold(20_000, 20, 20)  # millions of small objects come and go, hardly any of them in circles


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--space", metavar="FILE", help="A space of one's own, for tests/contracts/test_own_space.py.")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if collection_path.name == "test_own_space.py" and not config.getoption("--space") else None


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished small run, one for all tests: copy it before changing it."""
    return finished_run(tmp_path_factory.getbasetemp())


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[Path]:
    """The user's devices: the synthetic one."""
    with registered(tmp_path / "devices") as folder:
        yield folder
