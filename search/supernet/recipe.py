"""How to train a supernet."""

from __future__ import annotations

from fnmatch import fnmatchcase

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from hwnas.spaces.space import Space


class SupernetRecipe(BaseModel):
    """How to train the weights and the architecture parameters θ of a supernet; by default as FBNet did (section 4.1).

    Attributes:
        epochs: Passes over the training split: over one part for the weights, then over the other for θ.
        warmup_epochs: First epochs, in which weights alone are trained.
        theta_share: Share of the training split that θ learns from. With 0, θ stays as it is: then paths are uniform
            draws, and the weights serve to evaluate any of the space's networks.
        mixed: Patterns of decisions, such as ``*.kernel``, that every step mixes: all for FBNet, none for single paths.
            The others are drawn.
        paths: Draws per step. Where any decision is drawn, steps of θ take at least two, each other's baseline.
        sandwich: Whether steps of the weights add the largest network and the smallest, see
            `hwnas.spaces.shared.sandwich`.
        batch_size: Images per step.
        learning_rate: Of the weights: SGD, from here down to zero by a cosine.
        momentum, weight_decay: Of the weights; biases and normalisations do not decay.
        theta_learning_rate, theta_weight_decay: Of θ: Adam.
        temperature: τ of the first epoch.
        temperature_decay: What it is multiplied by after every epoch.
        label_smoothing, shift, flip: See `hwnas.search.training.Recipe`; θ sees images as they are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: PositiveInt = 90
    warmup_epochs: NonNegativeInt = 10
    theta_share: float = Field(default=0.2, ge=0, lt=1)
    mixed: tuple[str, ...] = ("*",)
    paths: PositiveInt = 1
    sandwich: bool = False
    batch_size: PositiveInt = Field(default=64, ge=2)
    learning_rate: PositiveFloat = 0.1
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: NonNegativeFloat = 1e-4
    theta_learning_rate: PositiveFloat = 0.01
    theta_weight_decay: NonNegativeFloat = 5e-4
    temperature: PositiveFloat = 5.0
    temperature_decay: float = Field(default=0.956, gt=0, le=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    shift: NonNegativeInt = 1
    flip: bool = False

    def temperature_of(self, epoch: int) -> float:
        """τ of an epoch, counted from 0: 5.0 · 0.956^epoch in the paper."""
        return self.temperature * self.temperature_decay**epoch

    def mixed_in(self, space: Space) -> tuple[str, ...]:
        """The decisions of a space that are mixed."""
        return tuple(d.name for d in space.decisions if any(fnmatchcase(d.name, pattern) for pattern in self.mixed))
