"""One search at a time in one run folder."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from hwnas.search.run_folder import Run
from hwnas.search.run_lock import held
from hwnas.spaces.errors import UnavailableError

from .fixtures import small_search


@pytest.mark.usefixtures("devices")
def test_a_folder_is_held_by_one_process_and_free_when_that_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ready, tell = os.pipe()
    other = os.fork()
    if other == 0:
        with held(folder):
            os.write(tell, b"held")
            signal.pause()
    try:
        assert os.read(ready, 4) == b"held"
        said = rf"another search is running in .*run \(process {other} on .*\); wait until it has ended, or give"
        with pytest.raises(UnavailableError, match=said), held(folder):
            pass
        with pytest.raises(UnavailableError, match=said):
            Run.create(folder, small_search())
        assert not (folder / "config.yaml").exists()
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
    with held(folder):
        pass
    Run.create(folder, small_search())
    assert (folder / "config.yaml").exists()
