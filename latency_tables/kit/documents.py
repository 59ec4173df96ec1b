"""What the files of kits and of their results must look like; nothing in them is believed beyond that."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from hwnas.latency_tables.kit.archive import parse_json
from hwnas.latency_tables.kit.board import plain_text
from hwnas.spaces.errors import InvalidFileError


def _checked_text(text: str) -> str:
    if plain_text(text) != text:
        raise ValueError("holds characters that cannot be shown")
    return text


Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,80}$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_checked_text)]
"""Of one line, and without what a terminal would take for a command."""
Milliseconds = Annotated[float, Field(ge=1e-6, le=1e7, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10**9)]
Index = Annotated[int, Field(ge=0, le=10_000)]


class Document(BaseModel):
    """Data of exact types, without further keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SpaceSpec(Document):
    """See `hwnas.spaces.catalog.space_from_spec`, which checks more."""

    name: Word
    input_shape: tuple[Index, Index, Index]
    num_classes: Annotated[int, Field(ge=2, le=100_000)]
    joint: Annotated[list[Word], Field(max_length=16)]


class KitSettings(Document):
    """What a user chose when the kit was packed."""

    provider: Word
    threads: Annotated[int, Field(ge=1, le=1024)]
    batch: Annotated[int, Field(ge=1, le=4096)]


class BoardSettings(KitSettings):
    """Arguments of `hwnas.latency_tables.runtimes.onnxruntime.OnnxRuntime`."""

    weights_8bit: Literal["int8", "uint8"]


class ProtocolFields(Document):
    """See `hwnas.latency_tables.timing.Protocol`."""

    rounds: Annotated[int, Field(ge=1, le=1000)]
    burst_s: Seconds
    min_runs: Count
    warmup_runs: Count
    max_spread: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    patience: Annotated[int, Field(ge=1, le=1000)]
    max_wait_s: Seconds


class Piece(Document):
    """Networks measured together."""

    role: Literal["fit", "check"]
    networks: Annotated[list[Digest], Field(min_length=1, max_length=100)]


class PlanFile(Document):
    """The content of a kit's ``plan.json``; see `hwnas.latency_tables.kit.pack`."""

    format: Literal[1]
    name: Annotated[str, StringConstraints(max_length=64)]
    space: SpaceSpec
    settings: KitSettings
    protocol: ProtocolFields
    profiled_runs: Count
    minutes: Seconds
    min_networks: Count
    estimate: Text
    input: Word
    anchors: Annotated[list[Digest], Field(min_length=1, max_length=100)]
    pieces: Annotated[list[Piece], Field(min_length=1, max_length=1000)]
    candidates: Annotated[dict[Digest, dict[Word, bool | int | float | Word]], Field(max_length=5000)]


class TimingFields(Document):
    """See `hwnas.latency_tables.timing.Timing`."""

    p50_ms: Milliseconds
    p90_ms: Milliseconds
    spread: Share
    runs: Annotated[int, Field(ge=1, le=10**9)]


class OperatorFields(Document):
    """See `hwnas.latency_tables.runtimes.OperatorTime`."""

    ms: Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)]
    nodes: Annotated[int, Field(ge=0, le=10_000)]
    kernels: Annotated[list[Text], Field(max_length=1000)]


class PieceEntry(Document):
    """What became of the plan's piece of that index."""

    index: Index


class PieceResult(PieceEntry):
    """What was measured of a piece; ``operators`` of the first one alone."""

    timings: Annotated[list[TimingFields], Field(max_length=100)]
    anchors_ms: Annotated[list[Milliseconds], Field(max_length=100)]
    probe_ms: Milliseconds
    operators: Annotated[list[Annotated[dict[Text, OperatorFields], Field(max_length=1000)]], Field(max_length=100)] = (
        Field(default_factory=list)
    )


class Refusal(PieceEntry):
    """A piece whose figures did not repeat."""

    reason: Annotated[str, StringConstraints(max_length=2000)]


class WindowFields(Document):
    """See `hwnas.latency_tables.energy.windows.Window`."""

    item: Annotated[int, Field(ge=-1, le=10_000)]
    start_s: Seconds
    end_s: Seconds
    runs: Annotated[int, Field(ge=1, le=10**9)]


class EnergyProtocolFields(Document):
    """See `hwnas.latency_tables.energy.windows.EnergyProtocol`."""

    rounds: Annotated[int, Field(ge=1, le=1000)]
    window_s: Annotated[float, Field(gt=0, le=1e4, allow_inf_nan=False)]
    settle_s: Seconds
    max_spread: Share


class EnergyFields(Document):
    """Measuring windows for the log of an external power meter."""

    networks: Annotated[list[Digest], Field(min_length=1, max_length=10_000)]
    protocol: EnergyProtocolFields
    windows: Annotated[list[WindowFields], Field(min_length=1, max_length=100_000)]


class ResultsFile(Document):
    """The content of ``results.json``; see `hwnas.latency_tables.kit.command`."""

    format: Literal[1]
    plan: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    facts: Annotated[dict[Text, Text], Field(min_length=1, max_length=32)]
    settings: BoardSettings
    started: Seconds
    finished: Seconds
    seconds: Seconds
    pieces: Annotated[list[PieceResult], Field(min_length=1, max_length=1000)]
    refused: Annotated[list[Refusal], Field(max_length=1000)]
    energy: EnergyFields | None


D = TypeVar("D", bound=Document)


def parse_document(kind: type[D], data: bytes, where: str) -> D:
    """A document from JSON; raises `InvalidFileError` naming the first thing that is wrong with it."""
    parse_json(data, where)
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first: Any = error.errors(include_input=False)[0]
        place = ".".join(map(str, first["loc"]))[:200]
        raise InvalidFileError(f"{where}: {place.encode('unicode_escape').decode()}: {first['msg']}") from error
