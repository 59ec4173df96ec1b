"""The controller that CONTRIBUTING.md shows keeps the contract, as it stands there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from hwnas.search.controllers import controller

from .controller_contract import ControllerContract

TEXT = (Path(__file__).resolve().parents[2] / "CONTRIBUTING.md").read_text()


class TestHillClimbing(ControllerContract):
    name = "hill_climbing"

    @pytest.fixture(autouse=True)
    def known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        (code,) = (c for c in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if "class HillClimbing" in c)
        module = ModuleType("hwnas.search.controllers.hill_climbing")
        exec(code, module.__dict__)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(controller.CONTROLLERS, self.name, "hill_climbing:HillClimbing")
