"""What a run's report shows, gathered from its folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from hwnas.latency_tables.precisions import executes_on
from hwnas.predictors.metrics import PredictionError
from hwnas.predictors.registration import check
from hwnas.search.compression.sensitivity import SENSITIVITY, Sensitivity, parts
from hwnas.search.ledger import Trial
from hwnas.search.report.data import (
    ENERGY,
    LATENCY,
    CheckPoint,
    FurtherNetwork,
    LayerRow,
    ReportData,
    SensitivityPoint,
    TrialPoint,
)
from hwnas.search.run_folder import Run
from hwnas.search.run_result import RunResult
from hwnas.spaces.call_text import parse_call
from hwnas.spaces.candidate import Candidate
from hwnas.spaces.operator import CLIPPING, Operator
from hwnas.spaces.traced.space import TracedSpace


def report_data(run: Run, result: RunResult) -> ReportData:
    """Everything of a finished run."""
    held_out = check(run.device, run.space)
    error = held_out.error if held_out else PredictionError(math.nan, math.nan, math.nan, 0)
    profile = run.device.profile
    meter = profile.power_meter if run.cost.energy else None
    agreement = result.agreement
    return ReportData(
        title=f"{run.config.space.title} on {run.device.name}: {run.config.data.name}",
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        command=f"hwnas search {(run.outer or run).folder / 'config.yaml'}",
        device_facts={
            "name": run.device.name,
            **profile.facts,
            "measured": run.device.measured_in_words,
            **({"energy": meter.in_words} if meter else {}),
        },
        precisions=[
            {
                "weight bits": str(p.weight_bits),
                "activation bits": str(p.act_bits),
                "execution": p.execution,
                "latency against float32": f"{p.relative_latency:.2f}×",
                "kernels": ", ".join(p.kernels),
            }
            for p in profile.precisions
        ],
        latency_mape=error.mape,
        latency_kendall=error.kendall_tau,
        latency_within_10=error.within_10_percent,
        checks=[
            CheckPoint(float(p), float(m))
            for p, m in (zip(held_out.predicted_ms, held_out.measured_ms, strict=True) if held_out else ())
        ],
        trials=_trial_points(run, result.drift),
        networks=list(result.networks),
        layers=layer_rows(run, result.candidates[0], result.drift),
        reference_layers=layer_rows(run, result.candidates[1], result.drift),
        target=run.objective.describe(),
        agreement={
            "real images compared": str(agreement.images),
            "same class": f"{agreement.same_top1} (and {agreement.ties} ties)",
            "largest logit difference": f"{agreement.largest_difference:.4g}",
            "mean logit difference": f"{agreement.mean_difference:.3g} (logits spread by {agreement.logit_std:.3g})",
            "integer layers in integer kernels": f"{agreement.integer_kernels} of {agreement.integer_layers}",
        },
        settings={
            "seed": str(run.config.search.seed),
            "controller": run.config.controller.name,
            "trials": str(len(run.ledger.finished)),
            "search": f"{result.seconds.get('search', 0.0):.0f} s on {run.config.search.workers} workers",
            "speed at the end": f"latencies {result.drift:.2f} times those of the device's table",
            "space": f"{len(run.space.decisions)} decisions, 10^{run.space.log10_size:.0f} rows",
            "configuration": json.dumps(run.config.model_dump(mode="json", exclude_defaults=True)),
        },
        traded=ENERGY if run.config.objective.metric == "energy_mj" else LATENCY,
        further=[
            FurtherNetwork(
                name=name,
                href=f"also/{name}/report.html",
                device=part.device.name,
                target=part.objective.describe(),
                chosen=own.networks[0],
                warnings=own.warnings,
            )
            for name, part in run.parts.items()
            if (own := part.result) is not None
        ],
        warnings=result.warnings,
        sensitivity=sensitivity_points(run, result.candidates[0]),
        left=run.space.left if isinstance(run.space, TracedSpace) else {},
    )


def sensitivity_points(run: Run, chosen: Mapping[str, Any]) -> list[SensitivityPoint]:
    """What each change of the run's trained model does; nothing where it has none."""
    path = (run.outer or run).folder / SENSITIVITY
    if run.original is None or not path.exists():
        return []
    effects = Sensitivity.load(path).effects
    row = run.space.encode(chosen)
    active = run.space.active(row[None])[0]
    points = []
    for part in parts(run.space):
        for change in part.changes():
            if change in effects:
                options = dict(change)
                name = part.decisions[0].removesuffix(f".{part.kind}")
                own = all(chosen.get(key) == option for key, option in options.items())
                own = own and bool(active[run.space.column(part.decisions[0])])
                effect = effects[change]
                words = ", ".join(map(option_in_words, options.values()))
                points.append(SensitivityPoint(name, part.kind, words, effect.divergence, effect.accuracy, own))
    return points


def option_in_words(option: Any) -> str:
    """Such as "50 %" of a share, "8" of bits, or "dropped" of a branch that is not there."""
    if isinstance(option, bool):
        return "there" if option else "dropped"
    return f"{option:.0%}" if isinstance(option, float) else str(option)


