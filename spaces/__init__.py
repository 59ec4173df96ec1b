"""What can be searched: decisions, candidates, slots, operators, and networks built from them."""

from hwnas.spaces.candidate import Candidate
from hwnas.spaces.catalog import load_space
from hwnas.spaces.decision import Decision
from hwnas.spaces.operator import Operator
from hwnas.spaces.slot import Slot, When
from hwnas.spaces.space import Space
from hwnas.spaces.workload import Workload

__all__ = ["Candidate", "Decision", "Operator", "Slot", "Space", "When", "Workload", "load_space"]
