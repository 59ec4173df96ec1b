"""Another process, in which strings have other hashes; one for all spaces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

OtherProcess = Callable[[Mapping[str, Any], Sequence[str]], tuple[int, list[str], list[str]]]
"""For a space's spec and candidates as JSON: the hash of a string, and digests of networks drawn and of those given."""
CODE = """
import json, sys, numpy as np
from hwnas.spaces import Candidate
from hwnas.spaces.catalog import space_from_spec
for line in sys.stdin:
    spec, candidates = json.loads(line)
    space = space_from_spec(spec)
    drawn = [space.decode(r).digest for r in space.sample(np.random.default_rng(5), 10)]
    read = [Candidate.from_json(c).digest for c in candidates]
    print(json.dumps([hash('hwnas'), drawn, read]), flush=True)
"""


@pytest.fixture(scope="session")
def other_process() -> Iterator[OtherProcess]:
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    with subprocess.Popen(
        [sys.executable, "-c", CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONHASHSEED": seed},
    ) as process:  # fmt: skip
        assert process.stdin
        assert process.stdout
        asked, answers = process.stdin, process.stdout

        def ask(spec: Mapping[str, Any], candidates: Sequence[str]) -> tuple[int, list[str], list[str]]:
            asked.write(json.dumps([spec, candidates]) + "\n")
            asked.flush()
            string_hash, drawn, read = json.loads(answers.readline())
            return string_hash, drawn, read

        yield ask
