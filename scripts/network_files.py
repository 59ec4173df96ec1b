"""Files of networks as their papers describe them, and the spaces that hold them.

A file has one network, or many: under ``networks``, or as the ``variants`` of a family, or one name after the other. A
network is what `Space.find` of its space reads: a stage table, such as `hwnas.spaces.stage_table` describes, or another
family's few figures. Under ``computed`` it may say the ``params`` and ``macs`` that others counted, under ``published``
those of its paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwnas.spaces.candidate import Candidate
from hwnas.spaces.catalog import SPACES, load_space
from hwnas.spaces.errors import HwnasError, InvalidFileError, InvalidSpaceError
from hwnas.spaces.files import read_yaml
from hwnas.spaces.space import Space
from hwnas.spaces.stage_match import LacksError
from hwnas.spaces.stage_table import read_table

Settings = tuple[tuple[int, int, int] | None, int | None]
"""Channels, height, width of an image, and classes; None for those that the space was published for."""

COUNTS = ("params", "macs")
CLOSEST = 3
"""Spaces of which it is said what they lack."""


@dataclass(frozen=True, slots=True)
class WrittenNetwork:
    """A network of a file.

    Attributes:
        name: In the file.
        table: What `Space.find` reads.
        computed: Its parameters and MACs, as far as the file has them.
        published: What its paper says, by whatever names the file has.
    """

    name: str
    table: Any
    computed: Mapping[str, int]
    published: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FoundNetwork:
    """A network, and the candidate that it is.

    Attributes:
        spaces: Names of all spaces that hold it.
        space: The first of them.
        candidate: In that space.
        counts: The candidate's ``params`` and ``macs``.
    """

    network: WrittenNetwork
    spaces: tuple[str, ...]
    space: Space
    candidate: Candidate
    counts: Mapping[str, int]

    @property
    def differs(self) -> dict[str, int]:
        """What the file counted otherwise, by name, less what it counted."""
        return {k: self.counts[k] - n for k, n in self.network.computed.items() if self.counts[k] != n}


@dataclass(frozen=True, slots=True)
class MissingNetwork:
    """A network that no space holds.

    Attributes:
        reasons: What the closest spaces lack, the closest first.
    """

    network: WrittenNetwork
    reasons: tuple[str, ...]


def read_networks(path: Path) -> list[WrittenNetwork]:
    """The networks of a YAML or JSON file.

    Raises:
        InvalidFileError: The file cannot be read, has no network, or one that makes no sense.
    """
    data = read_yaml(path)
    named = _named(data, path)
    if not named:
        raise InvalidFileError(f"{path} has no networks; it needs one stage table, or several by name")
    return [_network(name, given, path) for name, given in named.items()]


def _named(data: Mapping[str, Any], path: Path) -> dict[str, Any]:
    families = {k: v["variants"] for k, v in data.items() if isinstance(v, Mapping) and "variants" in v}
    if "networks" in data or families:
        groups = {"": data.get("networks") or {}} | {f"{family} ": variants for family, variants in families.items()}
        for family, group in groups.items():
            if not isinstance(group, Mapping):
                where = f"variants of {family.strip()}" if family else "networks"
                raise InvalidFileError(f"{path}: {where} must be networks by name, not {_short(group)}")
        return {f"{family}{name}": given for family, group in groups.items() for name, given in group.items()}
    if "stages" in data or "stem" in data or not all(isinstance(v, Mapping | str) for v in data.values()):
        return {path.stem: data}
    return {str(name): given for name, given in data.items()}


def _network(name: str, given: Any, path: Path) -> WrittenNetwork:
    where = f"{path}: network {name}"
    if isinstance(given, str):
        return WrittenNetwork(name, given, {}, {})
    if not isinstance(given, Mapping):
        raise InvalidFileError(f"{where}: a network is a stage table, not {_short(given)}")
    if "stages" in given or "stem" in given:
        read_table(given, where)
    notes = {key: given.get(key, {}) for key in ("computed", "published")}
    for key, note in notes.items():
        if not isinstance(note, Mapping):
            raise InvalidFileError(f"{where}: {key} must be figures by name, not {_short(note)}")
    computed = {key: notes["computed"][key] for key in COUNTS if key in notes["computed"]}
    for key, count in computed.items():
        if type(count) is not int:
            raise InvalidFileError(f"{where}: computed.{key} must be a whole number, not {_short(count)}")
    return WrittenNetwork(name, given, computed, notes["published"])


def _short(given: Any) -> str:
    text = repr(given)
    return text if len(text) <= 60 else f"{text[:57]}…"


class Finder:
    """Looks for networks in spaces, without joint dimensions; each space is made once for a size of images.

    Args:
        names: Of spaces, see `load_space`; those of the catalogue by default.
    """

    def __init__(self, names: Sequence[str] = tuple(SPACES)) -> None:
        self.names = names
        self._spaces: dict[tuple[str, Settings], Space] = {}

    def find(self, network: WrittenNetwork) -> FoundNetwork | MissingNetwork:
        """The candidate that is the network, or what the spaces lack that come closest to it.

        Spaces of which it is a reference come first, then smaller ones. The closest are those that offer most of its
        layers' attributes, see `hwnas.spaces.stage_distance`.

        Raises:
            UnknownNameError: No space of such a name.
            InvalidFileError: A space's file cannot be read.
        """
        found: list[tuple[tuple[bool, float], Space, Candidate]] = []
        lacks: list[tuple[tuple[float, float], str]] = []
        others: dict[str, list[str]] = {}
        for name in self.names:
            try:
                space = self._space(name, network)
            except InvalidSpaceError as error:  # images or classes that it cannot take
                lacks.append(((math.inf, math.inf), f"space {name!r}: {error}"))
                continue
            try:
                if space.find is None:
                    raise InvalidFileError("it finds no networks by tables")
                candidate = space.decode(space.encode(space.find(space, network.table)))
                known = any(space.reference(r) == candidate for r in space.references)
                found.append(((not known, space.log10_size), space, candidate))
            except InvalidSpaceError as error:
                misses = error.misses if isinstance(error, LacksError) else math.inf
                lacks.append(((misses, space.log10_size), str(error)))
            except HwnasError as error:
                others.setdefault(str(error), []).append(name)
        if found:
            spaces = sorted(found, key=lambda one: one[0])
            _, space, candidate = spaces[0]
            work = space.workload(candidate)
            return FoundNetwork(
                network, tuple(s.name for _, s, _ in spaces), space, candidate,
                {"params": work.params, "macs": work.macs},
            )  # fmt: skip
        if lacks:
            reasons = dict.fromkeys(reason for _, reason in sorted(lacks))
            return MissingNetwork(network, tuple(reasons)[:CLOSEST])
        told = "; ".join(f"{', '.join(names)}: {message}" for message, names in others.items())
        return MissingNetwork(network, (f"no space has networks that are written so ({told})",))

    def _space(self, name: str, network: WrittenNetwork) -> Space:
        settings = _settings(network.table)
        if (name, settings) not in self._spaces:
            shape, classes = settings
            self._spaces[name, settings] = load_space(name, input_shape=shape, num_classes=classes, joint=())
        return self._spaces[name, settings]


def _settings(table: Any) -> Settings:
    """Those of a stage table, as far as it has them."""
    if not isinstance(table, Mapping) or "stages" not in table:
        return None, None
    read = read_table(table, "the network")
    return read.input, read.classifier.outputs if read.classifier else None
