"""What tests of the command share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.search.fixtures import small_search


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line of an expected error."""
        assert self.code == 2, (self.out, self.err)
        assert "Traceback" not in self.err
        (line,) = self.err.splitlines()
        assert line.startswith("hwnas: ")
        return line.removeprefix("hwnas: ")


Hwnas = Callable[..., Answer]


def write_search(path: Path, **sections: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(small_search(**sections).model_dump(mode="json")))
    return path
