"""Arrays that grow: what is added is copied once, and now and then all of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Grown:
    """An array to whose first axis more is added.

    Args:
        start: What is there at first, with the other axes and the type of all that follows.
    """

    def __init__(self, start: NDArray[Any] | None = None) -> None:
        self._array = start
        self._length = 0 if start is None else len(start)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, key: Any) -> NDArray[Any]:
        return np.asarray(self.all[key])

    @property
    def all(self) -> NDArray[Any]:
        """What is there; a view."""
        assert self._array is not None
        return self._array[: self._length]

    def add(self, more: NDArray[Any]) -> None:
        """Copies ``more`` behind what is there."""
        end = self._length + len(more)
        if self._array is None or end > len(self._array):
            room = np.empty((2 * end, *more.shape[1:]), dtype=more.dtype if self._array is None else self._array.dtype)
            if self._length:
                room[: self._length] = self.all
            self._array = room
        self._array[self._length : end] = more
        self._length = end
