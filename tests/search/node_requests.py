"""What is asked of nodes in tests, and who hears how it goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hwnas.latency_tables.profiler import Plan
from hwnas.latency_tables.timing import Protocol
from hwnas.predictors.registration_request import RegistrationRequest
from hwnas.search.observer import Observer
from hwnas.spaces import load_space

NAME = "board"
LENIENT = Protocol(rounds=2, burst_s=0.001, min_runs=2, warmup_runs=1, max_spread=1e9)
PLAN = Plan(seconds=0.1, checks=3, min_networks=20, max_networks=24, profiled_networks=0, protocol=LENIENT)
IMPOSSIBLE = replace(LENIENT, max_spread=-1.0, patience=1, max_wait_s=0.0)


def asked(**changes: Any) -> RegistrationRequest:
    spec = load_space("mbconv", input_shape=(1, 8, 8), num_classes=10, joint=()).spec
    return replace(RegistrationRequest(NAME, spec, plan=PLAN), **changes)


class Heard(Observer):
    """Keeps what it hears; ``then`` is called after each progress that comes from the node."""

    def __init__(self, then: Callable[[str], object] = lambda _: None) -> None:
        self.texts: list[str] = []
        self.notes: list[str] = []
        self.then = then

    def progress(self, text: str, share: float) -> None:
        assert 0 <= share <= 1
        self.texts.append(text)
        if len(self.texts) > 1:
            self.then(text)

    def note(self, text: str) -> None:
        self.notes.append(text)
