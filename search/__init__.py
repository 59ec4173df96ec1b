"""Which candidate is next: objectives, controllers, evaluators, runs, export, report."""

from hwnas.search.controllers.controller import Controller, make_controller
from hwnas.search.front import Front
from hwnas.search.goal import Goal
from hwnas.search.objective import Objective
from hwnas.search.run import run_search

__all__ = ["Controller", "Front", "Goal", "Objective", "make_controller", "run_search"]
