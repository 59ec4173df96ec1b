"""New devices from known ones, where the truth is planted."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import spearmanr

from hwnas.predictors.smoothing import KnownTables
from hwnas.predictors.transfer import Transfer, Transferred
from hwnas.spaces.errors import UnavailableError

from .planted_devices import planted_devices

PLANTED = planted_devices()
SMOOTHED = KnownTables.of(PLANTED.measured(0.03), PLANTED.features)
DEVICES = PLANTED.true_ms.shape[1]


def transfer_to(new: int) -> Transfer:
    return Transfer(SMOOTHED.select([i for i in range(DEVICES) if i != new]))


def drawn(seed: int, n: int = 10) -> np.ndarray:
    return np.random.default_rng(seed).choice(len(PLANTED.choices), n, replace=False)


def test_a_device_like_a_known_one_is_recovered_with_its_scale() -> None:
    known = PLANTED.true_ms
    found = Transfer(known).fit(drawn(0), 3 * known[drawn(0), 2])
    assert np.abs(found.latency_ms / (3 * known[:, 2]) - 1).max() < 0.01


def test_a_planted_combination_is_recovered() -> None:
    known = PLANTED.true_ms
    shares = known / known.mean(axis=0)
    new = 7 * (0.8 * shares[:, 0] + 0.5 * shares[:, 1] - 0.1 * shares[:, 3])
    found = Transfer(known).fit(drawn(1, 25), new[drawn(1, 25)])
    assert np.abs(found.latency_ms / new - 1).mean() < 0.005


@pytest.mark.parametrize("new", range(DEVICES))
def test_ten_networks_rank_all_others(new: int) -> None:
    measured = PLANTED.measured(0.01, seed=9)[:, new]
    transfer = transfer_to(new)
    index = transfer.next_networks(10, among=drawn(2, 200))
    found = transfer.fit(index, measured[index])
    assert spearmanr(found.latency_ms, PLANTED.true_ms[:, new]).statistic > 0.97


def test_the_mean_is_the_stated_combination_of_known_latencies() -> None:
    known = PLANTED.true_ms[:, 1:]
    found = Transfer(known).fit(drawn(3), PLANTED.measured(0.05)[drawn(3), 0])
    flat = KnownTables.of(known)  # its floor lifts the fastest networks
    assert found.latency_ms == pytest.approx(flat.shape * flat.mean_ms @ found.weights + found.constant_ms)


def test_the_error_bars_cover_nearly_all_measurements() -> None:
    covered = []
    for new in range(DEVICES):
        for seed in range(5):
            measured = PLANTED.measured(0.05, seed=seed + 20)[:, new]
            index = drawn(seed)
            found = transfer_to(new).fit(index, measured[index])
            covered.append(np.mean(np.abs(found.latency_ms - measured) < 2 * found.latency_ms_std))
    assert 0.9 < np.mean(covered) < 0.995


def test_the_error_bars_follow_the_noise() -> None:
    deviations = [
        np.median(transfer_to(0).fit(drawn(4), PLANTED.measured(noise)[drawn(4), 0]).latency_ms_std)
        for noise in (0.01, 0.1, 0.3)
    ]
    assert all(low < high for low, high in pairwise(deviations))


def test_one_hiccup_among_ten_measurements_does_no_harm() -> None:
    index = drawn(5)
    measured = PLANTED.measured(0.02, seed=3)[index, 0]
    spoilt = np.where(np.arange(10) == 4, 6 * measured, measured)
    without, found = (transfer_to(0).fit(index, values) for values in (measured, spoilt))
    rho, spoilt_rho = (spearmanr(f.latency_ms, PLANTED.true_ms[:, 0]).statistic for f in (without, found))
    assert spoilt_rho > rho - 0.05 > 0.9
    assert np.median(found.latency_ms / PLANTED.true_ms[:, 0]) == pytest.approx(1, abs=0.05)


def test_chosen_networks_are_better_than_random_ones() -> None:
    errors: dict[str, list[float]] = {"chosen": [], "drawn": []}
    measured = PLANTED.measured(0.05, seed=8)
    for new in range(DEVICES):
        transfer = transfer_to(new)
        for seed in range(6):
            for way, index in (
                ("drawn", drawn(seed, 6)),
                ("chosen", transfer.next_networks(6, among=drawn(seed, 200))),
            ):
                found = transfer.fit(index, measured[index, new])
                error = np.abs(np.log(found.latency_ms / PLANTED.true_ms[:, new]))
                errors[way].append(float(error.mean()))
    assert np.mean(errors["chosen"]) < 0.85 * np.mean(errors["drawn"])


def test_the_next_networks_are_new_and_continue_a_choice() -> None:
    transfer = transfer_to(0)
    first = transfer.next_networks(4)
    assert len(set(first)) == 4
    further = transfer.next_networks(3, measured=first)
    assert not set(first) & set(further)
    assert transfer.next_networks(7).tolist() == [*first, *further]
    assert set(transfer.next_networks(9, measured=[5], among=[3, 4, 5])) == {3, 4}


def test_smoothing_takes_out_noise_and_hiccups() -> None:
    noisy = PLANTED.measured(0.1, hiccups=0.03)
    found = KnownTables.of(noisy, PLANTED.features)
    truth = PLANTED.true_ms / PLANTED.true_ms.mean(axis=0)
    raw = np.abs(noisy / PLANTED.true_ms - 1).mean()
    assert np.abs(found.shape / truth - 1).mean() < raw / 4
    assert np.exp(found.log_noise / 2) == pytest.approx(0.1, abs=0.02)


def test_without_architectures_the_noise_is_what_other_devices_do_not_explain() -> None:
    quiet, loud = (KnownTables.of(PLANTED.measured(noise)).log_noise.mean() for noise in (0.002, 0.1))
    assert loud > quiet + 3


def test_one_known_device_is_enough() -> None:
    found = Transfer(PLANTED.true_ms[:, :1]).fit(drawn(6), 2 * PLANTED.true_ms[drawn(6), 0])
    assert found.latency_ms == pytest.approx(2 * PLANTED.true_ms[:, 0], rel=0.02)


def test_useless_tables_and_measurements_are_refused() -> None:
    with pytest.raises(UnavailableError, match="must be positive numbers"):
        Transfer(np.array([[1.0, 2.0], [0.0, 1.0]]))
    with pytest.raises(UnavailableError, match="at least two networks on one known device"):
        Transfer(np.ones((5, 0)))
    for indexes, measured in (([0, 1], [1.0, 1.0]), ([0, 1, 2], [1.0, 1.0, -1.0]), ([0, 1, 2], [1.0, 1.0])):
        with pytest.raises(UnavailableError, match="at least 3 networks, each with a positive latency"):
            transfer_to(0).fit(indexes, measured)


def test_planned_networks_narrow_the_error_bars_and_informative_ones_most() -> None:
    planted = planted_devices(400, 7, seed=4)
    table = planted.measured(0.003, seed=5)
    transfer, new = Transfer(table[:, :6], planted.features), table[:, 6]
    chosen = transfer.next_networks(4)
    planned = transfer.next_networks(10, measured=chosen)
    rest = np.setdiff1d(np.arange(len(new)), chosen)
    drawn_anyhow = np.random.default_rng(6).choice(rest, 10, replace=False)
    none, some, ten, anyhow = (
        transfer.fit(chosen, new[chosen], rows) for rows in ((), planned[:5], planned, drawn_anyhow)
    )
    assert (ten.latency_ms == none.latency_ms).all()
    assert (ten.latency_ms_std < some.latency_ms_std).all()
    assert (some.latency_ms_std < none.latency_ms_std).all()

    def typical(found: Transferred) -> float:
        return float(np.median(found.latency_ms_std / found.latency_ms))

    assert typical(ten) < 0.97 * typical(none)
    assert typical(ten) < typical(anyhow)
    both = np.concatenate([chosen, planned])
    assert typical(transfer.fit(both, new[both])) < typical(ten)  # measuring also tells how noisy the device is
