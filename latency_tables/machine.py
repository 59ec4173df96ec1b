"""What this machine is: facts that a measured figure depends on.

Needs the standard library alone, and has psutil where it is installed: measuring kits carry it to boards.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path

try:
    import psutil
except ImportError:  # on boards that a measuring kit is carried to
    psutil = None  # type: ignore[assignment]


def machine_facts() -> dict[str, str]:
    """Processor, cores, memory, operating system."""
    return {
        "processor": processor_name(),
        "cores": f"{_cores() or os.cpu_count()} ({os.cpu_count()} threads)",
        "memory": _memory(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cores() -> int | None:
    """Physical cores; without psutil as Linux lists them."""
    if psutil is not None:
        return psutil.cpu_count(logical=False)
    siblings = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/topology/thread_siblings_list")
    return len({path.read_text() for path in siblings}) or None


def _memory() -> str:
    if psutil is not None:
        total = psutil.virtual_memory().total
    elif hasattr(os, "sysconf"):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        return "unknown"
    return f"{total / 2**30:.0f} GiB"


def same_machine(facts: Mapping[str, str]) -> bool:
    """Whether facts recorded earlier are those of this machine."""
    return all(facts.get(name) == value for name, value in machine_facts().items())


def processor_name() -> str:
    """The processor's name as the system gives it, with the vector instructions that matter to integer kernels."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    fields = dict(
        line.split(":", 1) for line in info.read_text(encoding="utf-8", errors="replace").splitlines() if ":" in line
    )
    values = {key.strip(): value.strip() for key, value in fields.items()}
    flags = values.get("flags", values.get("Features", "")).split()
    notable = [f for f in ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm") if f in flags]
    name = values.get("model name", values.get("Model", platform.machine()))
    return f"{name} ({', '.join(notable)})" if notable else name
