"""Deep deterministic policy gradients (Lillicrap et al., ICLR 2016), as HAQ uses them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwnas.search.controllers.ddpg.layer_states import Vectors
from hwnas.search.controllers.optimiser_state import load_optimiser, pack_optimiser
from hwnas.search.controllers.packing import pack_tensors, unpack_tensors

HIDDEN = 300
RATES = {"actor": 1e-3, "critic": 1e-3}
DECAYS = {"actor": 0.0, "critic": 1e-2}
"""Of weights, as in the paper of DDPG."""
NEAR = 20.0
"""What a squared distance from the replayed action takes from its value for the actor."""
LAST_LAYER = 3e-3
"""Weights of the last layers are drawn up to it, so that no action begins near its limits."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Transitions.

    Attributes:
        states: Shape (n, width).
        choices: Options of each dimension, shape (n, dimensions); 0 where there is nothing to choose.
        actions: Shape (n, dimensions).
        rewards: Shape (n,).
    """

    states: Vectors
    choices: NDArray[np.int16]
    actions: Vectors
    rewards: Vectors


class ActorCritic:
    """An actor and a critic.

    As in HAQ γ is 1 and every transition has the reward of its episode. Deviations:

    - That reward is what the critic learns, for every layer. HAQ adds what the slow targets expect of the next layer,
      but of an action that the wall would not let stand: then more bits look better everywhere, and the actor learns
      nothing of what they cost other layers. Without it there are no targets.
    - Of an action the critic sees where it is between the options, see `_encode`, as they may differ in more than
      degree.
    - The actor is held near the replayed actions (as in TD3+BC, Fujimoto and Gu, NeurIPS 2021), since the critic has
      seen none that the wall does not let stand, and takes those for better still. It learns ten times as fast, since
      there are few updates.

    Args:
        width: Of a state.
        dimensions: Of an action.
        steps: From the first to the last option, of what has the most options.
        rng: For the first weights.
    """

    def __init__(self, width: int, dimensions: int, steps: int, rng: np.random.Generator) -> None:
        shapes = {"actor": (width, dimensions), "critic": (width + dimensions * steps, 1)}
        self._steps = torch.arange(steps)
        self.networks = {name: _network(*shape) for name, shape in shapes.items()}
        for network in self.networks.values():
            _draw(network, rng)
        self.optimisers = {
            name: torch.optim.AdamW(network.parameters(), RATES[name], weight_decay=DECAYS[name], fused=True)
            for name, network in self.networks.items()
        }

    @torch.no_grad()
    def act(self, states: Vectors) -> Vectors:
        """Actions in [0, 1], shape (n, dimensions)."""
        return np.asarray(self.networks["actor"](torch.tensor(states)).sigmoid().numpy())

    @torch.no_grad()
    def value(self, states: Vectors, choices: NDArray[np.int16], actions: Vectors) -> Vectors:
        """The critic's Q, shape (n,)."""
        critic = self.networks["critic"]
        return np.asarray(self._value(critic, *map(torch.tensor, (states, choices, actions))).numpy())

    def update(self, batch: Batch) -> None:
        """One step of the critic and one of the actor."""
        states, choices, actions, rewards = map(
            torch.tensor, (batch.states, batch.choices, batch.actions, batch.rewards)
        )
        critic = self.networks["critic"]
        self._step("critic", nn.functional.mse_loss(self._value(critic, states, choices, actions), rewards))
        act = self.networks["actor"](states).sigmoid()
        distance = ((act - actions).square() * (choices > 0)).sum(dim=1)
        self._step("actor", (NEAR * distance - self._value(critic, states, choices, act)).mean())

    def _value(self, critic: nn.Module, states: Tensor, choices: Tensor, actions: Tensor) -> Tensor:
        result: Tensor = critic(torch.cat([states, self._encode(choices, actions)], dim=1)).squeeze(1)
        return result

    def _encode(self, choices: Tensor, actions: Tensor) -> Tensor:
        """How far each action has gone on each step from one option to the next; 0 where nothing is chosen.

        In the middle of an option's share of [0, 1] this is the `thermometer` of its rank, and linear in between. Shape
        (n, dimensions · steps).
        """
        options = choices[:, :, None]
        gone = (actions[:, :, None] * options - 0.5 - self._steps).clamp(0, 1) * (self._steps < options - 1)
        return gone.flatten(1)

    def state_dict(self) -> dict[str, Any]:
        """As plain JSON-able data."""
        networks = {name: pack_tensors(network.state_dict()) for name, network in self.networks.items()}
        return {"networks": networks, "optimisers": {name: pack_optimiser(o) for name, o in self.optimisers.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        for name, network in self.networks.items():
            network.load_state_dict(unpack_tensors(state["networks"][name], network.state_dict()))
            load_optimiser(self.optimisers[name], state["optimisers"][name])

    def _step(self, name: str, loss: Tensor) -> None:
        parameters = list(self.networks[name].parameters())
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        self.optimisers[name].step()


def _network(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outputs)
    )


def _draw(network: nn.Sequential, rng: np.random.Generator) -> None:
    """First weights, as in the paper of DDPG: uniform within the inverse root of a layer's inputs."""
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    for layer in linear:
        bound = LAST_LAYER if layer is linear[-1] else layer.in_features**-0.5
        for parameter in (layer.weight, layer.bias):
            drawn = rng.uniform(-bound, bound, tuple(parameter.shape)).astype(np.float32)
            parameter.data.copy_(torch.from_numpy(drawn))
