"""One kit for all tests, and what one board measured with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from .kits import tiny_kit


@pytest.fixture(scope="session")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_kit(tmp_path_factory.mktemp("kit") / "kit.zip")
