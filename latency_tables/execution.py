"""How a device runs a precision, in words."""

from __future__ import annotations

from typing import Literal

Execution = Literal["native", "emulated", "stored only"]
"""How a device runs a precision.

``native``: by a kernel of that very precision. ``stored only``: by the kernel of a wider type, so it saves bytes but no
time. ``emulated``: it needs extra steps, such as turning integers back to float32 at every inference.
"""
