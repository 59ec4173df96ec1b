"""What a space offers, in words and tables for people."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields

from rich.table import Table

from hwnas.spaces.decision import Decision, Option
from hwnas.spaces.joint import Joint
from hwnas.spaces.operator import Operator
from hwnas.spaces.space import Space

MEANINGS = {
    "weight_bits": "bits of a layer's weights; 32 is float32",
    "act_bits": "bits of the tensor that a layer or a stage writes; 32 is float32",
    "keep": "share of a block's inner channels that stays",
    "width": "output channels, the pruned ones too",
    "rank": "share of MACs that a 1×1 layer keeps as two factors; 1 is whole",
    "shared": "bits of an index into weights that a layer shares; 32 is none",
    "density": "share of a layer's weights that are not zero, or N:M; 1 is all",
}
COMPRESSION = {f.name for f in fields(Joint)}
MOST_OPTIONS = 9
"""More are shown by the first, the last and their number."""

Groups = dict[str, dict[str, str]]
"""What is offered in words, by place in the network and by kind of decision."""


def architecture_table(space: Space) -> Table:
    """A row per stage, or per blocks of a stage that offer the same; fixed values are there, too.

    Args:
        space: Without joint dimensions.
    """
    groups = _groups([*space.decisions, *(Decision(n, (o,), ordinal=False) for n, o in space.fixed.items())])
    runs = [slot.group for slot in space.slots]
    groups = dict(sorted(groups.items(), key=lambda item: _first(runs, item[0])))
    kinds = list(dict.fromkeys(kind for offered in groups.values() for kind in offered))
    table = Table("", *kinds, title="Architecture: what each stage offers", title_justify="left")
    for place, offered in groups.items():
        table.add_row(place, *(offered.get(kind, "") for kind in kinds))
    return table


def joint_table(space: Space, plain: Space) -> Table:
    """A row per kind of decision and options that the joint dimensions add.

    Args:
        space: With joint dimensions.
        plain: The same without.
    """
    alone = {d.name: d.options for d in plain.decisions}
    groups: dict[tuple[str, str], list[str]] = {}
    for d in space.decisions:
        if alone.get(d.name) != d.options:
            groups.setdefault((_kind(d.name), _offered(d.options)), []).append(d.name)
    table = Table("", "offers", "decisions", "of", title="Compression: what is joined to it", title_justify="left")
    for (kind, offered), names in groups.items():
        table.add_row(kind, offered, str(len(names)), f"{_few(names)}: {MEANINGS.get(kind, kind)}")
    return table


def references_table(space: Space) -> Table:
    """A row per reference."""
    table = Table("", "parameters", "MACs", "digest", title="References", title_justify="left")
    for column in table.columns[1:3]:
        column.justify = "right"
    for name in space.references:
        candidate = space.reference(name)
        work = space.workload(candidate)
        table.add_row(name, f"{work.params:,}", f"{work.macs:,}", candidate.digest)
    return table


def whole_layers(space: Space) -> Iterator[str]:
    """Lines that say which layers of the first reference stay as they are, and why."""
    title = next(iter(space.references))
    layers = [o for o in space.workload(space.reference()).operators if o.weights]
    names = {d.name for d in space.decisions}
    for kind, action in (("rank", "stay unfactorised"), ("density", "keep all their weights")):
        if not any(_kind(name) == kind for name in names):
            continue
        reasons: dict[str, list[str]] = {}
        for layer in layers:
            if f"{layer.name}.{kind}" not in names:
                reasons.setdefault(_reason(layer, layer in (layers[0], layers[-1]), kind), []).append(layer.name)
        for reason, found in reasons.items():
            yield f"{len(found)} layers of {title} {action}: {_few(found)} ({reason})"


def _reason(layer: Operator, edge: bool, kind: str) -> str:
    if edge:
        return "the first and the last layer stay whole"
    if layer.depthwise:
        return "depthwise: one filter per channel has nothing to spare"
    if layer.kind == "conv" and layer.in_size == (1, 1):
        return "squeeze-excite: next to nothing is computed there"
    if kind == "rank" and layer.kernel > 1:
        return "only 1×1 layers are factorised"
    return "the space keeps them so"


def _first(groups: Sequence[str], place: str) -> int:
    """When something of a place runs first; -1 for what concerns the whole network."""
    return next((i for i, group in enumerate(groups) if group.startswith(place.partition("–")[0])), -1)


def _groups(decisions: Iterable[Decision]) -> Groups:
    """By place; blocks of a stage that offer the same are one place, or the stage where they are all of it."""
    places: Groups = {}
    for d in decisions:
        place, kind = d.name.rpartition(".")[::2]
        if kind not in COMPRESSION:
            places.setdefault(place, {})[kind] = _offered(d.options)
    stages: dict[str, list[tuple[int, dict[str, str]]]] = {}
    result: Groups = {}
    for place, offered in places.items():
        if match := re.fullmatch(r"(\w+?)b(\d+)", place):
            stages.setdefault(match[1], []).append((int(match[2]), offered))
            result.setdefault(match[1], {})
        else:
            result[place] = result.get(place, {}) | offered
    return {k: v for place, own in result.items() for k, v in _stage(place, own, stages.get(place, []))}


def _stage(
    name: str, own: dict[str, str], blocks: Sequence[tuple[int, dict[str, str]]]
) -> Iterator[tuple[str, dict[str, str]]]:
    runs: list[tuple[list[int], dict[str, str]]] = []
    for index, offered in sorted(blocks, key=lambda block: block[0]):
        if runs and runs[-1][1] == offered:
            runs[-1][0].append(index)
        else:
            runs.append(([index], offered))
    if len(runs) == 1 or not runs:
        yield name or "network", own | (runs[0][1] if runs else {})
        return
    if own:
        yield name, own
    for indexes, offered in runs:
        several = f"b{indexes[0]}–{indexes[-1]}" if len(indexes) > 1 else f"b{indexes[0]}"
        yield f"{name}{several}", offered


def _kind(name: str) -> str:
    return name.rpartition(".")[2]


def _offered(options: Sequence[Option]) -> str:
    words = [("no", "yes")[o] if isinstance(o, bool) else f"{o:g}" if isinstance(o, float) else str(o) for o in options]
    if len(words) > MOST_OPTIONS:
        return f"{words[0]}, {words[1]} … {words[-1]} ({len(words)})"
    return ", ".join(words)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{names[0]}, {names[1]} … {names[-1]}"
