"""What this machine is: facts that a measured figure depends on."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path

import psutil


def machine_facts() -> dict[str, str]:
    """Processor, cores, memory, operating system."""
    return {
        "processor": processor_name(),
        "cores": f"{psutil.cpu_count(logical=False) or os.cpu_count()} ({os.cpu_count()} threads)",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
    }


def same_machine(facts: Mapping[str, str]) -> bool:
    """Whether facts recorded earlier are those of this machine."""
    return all(facts.get(name) == value for name, value in machine_facts().items())


def processor_name() -> str:
    """The processor's name as the system gives it, with the vector instructions that matter to integer kernels."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
    values = {key.strip(): value.strip() for key, value in fields.items()}
    flags = values.get("flags", values.get("Features", "")).split()
    notable = [f for f in ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm") if f in flags]
    name = values.get("model name", values.get("Model", platform.machine()))
    return f"{name} ({', '.join(notable)})" if notable else name
