from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from hwnas.latency_tables import load_device
from hwnas.predictors import CostModel
from hwnas.search.compression.evidence import filters, find_evidence
from hwnas.search.compression.knowledge import TrainedWeights, load_evidence, save_evidence
from hwnas.search.compression.proxy import PRIOR, AdditiveProxy
from hwnas.search.compression.sensitivity import (
    Effect,
    Probe,
    Sensitivity,
    effect_of,
    measure_sensitivity,
    parts,
    table,
)
from hwnas.search.controllers.controller import make_controller
from hwnas.search.controllers.screened import Screened
from hwnas.search.distillation import distillation_loss, teaching
from hwnas.search.goal import STRICT, Goal
from hwnas.search.objective import Objective
from hwnas.spaces.catalog import space_from_spec
from hwnas.spaces.errors import InfeasibleError, InvalidFileError
from hwnas.spaces.traced.model import TracedModel, trace_model
from hwnas.spaces.traced.space import TracedSpace
from tests.spaces.traced.models import SHAPE, ResNet, settled

JOINT = {"weight_bits": [8, 32], "act_bits": [8, 32], "edge_bits": [8, 32], "keep": [0.5, 1.0], "rank": [0.5, 1.0]}


@pytest.fixture(scope="module")
def model() -> TracedModel:
    return trace_model(settled(ResNet()), torch.zeros(1, *SHAPE))


@pytest.fixture(scope="module")
def space(model: TracedModel) -> TracedSpace:
    return model.space(JOINT)


def images(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def batches(n: int = 2) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(images(8, seed), torch.arange(8) % 10) for seed in range(n)]


@cache
def cost_of(key: str) -> CostModel:
    return CostModel(space_from_spec(json.loads(key)), load_device("simulated-bit-fusion"))


def cost(space: TracedSpace) -> CostModel:
    return cost_of(space.key)


@pytest.fixture(scope="module")
def known(model: TracedModel, space: TracedSpace) -> TrainedWeights:
    return TrainedWeights(space.spec, model.state, find_evidence(model, space, batches(), "taylor"))


class TestEvidence:
    def test_every_bundle_that_may_go_has_a_score_and_every_ranked_layer_its_moments(self, space, known) -> None:
        assert set(known.evidence.importance) == set(space.channels.segment_of)
        assert all(np.isfinite(score) and score >= 0 for score in known.evidence.importance.values())
        ranked = {name.removesuffix(".rank") for name in space.options if name.endswith(".rank")}
        assert {layer for layer, _ in known.evidence.moments} == ranked
        assert ("layer2.0.conv1", "spatial") not in known.evidence.moments  # it has a stride
        assert known.evidence.moments["layer1.0.conv1", "channel"].shape == (144, 144)
        assert known.evidence.moments["layer1.0.conv1", "spatial"].shape == (48, 48)

    def test_tied_layers_add_up(self, model, space) -> None:
        found = find_evidence(model, space, batches(1), "l1").importance
        width = next(w for w in space.channels.widths if w.name == "layer3.0.conv2")
        by_hand = {}
        for name in width.writers:
            norms = model.state[f"{name}.weight"].abs().sum((1, 2, 3))
            for bundle, score in zip(
                space.channels.layouts[name].tolist(), (norms / norms.mean()).tolist(), strict=True
            ):
                by_hand[bundle] = by_hand.get(bundle, 0.0) + score
        for segment in width.segments:
            for bundle in segment:
                assert found[bundle] == pytest.approx(by_hand[bundle], rel=1e-5)

    def test_a_channel_that_nothing_reads_goes_first(self, model, space) -> None:
        state = {name: tensor.clone() for name, tensor in model.state.items()}
        state["layer2.1.conv2.weight"][:, 5] = 0.0
        dead = find_evidence(TracedModel(model.graph, state), space, batches(), "taylor").importance
        layout = space.channels.layouts["layer2.1.conv1"].tolist()
        assert dead[layout[5]] == 0.0
        assert np.mean([dead[b] for b in layout]) == pytest.approx(1.0)

    def test_it_is_written_and_read(self, known, tmp_path: Path) -> None:
        save_evidence(known.evidence, tmp_path / "e.safetensors")
        again = load_evidence(tmp_path / "e.safetensors")
        assert again.importance == known.evidence.importance
        assert again.moments.keys() == known.evidence.moments.keys()
        assert all(torch.equal(again.moments[key], value) for key, value in known.evidence.moments.items())
        (tmp_path / "e.safetensors").write_bytes(b"nothing")
        with pytest.raises(InvalidFileError, match="delete it"):
            load_evidence(tmp_path / "e.safetensors")

    def test_filters_of_transposed_convolutions_are_by_output_channel(self) -> None:
        from hwnas.spaces.traced.graph import Node

        weight = torch.randn(4, 3, 2, 2)  # (in, out / groups, …), two groups: six output channels
        node = Node("up", "deconv", ("x",), (6, 8, 8), {"groups": 2}, {"weight": "w"})
        found = filters(node, TracedModel(None, {"w": weight}))  # type: ignore[arg-type]
        assert found.shape == (6, 2, 2, 2)
        assert torch.equal(found[4], weight[2:, 1])


