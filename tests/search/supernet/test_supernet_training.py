"""A supernet learns weights and architecture parameters, each from its own images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from hwnas.search.supernet.architecture_parameters import ArchitectureParameters, gumbel_noise
from hwnas.search.supernet.cost_terms import BoundedTerm, CostTerm, HingeTerm, ProductTerm
from hwnas.search.supernet.recipe import SupernetRecipe
from hwnas.search.supernet.training import SupernetTraining
from hwnas.spaces.errors import DivergedError

from .toys import LEAST, MODES, option_cost, planted, recipe, toy_space, training

every_mode = pytest.mark.parametrize("mode", MODES)
PRODUCT = ProductTerm("latency_ms", LEAST)


def theta_batch(made: SupernetTraining) -> tuple[Tensor, Tensor]:
    return made.dataset.normalise(made.theta_part.images), made.theta_part.labels


# ---- architecture parameters -------------------------------------------------------------------------------------


def test_temperatures_are_those_of_the_paper() -> None:
    found = [SupernetRecipe().temperature_of(epoch) for epoch in (0, 1, 2, 89)]
    assert found == pytest.approx([5.0, 4.78, 4.56968, 0.09114], rel=1e-4)


def test_draws_follow_the_distribution() -> None:
    space = toy_space()
    logits = torch.tensor([0.0, 1.0, 2.0, 0.0, -1.0, 0.5])
    theta = ArchitectureParameters(space, logits)
    generator = torch.Generator().manual_seed(0)
    rows = np.array([theta.draw(gumbel_noise(6, generator)) for _ in range(3000)])
    shares = [p[1].item() for p in theta.probabilities()]
    assert shares == pytest.approx([1 / (1 + np.exp(-1)), 1 / (1 + np.exp(2)), 1 / (1 + np.exp(-1.5))], rel=1e-5)
    assert rows.mean(0) == pytest.approx(shares, abs=0.03)
    logs = theta.log_probability(np.array([[0, 1, 1]]), np.array([[True, False, True]]))
    assert logs.item() == pytest.approx(np.log((1 - shares[0]) * shares[2]), rel=1e-5)


def test_relaxed_draws_become_rows_as_the_temperature_falls() -> None:
    theta = ArchitectureParameters(toy_space(), torch.tensor([0.0, 1.0, 2.0, 0.0, -1.0, 0.5]))
    noise = gumbel_noise(6, torch.Generator().manual_seed(3))
    row = theta.draw(noise)
    hot, cold = (torch.stack(theta.relaxed(noise, temperature)) for temperature in (100.0, 0.01))
    assert (hot - 0.5).abs().max() < 0.03
    assert torch.equal(cold.round(), torch.nn.functional.one_hot(torch.from_numpy(row).long(), 2).float())


# ---- losses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("term", [PRODUCT, HingeTerm("latency_ms", 3.5, 2.0)], ids=["product", "hinge"])
def test_the_gradient_of_the_loss_is_that_of_finite_differences_with_the_noise_held_fixed(term: CostTerm) -> None:
    """Of a mixture. Without images, its only gradient is that of the cost; with them, that of all."""
    made = planted(recipe(), [term])
    made.network.double()
    theta = made.thetas[0].double()
    noise = [n.double() for n in made.noise(2)]
    images, labels = theta_batch(made)

    def loss() -> Tensor:
        return made.theta_loss(0, noise, 2.0, images.double(), labels)

    (found,) = torch.autograd.grad(loss(), [theta.logits])
    for option in range(len(theta.logits)):
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                theta.logits[option] += step
                values.append(loss().item())
                theta.logits[option] -= step
        assert found[option].item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5, abs=1e-9)
    assert found.abs().min() > 0


def test_the_gradient_of_the_log_cost_alone_is_that_of_finite_differences() -> None:
    theta = ArchitectureParameters(toy_space(), torch.linspace(-1, 1, 6)).double()
    noise = gumbel_noise(6, torch.Generator().manual_seed(0)).double()

    def log_cost() -> Tensor:  # FBNet's own form, of the relaxed draw
        return PRODUCT(torch.tensor(1.0), {"latency_ms": option_cost(theta.relaxed(noise, 3.0), "latency_ms")})

    (found,) = torch.autograd.grad(log_cost(), [theta.logits])
    for option in range(6):
        with torch.no_grad():
            theta.logits[option] += 1e-5
            more = log_cost().item()
            theta.logits[option] -= 2e-5
            less = log_cost().item()
            theta.logits[option] += 1e-5
        assert found[option].item() == pytest.approx((more - less) / 2e-5, rel=1e-6)


def test_the_terms_by_hand() -> None:
    loss = torch.tensor(2.0)
    product = ProductTerm("macs", 10.0, alpha=0.2, beta=0.6)
    assert product(loss, {"macs": torch.tensor(10.0)}).item() == pytest.approx(2 * 0.2)  # log(e) is 1
    assert product(loss, {"macs": torch.tensor(40.0)}).item() == pytest.approx(2 * 0.2 * (1 + np.log(4)) ** 0.6)
    hinge = HingeTerm("macs", 20.0, 3.0)
    found = [hinge(loss, {"macs": torch.tensor(cost)}).item() for cost in (10.0, 40.0)]
    assert found == pytest.approx([2, 2 + 3 * np.log(2)])
    bounded = BoundedTerm(hinge, (HingeTerm("params", 5.0), HingeTerm("macs", 80.0)))
    assert bounded.metrics == ("macs", "params")
    costs = {"macs": torch.tensor(40.0), "params": torch.tensor(10.0)}
    assert bounded(loss, costs).item() == pytest.approx(2 + 3 * np.log(2) + np.log(2))


def test_the_score_function_is_unbiased() -> None:
    """Its mean over many draws, against the exact expectation over all eight networks."""
    made = planted(recipe("single path"), [HingeTerm("latency_ms", 100.0)])  # costs nothing
    made.thetas[0].logits.data = torch.tensor([0.0, 0.3, 0.2, 0.0, -0.4, 0.5])
    images, labels = theta_batch(made)
    theta = made.thetas[0]
    rows = np.array(list(np.ndindex(2, 2, 2)), dtype=np.int16)
    with torch.no_grad():
        each = [torch.nn.functional.cross_entropy(made.network(images, row, {}), labels) for row in rows]
    mean = (theta.log_probability(rows).exp() * torch.stack(each)).sum()
    (exact,) = torch.autograd.grad(mean, [theta.logits])
    found = torch.zeros(6)
    for _ in range(60):
        found += torch.autograd.grad(made.theta_loss(0, made.noise(8), 1.0, images, labels), [theta.logits])[0] / 60
    assert exact.abs().max() > 0.05
    torch.testing.assert_close(found, exact, rtol=0, atol=0.02)


# ---- what is learnt --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["mixture", "single path"])
@pytest.mark.parametrize("good", [0, 1])
def test_an_option_that_dominates_accuracy_is_found(mode: str, good: int) -> None:
    """And in a mixture, where the loss has less noise, the cheapest of options that make no difference to accuracy."""
    own = recipe(mode, epochs=25, warmup_epochs=0, theta_learning_rate=0.1, batch_size=4)
    made = planted(own, [ProductTerm("latency_ms", LEAST, beta=1.0)], good)
    for _ in range(25):
        made.train_epoch()
    likeliest = [int(p.argmax()) for p in made.thetas[0].probabilities()]
    assert likeliest[2] == good
    if mode == "mixture":
        assert likeliest[:2] == [0, 0]


@pytest.mark.parametrize("mode", ["mixture", "single path"])
@pytest.mark.parametrize("form", ["product", "hinge"])
def test_the_more_the_cost_weighs_the_less_is_spent(mode: str, form: str) -> None:
    terms: list[CostTerm] = (
        [ProductTerm("latency_ms", LEAST, beta=b) for b in (0.1, 0.6, 3.0)]
        if form == "product"
        else [HingeTerm("latency_ms", LEAST, weight=w) for w in (0.005, 0.05, 2.0)]
    )
    found = []
    for term in terms:
        made = planted(recipe(mode, epochs=12, warmup_epochs=0, theta_learning_rate=0.05, batch_size=4), [term])
        for _ in range(12):
            report = made.train_epoch()
        found.append(report.expected_costs[0])
    assert found == sorted(found, reverse=True)
    assert found[0] > found[1] + 0.02 > found[2] + 0.04


@every_mode
def test_weights_and_architecture_parameters_learn_from_their_own_images(mode: str) -> None:
    made = training(recipe(mode, warmup_epochs=1))
    assert len(made.weights_part) == 64
    assert len(made.theta_part) == 16
    parts = torch.cat([made.weights_part.images, made.theta_part.images])
    assert len(torch.unique(parts.flatten(1), dim=0)) == 80
    start = {name: p.clone() for name, p in made.network.named_parameters()}
    made.train_epoch()
    assert not made.thetas[0].logits.any()  # the warm-up
    after = {name: p.clone() for name, p in made.network.named_parameters()}
    assert any(not torch.equal(start[name], p) for name, p in after.items())
    made.network.zero_grad(set_to_none=True)
    for batch in made._batches(made.theta_part):
        made.theta_step(batch[0], 1.0, *batch[1:])
    assert made.thetas[0].logits.any()
    assert all(p.grad is None and torch.equal(after[name], p) for name, p in made.network.named_parameters())
    logits = made.thetas[0].logits.clone()
    made.thetas[0].zero_grad(set_to_none=True)
    for batch in made._batches(made.weights_part):
        made.weights_step(batch[0], 1.0, *batch[1:])
    assert made.thetas[0].logits.grad is None
    assert torch.equal(made.thetas[0].logits, logits)


@every_mode
def test_other_images_for_one_of_both_leave_the_other_as_it_was(mode: str) -> None:
    """In the first epoch without a warm-up, in which the weights come first."""
    one, theirs, own = (training(recipe(mode, warmup_epochs=0)) for _ in range(3))
    theirs.theta_part.images.zero_()
    own.weights_part.images.zero_()
    for made in (one, theirs, own):
        made.train_epoch()
    weights = [dict(made.network.named_parameters()) for made in (one, theirs, own)]
    assert all(torch.equal(p, weights[1][name]) for name, p in weights[0].items())
    assert not all(torch.equal(p, weights[2][name]) for name, p in weights[0].items())
    assert not torch.equal(one.thetas[0].logits, theirs.thetas[0].logits)


def test_every_goal_has_architecture_parameters_of_its_own() -> None:
    terms = [HingeTerm("latency_ms", target, 5.0) for target in (3.1, 4.0, 6.0)]
    made = planted(recipe(epochs=25, warmup_epochs=0, theta_learning_rate=0.1, batch_size=4), terms)
    for _ in range(25):
        costs = made.train_epoch().expected_costs
    assert costs[0] < 3.4
    assert 3.7 < costs[1] < 4.3
    assert costs[2] > 4.4  # what costs nothing is not saved


def test_training_makes_the_networks_better() -> None:
    made = training(recipe("single path", epochs=6, theta_share=0.0, sandwich=True))
    losses = [made.train_epoch().weights_loss for _ in range(6)]
    assert losses[-1] < 0.7 * losses[0]
    assert made.history[-1].theta_loss is None


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    made = training(recipe(learning_rate=1e30))
    with pytest.raises(DivergedError, match="lower the supernet's learning_rate"):
        made.train_epoch()
