"""ATen operations as nodes of a graph. What has no kind of its own is kept as it is, in calls."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from hwnas.spaces.errors import InvalidSpaceError
from hwnas.spaces.traced.expressions import Expression, call, expression_of
from hwnas.spaces.traced.graph import PRODUCTS, Graph, Node, NodeKind
from hwnas.spaces.traced.operations import ELEMENTWISE, SAME, SPATIAL
from hwnas.spaces.traced.rows import rows_of

Value = Node | Expression | Tensor | tuple["Value", ...]


class Reader:
    """Turns the operations of an exported program into nodes, one after the other.

    Args:
        tensors: Name in the model's state, and value, of each placeholder that is a parameter, buffer or constant.
        batch: The batch size of the trace.

    Attributes:
        state: All tensors that nodes may name: the model's own, and constants computed from them.
    """

    def __init__(self, tensors: Mapping[str, tuple[str, Tensor]], batch: int) -> None:
        self.batch = batch
        self.state = dict(tensors.values())
        self._tensors = tensors
        self._names: dict[int, str] = {id(t): name for name, t in self.state.items()}
        self._values: dict[fx.Node, Value] = {}
        self._nodes: list[Node] = []
        self._left: dict[str, str] = {}
        self._taken: set[str] = set()
        self._uses: dict[str, list[str]] = {}

    def read(self, graph: fx.Graph) -> Graph:
        """The whole graph; raises `InvalidSpaceError` where it does not read one and return one tensor."""
        for step in graph.nodes:
            if step.op == "placeholder":
                self._values[step] = self._placeholder(step)
            elif step.op == "call_function":
                self._values[step] = self._value(step)
            elif step.op == "output":
                returned = step.args[0]
                if len(returned) != 1 or not isinstance(returned[0], fx.Node):
                    raise InvalidSpaceError(f"a model must return one tensor, not {len(returned)}")
                output = self.node(returned[0])
                if output is not self._nodes[-1]:  # what the model returns comes last
                    self._nodes.remove(output)
                    self._nodes.append(output)
        if not self._nodes or self._nodes[0].kind != "input":
            raise InvalidSpaceError("a model must read one tensor of images")
        for names in self._uses.values():
            for name in names if len(names) > 1 else ():
                self._left[name] = f"its weights are used {len(names)} times; each use has a copy of its own"
        return Graph(tuple(self._nodes), self._left)

    # ---- values -----------------------------------------------------------------------------------------------------

    def node(self, step: fx.Node) -> Node:
        """The node that writes what a step gives; expressions become calls."""
        value = self._values[step]
        if isinstance(value, Expression):
            value = self._values[step] = self._call(step, value)
        if not isinstance(value, Node):
            raise InvalidSpaceError(
                f"the model's {step.name} is a constant, or several tensors; hwnas cannot follow it"
            )
        return value

    def value(self, step: fx.Node) -> Value:
        """What a step gives: a node, an expression, a constant, or several of them."""
        return self._values[step]

    def call_of(self, step: fx.Node, expression: Expression, shape: tuple[int, ...], name: str = "") -> Node:
        """The node of an expression, of a shape without the batch; named after the step's module, with a name added.

        One that reads constants alone reads the images, too, which tell the size of the batch.
        """
        text, inputs, parameters = call(expression)
        roles: dict[str, str | None] = {f"constants.{i}": n for i, n in enumerate(parameters)}
        title = ".".join(filter(None, (_module(step)[0], name)))
        return self.add(step, "call", inputs or self._nodes[:1], shape, {"call": text}, roles, title=title)

    def is_map(self, step: Any, dimensions: tuple[int, ...] = (1, 2, 3)) -> bool:
        """Whether a step gives a float32 tensor whose first dimension is the batch, and of so many others."""
        if not isinstance(step, fx.Node) or isinstance(self._values.get(step), Tensor | tuple):
            return False
        shown = step.meta["val"]
        of_images = isinstance(shown, Tensor) and shown.dtype == torch.float32 and shown.shape[:1] == (self.batch,)
        return of_images and shown.ndim - 1 in dimensions

    def shape(self, step: fx.Node) -> tuple[int, ...]:
        """Of what a step gives, the batch left out."""
        return tuple(int(n) for n in step.meta["val"].shape[1:])

    def parameter(self, step: Any) -> str | None:
        """The name in the state of a step that is a parameter or a constant."""
        value = self._values.get(step) if isinstance(step, fx.Node) else None
        if not isinstance(value, Tensor):
            return None
        if id(value) not in self._names:
            name = self._unique(f"constant_{step.name}")
            self.state[name], self._names[id(value)] = value, name
        return self._names[id(value)]

    def add(
        self, step: fx.Node, kind: NodeKind, inputs: list[Node], shape: tuple[int, ...], attributes: Any = None,
        parameters: Mapping[str, str | None] | None = None, title: str = "",
    ) -> Node:  # fmt: skip
        """Adds a node, named after torch's own layer that the step is in, else after the operation."""
        given = {role: name for role, name in (parameters or {}).items() if name is not None}
        path, own = _module(step)
        _, _, operation = str(step.target).partition("aten.")
        simple = operation.partition(".")[0].strip("_") or step.name
        if title:
            name = title
        elif kind in PRODUCTS:
            name = given["weight"].rpartition(".weight")[0] or given["weight"]
        else:
            name = path if own and path else f"{path}.{simple}" if path else simple
        node = Node(
            self._unique(name, factors=kind in PRODUCTS),
            kind,
            tuple(i.name for i in inputs),
            shape,
            attributes or {},
            given,
        )
        if kind in PRODUCTS:
            self._uses.setdefault(given["weight"], []).append(node.name)
        self._nodes.append(node)
        return node

    def leave(self, name: str, reason: str) -> None:
        """Notes that something is left as it is."""
        self._left.setdefault(name, reason)

    # ---- steps ------------------------------------------------------------------------------------------------------

    def _placeholder(self, step: fx.Node) -> Value:
        if step.name in self._tensors:
            return self._tensors[step.name][1]
        if self._nodes:
            raise InvalidSpaceError("a model must read one tensor of images, not several")
        return self.add(step, "input", [], self.shape(step), title="input")

    def _value(self, step: fx.Node) -> Value:
        from hwnas.spaces.traced.handlers import HANDLERS

        if step.target is operator.getitem:
            source, item = step.args
            value = self._values[source]  # type: ignore[index]
            if isinstance(value, tuple):
                return value[item]  # type: ignore[index]
            assert isinstance(value, Expression)
            return value.item(int(item))  # type: ignore[arg-type]
        steps = list(step.all_input_nodes)
        if all(isinstance(self._values[s], Tensor) for s in steps) and not self._reads_batch(step):
            return self._computed(step)
        name = str(step.target)
        if name in SAME:
            return self._values[steps[0]]
        handler: Callable[[Reader, fx.Node], Value | None] | None = HANDLERS.get(name)
        found = handler(self, step) if handler else None
        if found is not None:
            return found
        if name in ELEMENTWISE and len(steps) == 1 and (rows := rows_of(self._values[steps[0]])):
            expression = expression_of(self, step, {steps[0]: rows.node})
            return rows.again(self.call_of(step, expression, rows.node.shape))
        expression = expression_of(self, step, self._values)
        if name in ELEMENTWISE | SPATIAL and self.is_map(step) and self._alike(step, steps, name):
            return self._call(step, expression)
        several = len(step.users) > 1 and self.is_map(step) and not expression.moves
        return self._call(step, expression) if several else expression

    def _alike(self, step: fx.Node, steps: list[fx.Node], name: str) -> bool:
        if not all(self.is_map(s) for s in steps):
            return False
        return name in SPATIAL or all(self.shape(s) == self.shape(step) for s in steps)

    def _call(self, step: fx.Node, expression: Expression) -> Node:
        if not self.is_map(step):
            shown = step.meta["val"]
            raise InvalidSpaceError(
                f"the model's {step.name} ({step.target}) gives {shown.dtype} of {tuple(shown.shape)}; hwnas follows "
                "float32 tensors whose first dimension is the batch, with at most three others"
            )
        return self.call_of(step, expression, self.shape(step))

    def _computed(self, step: fx.Node) -> Value:
        """A constant: nothing that it depends on changes with the images. It has gradients where anything is learnt."""
        read: Any = self._values.__getitem__
        arguments: Any = fx.map_arg((step.args, step.kwargs), read)
        target: Any = step.target
        with torch.enable_grad():
            result = target(*arguments[0], **arguments[1])
        found: Value = tuple(result) if isinstance(result, list | tuple) else result
        return found

    def _reads_batch(self, step: fx.Node) -> bool:
        """Whether one of its numbers is a multiple of the batch size."""
        values: list[Any] = [*step.args, *step.kwargs.values()]
        given = [v for value in values for v in (value if isinstance(value, list | tuple) else [value])]
        return any(type(v) is int and v and v % self.batch == 0 for v in given)

    def _unique(self, name: str, *, factors: bool = False) -> str:
        """The name, numbered where it is taken as modules write it, or where that of the layer's first factor is."""
        number, candidate = 1, name
        while self._taken & self._own(candidate, factors):
            number += 1
            candidate = f"{name}_{number}"
        self._taken |= self._own(candidate, factors)
        return candidate

    @staticmethod
    def _own(name: str, factors: bool) -> set[str]:
        plain = name.replace(".", "_")
        return {plain, f"{plain}_in"} if factors else {plain}


def _module(step: fx.Node) -> tuple[str, bool]:
    """The path of the module that a step is in, and whether that is one of torch's own layers."""
    stack = list((step.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return "", False
    path, kind = stack[-1]
    text = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    return str(path), text.startswith("torch.nn.modules.")
