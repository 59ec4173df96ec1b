"""The spaces that come with hwnas, and those that are described in a file or built by a function of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from hwnas.spaces.builder import Builder
from hwnas.spaces.errors import InvalidFileError, InvalidSpaceError, UnknownNameError
from hwnas.spaces.espnetv2 import espnetv2
from hwnas.spaces.files import read_yaml
from hwnas.spaces.joint import DIMENSIONS, Joint
from hwnas.spaces.nasbench201 import nasbench201
from hwnas.spaces.resnet_cifar import resnet_cifar
from hwnas.spaces.space import Space
from hwnas.spaces.stage_space import stage_space
from hwnas.spaces.stage_table import read_table
from hwnas.spaces.traced.graph import Graph
from hwnas.spaces.traced.space import traced_space
from hwnas.spaces.ugconv import ugconv

JOINT = ("bits", "sparsity", "rank")
"""What is searched with the architecture where nothing else is asked for."""
MIN_SIDE, MAX_SIDE = 8, 512
SETTINGS: dict[str, Any] = {
    "name": None,
    "input_shape": (3, 224, 224),
    "num_classes": 1000,
    "joint": JOINT,
    "narrow": {},
}
SMALL_IMAGES = ("resnet_cifar", "ugconv", "nasbench201")
"""Spaces published for images of 3×32×32 and ten classes; the others are for 3×224×224 and a thousand."""

Maker = Callable[..., Space]
"""Makes a space of a `Builder`, and passes its keywords ``name``, ``spec``, ``input_shape``, ``num_classes`` on to
`Builder.space`."""


def load_space(
    name: str,
    *,
    input_shape: Sequence[int] | None = None,
    num_classes: int | None = None,
    joint: Sequence[str] | Mapping[str, Sequence[Any]] | None = None,
    narrow: Mapping[str, Sequence[Any]] | None = None,
) -> Space:
    """A space by name, from a file, or from a function.

    Args:
        name: A name from `SPACES`; or a path that ends in .yaml, .yml or .json; or ``package.module:function``, which
            is a `Maker`. The keys of a file are those of `StageTable` and the arguments of this function; arguments
            that are given here win, and both narrow.
        input_shape: Channels, height, width of one image; by default those that the space was published for.
        num_classes: Outputs of the classifier; by default as many as it was published for.
        joint: Dimensions searched with the architecture, among ``bits``, ``sparsity`` (of channels), ``density`` (of
            weights), ``rank``; or the options of each kind of decision, see `Joint`. By default `JOINT`.
        narrow: For patterns of decision names, such as ``s1b*.kernel``, the options that remain.

    Raises:
        UnknownNameError: No space, dimension or key of that name; names the nearest.
        InvalidSpaceError: A shape that the space cannot take, or options that make no sense, with the reason.
        InvalidFileError: A file that cannot be read.
    """
    given = {"input_shape": input_shape, "num_classes": num_classes, "joint": joint, "narrow": narrow}
    return space_from_spec(with_settings(named_space(name), given))


def with_settings(spec: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A spec under settings that win over its own where they are not None; both narrow."""
    result = dict(spec) | {k: v for k, v in given.items() if v is not None}
    own, more = spec.get("narrow"), given.get("narrow")
    if isinstance(own, Mapping) and isinstance(more, Mapping):
        result["narrow"] = {**own, **more}
    return result


def named_space(name: str) -> dict[str, Any]:
    """What a name or path alone says of a space's spec: the keys of the file, if it is one."""
    if Path(str(name)).suffix in (".yaml", ".yml", ".json"):
        return {"name": Path(name).stem} | read_yaml(Path(name))
    return {"name": name}


