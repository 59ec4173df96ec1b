"""The options of commands that choose a space."""

from __future__ import annotations

from typing import Any

import click


def space_options(command: Any) -> Any:
    """Adds the options that say which space."""
    for option in (
        click.option("--joint", default="bits,sparsity,rank", show_default=True, help="Dimensions of the space."),
        click.option("--classes", type=int, default=10, show_default=True, help="Classes of the space."),
        click.option("--input-shape", default="3,32,32", show_default=True, help="Channels, height, width."),
        click.option("--space", "space_name", default="mbconv", show_default=True, help="A space, or its YAML file."),
    ):
        command = option(command)
    return command


def chosen_space(space_name: str, input_shape: str, classes: int, joint: str) -> Any:
    """The space that the options say."""
    from hwnas.spaces import load_space

    try:
        shape = [int(part) for part in input_shape.split(",")]
    except ValueError:
        raise click.BadParameter(f"{input_shape!r} is not channels,height,width", param_hint="--input-shape") from None
    names = [part for part in joint.split(",") if part]
    return load_space(space_name, input_shape=shape, num_classes=classes, joint=names)
