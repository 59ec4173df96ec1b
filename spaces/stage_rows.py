"""The blocks of a published network, one by one, from its stage table."""

from __future__ import annotations

from dataclasses import dataclass

from hwnas.spaces.blocks.residual import Residual
from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.stage_table import StageTable


@dataclass(frozen=True, slots=True)
class Row:
    """One block of a network.

    Attributes:
        starts: Whether it has a stride or other channels than the block before, so that it adds nothing to its input.
        activation: None where the table states none.
    """

    op: str
    kernel: int
    expansion: int
    groups: int
    se: float
    residual: Residual
    channels: int
    stride: int
    starts: bool
    activation: str | None

    def __str__(self) -> str:
        if self.op == "conv":
            return f"convolution {self.kernel}×{self.kernel} to {self.channels} channels, stride {self.stride}"
        groups = f", {self.groups} groups" if self.groups > 1 else ""
        squeeze = f", squeeze-excite {self.se:g}" if self.se else ""
        alone = {True: "", False: ", without residual", "pool": ", residual pooled"}[self.residual]
        return (
            f"{self.kernel}×{self.kernel}, expansion {self.expansion}{groups}{squeeze}, to {self.channels} channels, "
            f"stride {self.stride}{alone}"
        )


def stated_activation(network: StageTable, own: str | None) -> str | None:
    """That of a layer, whose own may be None: the table's, or None where the table does not state it either."""
    return own or (network.act if "act" in network.model_fields_set else None)


def rows_of(network: StageTable, where: str = "the network") -> list[Row]:
    """The blocks of a network in order; those that are skipped are no blocks.

    Raises:
        InvalidSpaceError: It is no network: a choice, a factor on channels, or a block that is skipped where channels
            or the stride would change.
    """
    if network.width_multiplier != [1.0] or network.resolution:
        raise InvalidSpaceError(f"{where}: give its own channels and input, not width_multiplier or resolution")
    for name, layer in (("stem", network.stem), ("head", network.head), ("mix", network.mix)):
        if layer is not None and len(layer.channels) > 1:
            raise InvalidSpaceError(f"{where}: {name} has a choice of channels; a network's table gives one number")
    rows: list[Row] = []
    channels = network.stem.channels
    for number, stage in enumerate(network.stages, 1):
        lists = {"op", "kernel", "expansion", "groups", "se", "residual", "channels", "repeats"}
        if stage.block or any(len(getattr(stage, name)) > 1 for name in lists):
            raise InvalidSpaceError(f"{where}: stage {number} has a choice; a network's table gives one value for each")
        if stage.op == ["skip"]:
            if stage.stride > 1 or stage.channels != channels:
                raise InvalidSpaceError(f"{where}: stage {number} is skipped, but changes channels or has a stride")
            continue
        activation = stated_activation(network, stage.activation)
        for index in range(stage.repeats[0]):
            stride = stage.stride if index == 0 else 1
            rows.append(
                Row(stage.op[0], stage.kernel[0], stage.expansion[0], stage.groups[0], stage.se[0], stage.residual[0],
                    stage.channels[0], stride, stride > 1 or stage.channels != channels, activation)
            )  # fmt: skip
            channels = stage.channels
    return rows
