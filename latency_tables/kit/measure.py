"""Measures this board. Needs Python 3.9 or newer with numpy and onnxruntime; README.txt says more.

This file and the folder `hwnas` beside it come from a measuring kit.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path


def main() -> int:
    """Runs the command line; the exit status."""
    if sys.version_info < (3, 9):  # noqa: UP036
        print("This kit needs Python 3.9 or newer", file=sys.stderr)
        return 2
    missing = [name for name in ("numpy", "onnxruntime") if find_spec(name) is None]
    if missing:
        print(f"This kit needs {' and '.join(missing)}: run 'pip install {' '.join(missing)}'", file=sys.stderr)
        return 2
    folder = Path(__file__).resolve().parent
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    from hwnas.latency_tables.kit.command import run

    return run(folder, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
