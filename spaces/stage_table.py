"""Stage tables: networks and spaces written down as their papers do, one line per stage.

A network's table gives one value for everything. Where a space has a choice, its table gives a list. What is not known
here, such as published figures, is kept out of the way under the keys of `NOTES`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from hwnas.spaces.errors import InvalidFileError

T = TypeVar("T")
NOTES = ("published", "published_unsure_keys", "computed", "source", "note", "model_zoo_readme", "title")
Word = Literal["relu", "relu6", "hswish", "none"]
Gate = Literal["sigmoid", "hsigmoid"]


def _listed(given: Any) -> Any:
    return given if isinstance(given, list) else [given]


Many = Annotated[list[T], BeforeValidator(_listed), Field(min_length=1)]
Channels = Annotated[int, Field(ge=1, le=65536)]
Kernel = Annotated[Literal[1, 3, 5, 7, 9], Field()]
Expansion = Annotated[int, Field(ge=1, le=32)]
Groups = Annotated[int, Field(ge=1, le=64)]
Squeeze = Annotated[float, Field(ge=0, le=1)]
Skip = bool | Literal["pool"]
Stride = Literal[1, 2, 4]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Convolution(_Part):
    """The first or the last convolution."""

    op: Literal["conv"] = "conv"
    kernel: Kernel = 3
    channels: Many[Channels]
    stride: Stride = 1
    activation: Word | None = None
    grows_only: bool = False


class Block(_Part):
    """One way to make a block, under a name."""

    op: Literal["mbconv", "conv", "skip"] = "mbconv"
    kernel: Kernel = 3
    expansion: Expansion = 1
    groups: Groups = 1
    se: Squeeze = 0.0
    residual: Skip = True


class Stage(_Part):
    """A row of blocks of equal output channels; the stride is the first one's.

    Attributes:
        block: Names among `StageTable.blocks`; instead of ``op`` to ``residual``.
        shared: Whether all blocks of the stage share their choices.
    """

    op: Many[Literal["mbconv", "conv", "skip"]] = ["mbconv"]
    block: list[str] | None = None
    kernel: Many[Kernel] = [3]
    expansion: Many[Expansion] = [6]
    groups: Many[Groups] = [1]
    se: Many[Squeeze] = [0.0]
    residual: Many[Skip] = [True]
    channels: Many[Channels]
    repeats: Many[Annotated[int, Field(ge=1, le=64)]] = [1]
    stride: Stride = 1
    activation: Word | None = None
    shared: bool = False

    @model_validator(mode="after")
    def _one_description(self) -> Stage:
        if self.block is not None and (more := self.model_fields_set & set(Block.model_fields)):
            raise ValueError(f"give either block or {', '.join(sorted(more))}")
        return self


class Classifier(_Part):
    """The last layer; its channels are those before it."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    inputs: int | None = Field(None, alias="in")
    outputs: int | None = Field(None, alias="out")
    bias: Literal[True] = True


class StageTable(_Part):
    """A space, or a network where nothing is a list.

    Attributes:
        input: Channels, height, width.
        act: Activation wherever a stage does not say another.
        se_of: What squeeze-excite ratios are a share of: the block's input channels or its hidden ones.
        gate: Activation of squeeze-excite's gates.
        blocks: Ways to make a block, by name.
        resolution: Longer sides of the image.
        width_multiplier: Factors on all channels but the classifier's, see `hwnas.spaces.blocks.shapes.scaled`.
        mix: A 1×1 layer after the pooling (MobileNetV3).
    """

    input: tuple[int, int, int] | None = None
    act: Word = "relu"
    se_of: Literal["input", "hidden"] = "input"
    gate: Gate = "sigmoid"
    blocks: dict[str, Block] = {}
    resolution: list[Annotated[int, Field(ge=8, le=1024)]] | None = None
    width_multiplier: Many[Annotated[float, Field(gt=0, le=8)]] = [1.0]
    stem: Convolution
    stages: Annotated[list[Stage], Field(min_length=1, max_length=64)]
    head: Convolution | None = None
    mix: Convolution | None = None
    classifier: Classifier | None = None

    @model_validator(mode="after")
    def _reads_what_is_written(self) -> StageTable:
        """The classifier's input channels are those of the layer before it, where the table gives both."""
        last = self.mix or self.head or self.stages[-1]
        given = self.classifier.inputs if self.classifier else None
        if given is not None and last.channels != [given]:
            raise ValueError(f"the classifier reads {given} channels, but {last.channels} are written before it")
        return self


def read_table(given: Mapping[str, Any], where: str) -> StageTable:
    """The table, checked; `NOTES` are left out.

    Raises:
        InvalidFileError: What is wrong, and at which key.
    """
    try:
        return StageTable.model_validate({k: v for k, v in given.items() if k not in NOTES})
    except ValidationError as error:
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")  # a key misspelt is missing, too
        raise InvalidFileError(f"{where}: {_told(first)}") from error


_KEYS = {name for part in (Convolution, Block, Stage, Classifier, StageTable) for name in part.model_fields}


def _told(error: Any) -> str:
    """One of pydantic's errors: at which key, what, and what may be meant."""
    at = ".".join(map(str, error["loc"]))
    if error["type"] == "missing":
        return f"{at}: this key is missing"
    if error["type"] == "extra_forbidden":
        given = str(error["loc"][-1])
        near = difflib.get_close_matches(given, _KEYS - {given}, n=1, cutoff=0.6)
        return f"{at}: there is no such key here" + (f"; did you mean {near[0]!r}?" if near else "")
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    return f"{at}: {error['msg']} (got {error['input']!r})"