def one_by_one(function, shared, arguments, keep) -> None:
    for i, own in enumerate(arguments):
        keep(i, function(shared, *own))


class TestSensitivity:
    @pytest.fixture(scope="class")
    def probe(self, known) -> Probe:
        return Probe(known, images(16), images(16, 1), torch.arange(16) % 10)

    def test_the_model_itself_changes_nothing(self, space, probe) -> None:
        assert effect_of(probe, space.reference().to_json()).divergence == pytest.approx(0.0, abs=1e-6)

    def test_ranges_are_found_as_training_finds_them(self, model) -> None:
        """Four bits for activations with rare large values: clipping these moves the answers less than coarse steps."""
        space = model.space({"act_bits": [4, 32]})
        known = TrainedWeights(space.spec, model.state, find_evidence(model, space, batches(), "l1"))
        candidate = dict(space.reference()) | {n: 4 for n in space.options if n.endswith("conv1.act_bits")}
        text = space.decode(space.encode(candidate)).to_json()
        damage = {
            ranges: effect_of(Probe(known, images(64), images(64, 1), torch.arange(64) % 10, ranges), text).divergence
            for ranges in ("tracked", "minmax", "mse")
        }
        assert damage["mse"] < damage["minmax"]
        assert damage["tracked"] != damage["minmax"]

    def test_every_single_change_is_measured_once_and_known_again(self, space, probe, tmp_path) -> None:
        path, asked = tmp_path / "s.json", []

        def counting(function, shared, arguments, keep) -> None:
            asked.extend(arguments)
            for i in range(len(arguments)):
                keep(i, Effect(0.1 * i, 0.5))

        found = measure_sensitivity(space, probe, counting, path)
        texts = [text for (text,) in asked]
        assert len(set(texts)) == len(texts)
        reference = space.reference()
        for text in texts:
            changed = [name for name, option in json.loads(text).items() if reference[name] != option]
            matters = [n for n in changed if space.active(space.encode(json.loads(text))[None])[0][space.column(n)]]
            assert len({n.rpartition(".")[0] for n in matters}) == 1
        asked.clear()
        assert measure_sensitivity(space, probe, counting, path).effects == found.effects
        assert not asked

    def test_what_was_cut_off_goes_on(self, space, probe, tmp_path) -> None:
        path = tmp_path / "s.json"

        def stops(function, shared, arguments, keep) -> None:
            keep(0, Effect(0.3, 0.5))
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            measure_sensitivity(space, probe, stops, path)
        rest = []
        measure_sensitivity(space, probe, lambda f, s, arguments, keep: rest.extend(arguments), path)
        assert len(Sensitivity.load(path).effects) >= 1
        everything = []
        measure_sensitivity(space, probe, lambda f, s, arguments, keep: everything.extend(arguments), tmp_path / "new")
        assert len(rest) == len(everything) - 1

    def test_rougher_changes_do_more(self, known, probe, space) -> None:
        reference = dict(space.reference())
        eight = effect_of(probe, json.dumps(reference | {"layer2.0.conv2.weight_bits": 8}))
        half = effect_of(probe, json.dumps(reference | {"layer2.0.conv1.keep": 0.5}))
        assert 0 < eight.divergence < half.divergence

    def test_a_broken_file_says_what_to_do(self, tmp_path) -> None:
        (tmp_path / "s.json").write_text("{}")
        with pytest.raises(InvalidFileError, match="delete it to measure them again"):
            Sensitivity.load(tmp_path / "s.json")


