"""What an inverted-residual space offers for each image size, and its hand-designed reference."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """What one stage offers; ``reference`` is the (expansion, width, depth) of the hand-designed network."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    stride: int
    reference: tuple[int, int, int]
    expansions: tuple[int, ...] = (1, 3, 6)


@dataclass(frozen=True, slots=True)
class Skeleton:
    """What is not searched, and the options of the rest; the largest image side it is meant for."""

    max_side: int
    stem_widths: tuple[int, ...]
    stem_stride: int
    stages: tuple[Stage, ...]
    head_widths: tuple[int, ...]
    kernels: tuple[int, ...]
    stem_reference: int
    head_reference: int


SKELETONS = (
    Skeleton(
        max_side=16,
        stem_widths=(8, 16),
        stem_stride=1,
        stages=(
            Stage((8, 16), (1,), 1, (1, 16, 1), expansions=(1, 3)),
            Stage((16, 24, 32), (1, 2), 2, (6, 24, 2)),
            Stage((24, 32, 40), (1, 2, 3), 1, (6, 32, 3)),
            Stage((32, 48, 64), (1, 2, 3), 2, (6, 64, 3)),
        ),
        head_widths=(64, 128, 192),
        kernels=(3, 5),
        stem_reference=16,
        head_reference=192,
    ),
    Skeleton(
        max_side=64,
        stem_widths=(8, 16, 24),
        stem_stride=2,
        stages=(
            Stage((8, 16, 24), (1,), 1, (1, 16, 1), expansions=(1, 3)),
            Stage((16, 24, 32), (1, 2, 3), 1, (6, 24, 2)),
            Stage((24, 32, 40, 48), (1, 2, 3), 2, (6, 32, 3)),
            Stage((48, 64, 80, 96), (1, 2, 3, 4), 2, (6, 64, 4)),
            Stage((64, 96, 128), (1, 2, 3), 1, (6, 96, 3)),
        ),
        head_widths=(128, 256, 384),
        kernels=(3, 5),
        stem_reference=16,
        head_reference=384,
    ),
    Skeleton(
        max_side=512,
        stem_widths=(16, 24, 32),
        stem_stride=2,
        stages=(
            Stage((8, 16, 24), (1,), 1, (1, 16, 1), expansions=(1, 3)),
            Stage((16, 24, 32), (1, 2, 3), 2, (6, 24, 2)),
            Stage((24, 32, 40), (1, 2, 3, 4), 2, (6, 32, 3)),
            Stage((48, 64, 80), (1, 2, 3, 4), 2, (6, 64, 4)),
            Stage((72, 96, 112), (1, 2, 3, 4), 1, (6, 96, 3)),
            Stage((120, 160, 192), (1, 2, 3, 4), 2, (6, 160, 3)),
            Stage((240, 320), (1,), 1, (6, 320, 1)),
        ),
        head_widths=(640, 960, 1280),
        kernels=(3, 5, 7),
        stem_reference=32,
        head_reference=1280,
    ),
)