def space_from_spec(spec: Mapping[str, Any]) -> Space:
    """The space of a `Space.spec`; raises as `load_space`."""
    table = {k: v for k, v in spec.items() if k not in SETTINGS}
    name = str(spec.get("name"))
    small = {"input_shape": (3, 32, 32), "num_classes": 10} if name in SMALL_IMAGES else {}
    values = SETTINGS | small | {k: v for k, v in spec.items() if k in SETTINGS}
    if "graph" in table:
        maker: Maker = partial(traced_space, Graph.from_json(table["graph"]))
    elif "stages" in table:
        maker = partial(_from_document, table)
    else:
        for key in table:
            raise UnknownNameError("key of a space:", str(key), SETTINGS)
        maker = _maker(name)
    shape, classes, narrow = values["input_shape"], values["num_classes"], values["narrow"]
    if not _is_shape(shape):
        raise InvalidSpaceError(
            f"input_shape must be channels, height, width with sides from {MIN_SIDE} to {MAX_SIDE}, got {shape!r}"
        )
    if not isinstance(classes, int) or classes < 2:
        raise InvalidSpaceError(f"num_classes must be a whole number of at least 2, got {classes!r}")
    if not isinstance(narrow, Mapping) or not all(isinstance(o, list | tuple) for o in narrow.values()):
        raise InvalidFileError(f"narrow must be lists of options by patterns of decision names, got {narrow!r}")
    if "graph" not in table and Joint.of(values["joint"]).shared != Joint().shared:
        raise InvalidSpaceError("joint.shared: weights are shared in spaces of trained models alone; leave it out here")
    joint, kept = _plain(values["joint"]), {pattern: list(options) for pattern, options in narrow.items()}
    own = {"name": name, "input_shape": list(shape), "num_classes": classes, "joint": joint}
    return _made(
        maker,
        Builder(Joint.of(values["joint"]), kept),
        name=name,
        spec=own | ({"narrow": kept} if kept else {}) | table,
        input_shape=tuple(shape),
        num_classes=classes,
    )


def _made(maker: Maker, make: Builder, *, name: str, **settings: Any) -> Space:
    if ":" not in name:
        return maker(make, name=name, **settings)
    try:
        space = maker(make, name=name, **settings)
    except TypeError as error:
        raise InvalidSpaceError(f"space {name!r} is no maker of spaces: {error}") from error
    if not isinstance(space, Space):
        raise InvalidSpaceError(f"space {name!r} is a function of {type(space).__name__}, not of a Space")
    return space


def _maker(name: str) -> Maker:
    module, _, function = name.partition(":")
    if not function:
        if name not in SPACES:
            raise UnknownNameError("space", name, SPACES)
        return SPACES[name]
    try:
        maker: Maker = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidSpaceError(f"space {name!r} cannot be imported: {error}") from error
    if not callable(maker):
        raise InvalidSpaceError(f"space {name!r} is no function, but {maker!r}")
    return maker


def _from_document(document: Mapping[str, Any], make: Builder, *, name: str, **settings: Any) -> Space:
    given = dict(document)
    references = given.pop("references", {})
    if not isinstance(references, Mapping):
        raise InvalidFileError(f"space {name}: references must be stage tables by name, got {references!r}")
    table = read_table(given, f"space {name}")
    if table.input or table.classifier:
        raise InvalidFileError(
            f"space {name}: input and classifier are keys of a network; give input_shape and num_classes"
        )
    return stage_space(make, table, name=name, references=references, **settings)


def _published(file: str, make: Builder, **settings: Any) -> Space:
    return _from_document(_document(file), make, **settings)


def _mbconv(make: Builder, *, input_shape: tuple[int, int, int], **settings: Any) -> Space:
    """Inverted residuals with squeeze-excite in the proportions that the images' longer side asks for."""
    side = next(s for s in (16, 64, MAX_SIDE) if max(input_shape[1:]) <= s)
    return _published(f"mbconv_{side}", make, input_shape=input_shape, **settings)


@cache
def _document(file: str) -> dict[str, Any]:
    text = (files("hwnas.spaces") / "published" / f"{file}.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(text)
    return document


SPACES: dict[str, Maker] = {
    "mbconv": _mbconv,
    "mobilenetv2": partial(_published, "mobilenetv2"),
    "mnasnet": partial(_published, "mnasnet"),
    "fbnet": partial(_published, "fbnet"),
    "proxylessnas": partial(_published, "proxylessnas"),
    "chamnet": partial(_published, "chamnet"),
    "ofa_mobilenetv3": partial(_published, "ofa_mobilenetv3"),
    "resnet_cifar": resnet_cifar,
    "ugconv": ugconv,
    "espnetv2": espnetv2,
    "nasbench201": nasbench201,
}


def _plain(joint: Any) -> Any:
    """The joint dimensions as JSON holds them, in one order."""
    if isinstance(joint, Mapping):
        return {k: list(v) if isinstance(v, list | tuple) else v for k, v in joint.items()}
    if isinstance(joint, str) or not isinstance(joint, Sequence):
        return joint
    return [*(d for d in DIMENSIONS if d in joint), *(d for d in joint if d not in DIMENSIONS)]


def _is_shape(shape: Any) -> bool:
    return (
        isinstance(shape, Sequence)
        and len(shape) == 3
        and all(type(n) is int for n in shape)
        and 1 <= shape[0] <= 64
        and all(MIN_SIDE <= n <= MAX_SIDE for n in shape[1:])
    )
