"""What hwnas knows of ATen operations that have no kind of their own. Needs no torch."""

from __future__ import annotations

ACTIVATIONS = {
    "aten.relu.default": "relu",
    "aten.hardswish.default": "hswish",
    "aten.hardsigmoid.default": "hsigmoid",
    "aten.sigmoid.default": "sigmoid",
    "aten.silu.default": "silu",
    "aten.tanh.default": "tanh",
}
VIEWS = frozenset({"aten.view.default", "aten.reshape.default", "aten._unsafe_view.default"})
"""Operations that give the values that they read, in this order, in another shape."""
SAME = frozenset(
    f"aten.{name}.default" for name in ("clone", "alias", "contiguous", "detach", "lift_fresh_copy", "dropout")
)
"""Operations that give the values that they read."""
ELEMENTWISE = frozenset(
    f"aten.{name}"
    for name in (
        "mul.Tensor", "sub.Tensor", "div.Tensor", "add.Tensor", "maximum.default", "minimum.default", "mul.Scalar",
        "leaky_relu.default", "elu.default", "clamp.default", "softplus.default", "mish.default", "gelu.default",
        "neg.default", "exp.default", "hardtanh.default", "pow.Tensor_Scalar", "abs.default",
    )
)  # fmt: skip
"""Operations that compute each value from those in the same place of tensors of one shape, or from numbers."""
SPATIAL = frozenset(
    f"aten.{name}"
    for name in (
        "max_pool2d.default", "avg_pool2d.default", "adaptive_avg_pool2d.default", "upsample_nearest2d.vec",
        "upsample_bilinear2d.vec", "upsample_bicubic2d.vec", "_upsample_nearest_exact2d.vec",
    )
)  # fmt: skip
"""Operations on each map by itself."""
