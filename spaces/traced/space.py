"""A traced model as a space: bits, ranks, widths and branches, decided layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from hwnas.spaces.builder import Builder
from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.space import Space
from hwnas.spaces.traced.branches import Branch
from hwnas.spaces.traced.channels import Channels
from hwnas.spaces.traced.graph import Graph
from hwnas.spaces.traced.making import Maker
from hwnas.spaces.traced.templates import template_of

WHOLE = (
    "the model itself must be in the space, as what candidates are compared with: joint and narrow must leave 32 among "
    "the bits and shared, 1 among keep, rank and density, and branches present"
)


class TracedSpace(Space):
    """What can be taken away from a traced model.

    Attributes:
        graph: The model.
        channels: Which of its channels stand and fall together.
        branches: Which of its residual branches may be dropped.
        left: What is left as it is, and why, by name.
    """

    def __init__(
        self, graph: Graph, channels: Channels, branches: Sequence[Branch], left: Mapping[str, str], **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.graph = graph
        self.channels = channels
        self.branches = tuple(branches)
        self.left = dict(left)


def traced_space(
    graph: Graph,
    make: Builder,
    *,
    name: str,
    spec: Mapping[str, Any],
    input_shape: tuple[int, int, int],
    num_classes: int,
) -> Space:
    """The space of a graph; see `hwnas.spaces.catalog.Maker`.

    | decision                      | of                                                                             |
    |-------------------------------|--------------------------------------------------------------------------------|
    | ``layer1.0.present``          | whether the residual branch that is added in ``layer1.0`` is there             |
    | ``conv1.keep``                | share kept of the channels that this layer and others write, which are added   |
    | ``layer1.0.conv1.weight_bits``| of the layer's weights                                                         |
    | ``layer1.0.conv1.act_bits``   | of the tensor that it writes, of what only moves its values, and of what is    |
    |                               | added to it                                                                    |
    | ``layer1.0.conv1.rank``       | share of MACs that its two factors have                                        |
    | ``layer1.0.conv1.form``       | how it is split in two, see `hwnas.spaces.rank.Form`                           |

    The first and the last layers with weights stay whole, and have bits of their own (``edge_bits``).

    Raises:
        InvalidSpaceError: The model reads other images, returns something else than a score per class, or is not in
            the space itself.
    """
    if graph.input.shape != tuple(input_shape):
        raise InvalidSpaceError(f"the model reads images of {graph.input.shape}, not of {tuple(input_shape)}")
    if graph.output.shape != (num_classes,):
        raise InvalidSpaceError(
            f"the model returns {graph.output.shape} for an image, but the data have {num_classes} classes"
        )
    maker = Maker(graph, make)
    maker.add()
    left = maker.left | dict(graph.left)
    space = make.space(
        name=name,
        spec=spec,
        input_shape=input_shape,
        num_classes=num_classes,
        references={"original": {}},
        of=partial(TracedSpace, graph, maker.channels, maker.branches, left),
    )
    whole = space.workload(space.reference())
    macs = sum(template_of(node, graph).macs for node in graph.products)
    changed = any(o.weight_bits < 32 or o.out_bits < 32 or o.density < 1 or o.shared for o in whole.operators)
    if whole.macs != macs or changed:
        raise InvalidSpaceError(WHOLE)
    return space
