"""What is kept of measuring windows, and which networks they are for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hwnas.latency_tables.energy.profile import FILE, Session, networks_to_meter, table_with_energy
from hwnas.latency_tables.energy.windows import IDLE, EnergyProtocol, Window
from hwnas.latency_tables.table import LatencyTable, NetworkRow, Role
from hwnas.spaces.errors import InvalidFileError, UnavailableError

PROTOCOL = EnergyProtocol(rounds=2)
NAMES = (("{}", "a" * 16), ("{}", "b" * 16))


def a_session() -> Session:
    windows = [Window(IDLE, 0.0, 1.0, 100, 5.0)]
    windows += [Window(i, 2.0 + i, 3.0 + i, 50 * (i + 1), 9.0 + i) for i in range(2)]
    return Session(networks=NAMES, windows=tuple(windows), protocol=PROTOCOL)


def network(digest: str, ms: float, role: Role = "fit", space: str = "{}", mj: float | None = None) -> NetworkRow:
    return NetworkRow(digest, space, "{}", role, (), ms, ms, 0.01, 10, mj, None if mj is None else 0.1)


def test_round_trip(tmp_path: Path) -> None:
    session = a_session()
    unread = session.model_copy(update={"windows": tuple(replace(w, joules=None) for w in session.windows)})
    for each in (session, unread):
        each.save(tmp_path)
        assert Session.load(tmp_path) == each
    assert [p.name for p in tmp_path.iterdir()] == [FILE]


def test_a_missing_file_says_what_to_do_first(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match=r"there is no file .*windows\.json; measure energy first"):
        Session.load(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "\x00", '{"networks": [], "windows": [], "protocol": {}, "x": 1}'])
def test_files_that_hold_no_windows(text: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(InvalidFileError, match=r"windows\.json does not hold measuring windows"):
        Session.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["windows"][1].update(item=2),
        lambda d: d["windows"][1].update(item=-2),
        lambda d: d["windows"][1].update(runs=0),
        lambda d: d["windows"][1].update(runs="many"),
        lambda d: d["windows"][1].update(end_s=2.0),
        lambda d: d["windows"][1].update(start_s=float("nan")),
        lambda d: d["windows"][1].update(joules=float("inf")),
        lambda d: d["windows"][1].pop("start_s"),
        lambda d: d["networks"].append(["only one"]),
        lambda d: d["protocol"].update(max_spread=float("nan")),
        lambda d: d["protocol"].update(rounds=1.5),
    ],
)
def test_hostile_content_is_refused(change: Callable[[dict[str, Any]], object], tmp_path: Path) -> None:
    a_session().save(tmp_path)
    data = json.loads((tmp_path / FILE).read_text())
    change(data)
    (tmp_path / FILE).write_text(json.dumps(data))
    with pytest.raises(InvalidFileError, match=r"windows\.json does not hold measuring windows"):
        Session.load(tmp_path)


def test_networks_are_taken_evenly_over_latency_a_quarter_held_out() -> None:
    fit = [network(f"f{i}", float(i)) for i in range(100)]
    check = [network(f"c{i}", float(i), "check") for i in range(40)]
    other = [network(f"o{i}", float(i), space="other") for i in range(50)]
    table = LatencyTable((), (*reversed(fit), *check, *other))
    chosen = networks_to_meter(table, "{}", 20)
    assert [n.digest for n in chosen] == [
        *("c0", "c10", "c20", "c29", "c39"),
        *("f0", "f7", "f14", "f21", "f28", "f35", "f42", "f50", "f57", "f64", "f71", "f78", "f85", "f92", "f99"),
    ]
    few = networks_to_meter(LatencyTable((), tuple(fit[:3])), "{}", 64)
    assert [n.digest for n in few] == ["f0", "f1", "f2"]


def test_a_table_gets_the_energies_of_this_session_alone() -> None:
    session = a_session()
    table = LatencyTable((), (network("a" * 16, 1.0, mj=7.0), network("c" * 16, 1.0, mj=7.0), network("b" * 16, 1.0)))
    found, idle_watts = table_with_energy(table, session.networks, session.windows, PROTOCOL)
    assert idle_watts == 5.0
    assert [n.energy_mj for n in found.networks] == [
        pytest.approx((9.0 - 5.0) / 50 * 1e3), None, pytest.approx((10.0 - 5.0) / 100 * 1e3),
    ]  # fmt: skip
    assert [n.energy_spread for n in found.networks] == [0.0, None, 0.0]


def test_networks_of_another_registration_are_refused() -> None:
    session = a_session()
    table = LatencyTable((), (network("a" * 16, 1.0),))
    with pytest.raises(UnavailableError, match="of 1 networks that the device does not hold any more"):
        table_with_energy(table, session.networks, session.windows, PROTOCOL)
