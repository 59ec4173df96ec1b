"""Sessions of a search on a toy space, opened as a run does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas.search import Goal, Objective, make_controller
from hwnas.search.ledger import Ledger
from hwnas.search.session import SearchSession
from hwnas.spaces import Space
from hwnas.spaces.space import Rows

from .fixtures import bare_space

TRIALS = 3
CONTROLLERS = {"random": {}, "evolution": {"population": 2, "tournament": 2}}
every_controller = pytest.mark.parametrize("name", CONTROLLERS)


SPACE = bare_space(4, 4, 4, 4, 4)


def cost(rows: Rows) -> dict[str, np.ndarray]:
    total = 1.0 + np.atleast_2d(rows).sum(axis=1)
    return {"latency_ms": total, "macs": 2 * total}


def open_session(
    folder: Path, name: str = "evolution", space: Space | None = None, trials: int = TRIALS, **options: Any
) -> SearchSession:
    """As a run does at its start and at every resume."""
    space = space or SPACE
    controller = make_controller(name, space, Objective(cost, (Goal(8.0),)), 5, **CONTROLLERS[name])  # type: ignore[arg-type]
    ledger = Ledger(folder / "optuna.db", space, "latency_ms")
    return SearchSession(controller, ledger, folder / "controller.json", trials=trials, **options)
