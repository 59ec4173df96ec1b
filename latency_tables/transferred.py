"""What a profile keeps of a device that was registered from a few networks and other devices."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ErrorBars(_Model):
    """Relative standard deviations of what measuring random networks of the space would give.

    Attributes:
        median: Half of the networks have less.
        p90: 90 % have less.
    """

    median: float
    p90: float


class Wanted(_Model):
    """A network that would tell much, were it measured: its digest, and what is predicted of it."""

    digest: str
    latency_ms: float
    latency_ms_std: float


class Outlook(_Model):
    """How certain predictions are over the space, and what measuring more would bring.

    Attributes:
        now: With the networks measured.
        then: As expected once those wanted are measured, too, if the device turns out to be as noisy as it seems now.
        wanted: The networks to measure next, the most informative first.
        seed: Of the random networks that all this is about.
    """

    now: ErrorBars
    then: ErrorBars
    wanted: tuple[Wanted, ...]
    seed: int


class TransferredModel(_Model):
    """Latency as a combination of what other devices' tables teach, found with few measurements of this one.

    Attributes:
        known: Names of those devices.
        weights: Of each one's latency.
        constant_ms: What every network costs beside that.
        networks: How many of this device's own were measured.
        relative_std: Relative error of the networks measured, each predicted from the others.
        left_out_ms: Those predictions, in the order of the table.
        per_network_ms, coefficients: The combination: milliseconds of a network, and per unit of each term of
            `hwnas.predictors.features`.
        kinds: First terms of the kinds of operators that all the known devices measured.
        outlook: How certain it is; None in profiles from before that was stored.
    """

    known: tuple[str, ...]
    weights: tuple[float, ...]
    constant_ms: float
    networks: int
    relative_std: float
    left_out_ms: tuple[float, ...]
    per_network_ms: float
    coefficients: tuple[tuple[tuple[str, ...], float], ...]
    kinds: tuple[tuple[str, ...], ...]
    outlook: Outlook | None = None