def made_up(space: TracedSpace) -> Sensitivity:
    rng = np.random.default_rng(0)
    reference = space.reference()
    effects = {}
    for part in parts(space):
        for change in part.changes():
            if any(reference[name] != option for name, option in change):
                effects[change] = Effect(float(rng.uniform(0.0, 1.0)), 0.5)
    return Sensitivity(0.9, effects)


class TestProxy:
    def test_the_whole_model_has_no_damage_and_a_dropped_branch_hides_what_is_in_it(self, space) -> None:
        sensitivity = made_up(space)
        proxy = AdditiveProxy(space, sensitivity, 0.9)
        reference = dict(space.reference())
        assert proxy.damage(space.encode(reference)[None]).sum() == 0
        assert proxy.accuracy(space.encode(reference)[None])[0] == pytest.approx(0.9)
        dropped = reference | {"layer1.0.present": False}
        inside = dropped | {"layer1.0.conv1.keep": 0.5, "layer1.0.conv2.weight_bits": 8}
        rows = space.encode_all([dropped, inside])
        damage = proxy.damage(rows)
        assert (damage[0] == damage[1]).all()
        effect = sensitivity.effects[(("layer1.0.present", False),)]
        assert damage[0].sum() == pytest.approx(np.log1p(effect.divergence))

    def test_the_form_counts_with_the_rank(self, space) -> None:
        part = next(p for p in parts(space) if p.decisions == ("layer1.0.conv1.rank", "layer1.0.conv1.form"))
        sensitivity = made_up(space)
        proxy = AdditiveProxy(space, sensitivity, 0.9)
        spatial = dict(space.reference()) | {"layer1.0.conv1.rank": 0.5, "layer1.0.conv1.form": "spatial"}
        wanted = table(part, sensitivity.effects)[1]
        assert proxy.damage(space.encode(spatial)[None]).sum() == pytest.approx(np.log1p(wanted))

    def test_it_learns_what_each_kind_of_damage_costs(self, space) -> None:
        proxy = AdditiveProxy(space, made_up(space), 0.9)
        rng = np.random.default_rng(1)
        rows = space.sample(rng, 60)
        true = np.array([0.02, 0.004, 0.006, 0.05, 0.01])
        accuracy = 0.905 - proxy.damage(rows) @ true + 0.001 * rng.standard_normal(60)
        accuracy[3] = np.nan  # a trial that failed
        fitted = proxy.fitted(rows, accuracy)
        assert fitted.mean[0] == pytest.approx(0.905, abs=0.01)
        np.testing.assert_allclose(fitted.mean[1:], true, atol=0.006)
        prior = [PRIOR[kind] for kind in proxy.kinds]
        assert np.abs(fitted.mean[1:] - true).sum() < 0.3 * np.abs(prior - true).sum()
        assert (np.diag(fitted.covariance) < np.diag(proxy.prior.covariance)).all()

    def test_draws_are_from_what_is_believed(self, space) -> None:
        proxy, rng = AdditiveProxy(space, made_up(space), 0.9), np.random.default_rng(2)
        draws = np.array([proxy.drawn(proxy.prior, rng).mean for _ in range(2000)])
        np.testing.assert_allclose(draws.mean(0), proxy.prior.mean, atol=0.002)
        np.testing.assert_allclose(draws.std(0), np.sqrt(np.diag(proxy.prior.covariance)), rtol=0.1)