def layer_rows(run: Run, candidate: Mapping[str, Any], drift: float = 1.0) -> list[LayerRow]:
    """The operators of a network with their costs at the machine's present speed, and how the device runs them."""
    operators = run.space.workload(candidate).operators
    model = run.cost.latency
    latency, std = model.of_operators(operators), model.std_of_operators(operators)
    energies = _energies(run, operators)
    measured = {row.operator for row in run.device.table.operators}
    widest = {o.name: o.out_channels for o in _widest(run).operators}
    by_name = {o.name: o for o in operators}
    return [
        LayerRow(
            name=o.name,
            kind=kind_in_words(o),
            shape=f"{_shape(o.in_channels, o.in_size)} → {_shape(o.out_channels, o.out_size)}",
            in_channels=o.in_channels,
            out_channels=o.out_channels,
            width_share=min(1.0, o.out_channels / widest.get(o.name, o.out_channels)),
            weight_bits=(o.shared or o.weight_bits) if o.weights else None,
            act_bits=o.out_bits,
            rank_share=_rank_share(o, by_name),
            execution=executes_on(run.device, o),
            macs=o.macs,
            weight_bytes=o.weight_bytes,
            latency_ms=float(ms) * drift,
            latency_std_ms=float(s) * drift,
            measured=o in measured,
            energy_mj=energy[0],
            energy_std_mj=energy[1],
        )
        for o, ms, s, energy in zip(operators, latency, std, energies, strict=True)
    ]


def _energies(run: Run, operators: Sequence[Operator]) -> list[tuple[float | None, float | None]]:
    """Energy of each operator and its standard deviation, in millijoules; None where the device does not know it."""
    model = run.cost.energy
    if model is None:
        return [(None, None)] * len(operators)
    pairs = zip(model.of_operators(operators), model.std_of_operators(operators), strict=True)
    return [(float(mj), float(std)) for mj, std in pairs]


def _widest(run: Run) -> Any:
    return run.space.workload(Candidate({d.name: d.options[-1] for d in run.space.decisions}))


def kind_in_words(o: Operator) -> str:
    """What an operator is, such as "conv 3×3 dilated 2"; normalisations and clippings after a product are left out."""
    name: str = "depthwise" if o.depthwise else o.kind
    if o.kind == "hadamard":
        name = "Hadamard transform"
    elif o.kind == "deconv":
        name = "transposed conv"
    elif o.kind == "call":
        name = ", ".join(parse_call(o.call).names)
    elif o.kind == "activate":
        parts = ["normalisation"] * (o.affine == "norm") + [o.activation] * (o.activation != "none")
        name = " and ".join(parts) or "nothing"
    window = o.kind in ("conv", "deconv") or (o.kind == "pool" and o.taps > 1)
    words = [
        name,
        "×".join(map(str, o.kernel_size)) * window,
        f"/{o.stride}" * (o.stride > 1),
        f"dilated {o.dilation}" * (o.dilation > 1),
        f"padded by {o.margin}" * (o.margin >= 0),
        f"in {o.groups} groups" * (o.groups > 1 and not o.depthwise),
        _sparsity(o),
        f"of {2**o.shared} shared weights" * (o.shared > 0),
        f"with {o.activation}" * (bool(o.weights) and o.activation not in CLIPPING),
    ]
    return " ".join(word for word in words if word)


def _sparsity(o: Operator) -> str:
    if o.density >= 1 or not o.weights:
        return ""
    return f"{max(1, round(o.density * o.pattern))}:{o.pattern} sparse" if o.pattern else f"{o.density:.0%} dense"


def _shape(channels: int, size: tuple[int, int]) -> str:
    return f"{channels}×{size[0]}×{size[1]}"


def _rank_share(o: Operator, by_name: Mapping[str, Operator]) -> float:
    """MACs of a layer's two factors relative to the whole layer's."""
    name = o.name.removesuffix("_in")
    first = by_name.get(f"{name}_in")
    if first is None:
        return 1.0
    rank, inputs, outputs = first.out_channels, first.in_channels, by_name[name].out_channels
    return min(1.0, rank * (inputs + outputs) / (inputs * outputs))


def _trial_points(run: Run, drift: float) -> list[TrialPoint]:
    """All finished trials; costs, and rewards by them, are as measured, else as the run's device predicts at its end.

    Latencies are at the speed that it then had.
    """
    trials = run.ledger.finished
    if not trials:
        return []
    costs = run.costs_of(trials)
    rewards = run.objective.reward(np.array([t.accuracy for t in trials], dtype=np.float64), costs)
    costs["latency_ms"] = costs["latency_ms"] * drift
    return [
        _trial_point(run, t, float(rewards[i]), {name: float(values[i]) for name, values in costs.items()})
        for i, t in enumerate(trials)
    ]


def _trial_point(run: Run, trial: Trial, reward: float, costs: Mapping[str, float]) -> TrialPoint:
    candidate = run.space.decode(trial.row)
    kinds: dict[str, list[str]] = {}
    for kind in ("depth", "width", "weight_bits"):
        kinds[kind] = [str(v) for name, v in candidate.items() if name.rpartition(".")[2] == kind]
    bits = sorted(set(kinds["weight_bits"]), key=int)
    text = f"depths {'·'.join(kinds['depth'])}, widths {'·'.join(kinds['width'])}"
    text += f", weights of {'/'.join(bits)} bits" if bits else ""
    return TrialPoint(
        number=trial.number,
        digest=trial.digest,
        state=trial.state,
        accuracy=trial.accuracy,
        latency_ms=costs["latency_ms"],
        weight_bytes=int(costs["weight_bytes"]),
        macs=int(costs["macs"]),
        params=int(costs["params"]),
        reward=None if trial.accuracy is None else reward,
        epochs=trial.steps,
        finished_s=trial.finished_s,
        changes=text + (f"; {trial.error}" if trial.error else ""),
        energy_mj=costs.get("energy_mj"),
        measured="latency_ms" in trial.measured,
    )