class TestScreened:
    def controller(self, space: TracedSpace, seed: int = 0, **changes) -> Screened:
        target = 0.5 * space.workload(space.reference()).macs
        objective = Objective(cost(space), (Goal(target, "macs", STRICT),))
        settings = {"name": "random", "options": {}, "proposals": 100} | changes
        return Screened(space, objective, seed, proxy=AdditiveProxy(space, made_up(space), 0.9), **settings)

    def test_what_it_proposes_first_is_the_best_of_what_the_other_found(self, space) -> None:
        controller = self.controller(space)
        (row,) = controller.ask(1)
        rng = np.random.default_rng(0)
        inner = make_controller("random", space, controller.objective, int(rng.integers(2**31)))
        rows = inner.ask(100)
        rewards = controller.objective.reward(
            controller.proxy.accuracy(rows, controller.proxy.prior), cost(space)(rows)
        )
        assert np.array_equal(row, rows[np.argmax(rewards)])
        assert controller.objective.reward(np.ones(1), cost(space)(row[None]))[0] > 0

    @pytest.mark.parametrize("name", ["random", "evolution", "ddpg"])
    def test_it_finds_all_of_a_space_that_is_smaller_than_a_batch(self, model, name: str) -> None:
        space = model.space([], {"layer[23].*.present": [True]})  # two branches may go
        controller = Screened(
            space, Objective(cost(space), (Goal(1e12, "macs", STRICT),)), name=name, options={}, proposals=20,
            proxy=AdditiveProxy(space, made_up(space), 0.9),
        )  # fmt: skip
        assert len({controller.ask(1)[0].tobytes() for _ in range(4)}) == 4
        with pytest.raises(InfeasibleError, match="no new candidate"):
            controller.ask(1)

    @pytest.mark.parametrize("name", ["evolution", "ddpg"])
    def test_any_controller_finds_better_candidates_than_random_ones(self, space, name: str) -> None:
        def reward(controller: Screened) -> float:
            row = controller.ask(1)
            accuracy = controller.proxy.accuracy(row, controller.proxy.prior)
            return float(controller.objective.reward(accuracy, cost(space)(row))[0])

        options = {"population": 16} if name == "evolution" else {"warmup": 10}
        mine = [reward(self.controller(space, seed, name=name, options=options, proposals=120)) for seed in range(3)]
        plain = [reward(self.controller(space, seed, proposals=120)) for seed in range(3)]
        assert np.mean(mine) > np.mean(plain)

    def test_a_saved_one_goes_on_alike(self, space) -> None:
        first = self.controller(space)
        rows = first.ask(2)
        first.tell(rows[:1], {"accuracy": np.array([0.8])})
        second = self.controller(space, seed=9)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert np.array_equal(first.ask(2), second.ask(2))


class TestDistillation:
    def test_the_loss_is_zero_for_the_teachers_answers_and_has_the_gradient_of_the_paper(self) -> None:
        generator = torch.Generator().manual_seed(0)
        taught = torch.randn(6, 10, generator=generator)
        assert float(distillation_loss(taught, taught, 4.0)) == pytest.approx(0.0, abs=1e-6)
        logits = torch.randn(6, 10, generator=generator, requires_grad=True)
        distillation_loss(logits, taught, 4.0).backward()
        # Equation 2 of the paper: (q − p) / T for each image, times T², over the number of images.
        expected = 4.0 * (functional.softmax(logits / 4, 1) - functional.softmax(taught / 4, 1)) / 6
        torch.testing.assert_close(logits.grad, expected, rtol=1e-4, atol=1e-6)

    def test_a_teacher_answers_as_the_network_does(self, model) -> None:
        x = images(8).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            expected, answers = model.network(x), teaching(model.network)(x)
        assert answers.dtype == torch.float32
        assert float((answers - expected).abs().max()) < 0.05 * float(expected.std())
