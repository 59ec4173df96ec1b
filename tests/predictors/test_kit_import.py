"""From `results.zip` to a device, and nothing from anything that is not such results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwnas.latency_tables import Device, list_devices, load_device
from hwnas.latency_tables.energy.profile import Session
from hwnas.latency_tables.kit.command import run
from hwnas.latency_tables.kit.pack import KitPlan, pack_kit
from hwnas.latency_tables.profiler import Plan, extend, prepare
from hwnas.latency_tables.runtimes.onnxruntime import OnnxRuntime
from hwnas.latency_tables.steadiness import Steadiness
from hwnas.latency_tables.table import LatencyTable
from hwnas.predictors import CostModel
from hwnas.predictors.kit_import import import_results
from hwnas.predictors.metrics import prediction_error
from hwnas.spaces import load_space
from hwnas.spaces.errors import HwnasError, InvalidFileError, InvalidOptionError, NoisyMeasurementError
from tests.latency_tables.kit.kits import LENIENT, NAME, Change, changed_results, tiny_kit, tiny_space, unpack


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_kit(tmp_path_factory.mktemp("kit") / "kit.zip")


@pytest.fixture(scope="module")
def good(kit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a board brought back: this machine, the kit's own programs in this process."""
    folder = unpack(kit, tmp_path_factory.mktemp("board"))
    assert run(folder, []) == 0
    return folder / "results.zip"


@pytest.fixture(autouse=True)
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HWNAS_DEVICES", str(tmp_path / "devices"))
    return tmp_path / "devices"


def test_a_device_is_made_as_by_a_registration(good: Path, kit: Path) -> None:
    made = import_results(good, kit=kit)
    assert list_devices() == [NAME]
    device = load_device(NAME)
    assert device == made
    space = tiny_space()
    profile, table = device.profile, device.table
    assert (profile.runtime, profile.runtime_settings["provider"]) == ("onnxruntime", "CPUExecutionProvider")
    assert {"processor", "cores", "memory", "system", "runtime", "8-bit weights", "python"} <= set(profile.facts)
    assert profile.protocol["rounds"] == LENIENT.rounds
    assert profile.verified is not None
    assert profile.verified.networks == len(table.with_role("check")) == 6
    assert len(table.with_role("fit")) == 24
    assert {n.space for n in table.networks} == {space.key}
    costs = CostModel(space, device)(space.sample(np.random.default_rng(0), 50))
    assert (costs["latency_ms"] > 0).all()

    # The same networks, measured by a registration on the same machine, whose runtime reads files of its own making.
    runtime = OnnxRuntime(weights_8bit=profile.runtime_settings["weights_8bit"])
    rows = np.array([space.encode(json.loads(n.candidate)) for n in table.networks])
    steady = Steadiness(work=lambda: None, clock=lambda: 0.0)
    other = extend(LatencyTable(), space, runtime, rows, Plan(protocol=LENIENT), steadiness=steady)
    assert [n.digest for n in other.networks] == [n.digest for n in table.networks]
    assert [n.operators for n in other.networks] == [n.operators for n in table.networks]
    assert [(r.operator, r.count) for r in other.operators] == [(r.operator, r.count) for r in table.operators]
    ours, theirs = (np.array([n.latency_ms_p50 for n in t.networks]) for t in (table, other))
    assert 0.4 < np.median(ours / theirs) < 2.5
    assert prediction_error(ours, theirs).kendall_tau > 0.6
    for row in (rows[0], rows[11]):
        times = prepare(space, row, runtime).operator_times(2)
        kernels = {r.operator: set(r.kernels) for r in table.operators}
        for operator in space.workload_of_row(row).operators:
            if operator.weights and operator.name in times:
                assert kernels[operator] == set(times[operator.name].kernels), operator.name


def test_the_plan_within_the_results_will_do_and_the_name_may_be_another(good: Path, devices: Path) -> None:
    assert import_results(good, name="kitchen-pi").name == "kitchen-pi"
    assert list_devices() == ["kitchen-pi"]
    with pytest.raises(InvalidOptionError, match="there is a device 'kitchen-pi' already"):
        import_results(good, name="kitchen-pi")
    for name in ("../x", "", "a/b", "/tmp/x", "x" * 65, ".hidden"):
        with pytest.raises(InvalidFileError, match="cannot be called"):
            import_results(good, name=name)
    assert [p.name for p in devices.iterdir()] == ["kitchen-pi"]


def test_results_of_another_kit(good: Path, tmp_path: Path, devices: Path) -> None:
    other = tmp_path / "other.zip"
    pack_kit(other, NAME, tiny_space(), KitPlan(networks=12, checks=2, protocol=LENIENT), seed=1)
    with pytest.raises(InvalidFileError, match=r"was not measured with .*other\.zip"):
        import_results(good, kit=other)
    with pytest.raises(InvalidFileError, match=r"lacks 'hwnas-kit/plan\.json'"):
        import_results(good, kit=good)
    assert not devices.exists()


def put(*path: str | int, value: Any) -> Change:
    """Sets one value of the results, or of the plan where the path begins with ``plan``."""

    def change(plan: dict[str, Any], results: dict[str, Any]) -> None:
        place: Any = {**results, "plan": plan} if path[0] == "plan" else results
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


def twice(_: dict[str, Any], results: dict[str, Any]) -> None:
    results["pieces"].append(results["pieces"][1])


def repeated(plan: dict[str, Any], _: dict[str, Any]) -> None:
    plan["pieces"][2]["networks"][0] = plan["pieces"][1]["networks"][0]


def swapped(plan: dict[str, Any], _: dict[str, Any]) -> None:
    one, other = list(plan["candidates"])[:2]
    plan["candidates"][one] = plan["candidates"][other]


def renamed(plan: dict[str, Any], _: dict[str, Any]) -> None:
    plan["pieces"][2]["networks"][0] = "0123456789abcdef"


def without(part: str, key: str) -> Change:
    return lambda plan, results: (plan if part == "plan" else results).pop(key)


def energy(**changes: Any) -> Change:
    def change(plan: dict[str, Any], results: dict[str, Any]) -> None:
        own = {
            "networks": plan["pieces"][0]["networks"],
            "protocol": {"rounds": 2, "window_s": 1.0, "settle_s": 1.0, "max_spread": 0.15},
            "windows": [{"item": -1, "start_s": 5.0, "end_s": 6.0, "runs": 1}],
        }
        results["energy"] = own | changes

    return change


TIMING = ("pieces", 1, "timings", 0)
STOVE = "\x1b]0;x\x07"
HOSTILE: dict[str, tuple[Change, str]] = {
    "negative latency": (put(*TIMING, "p50_ms", value=-1.0), r"pieces\.1\.timings\.0\.p50_ms"),
    "no latency": (put(*TIMING, "p50_ms", value=0), "greater than or equal to 0"),
    "latency that is nothing": (put(*TIMING, "p50_ms", value=float("nan")), "NaN is no figure"),
    "endless latency": (put(*TIMING, "p90_ms", value=float("inf")), "Infinity is no figure"),
    "absurd latency": (put(*TIMING, "p90_ms", value=1e300), "less than or equal to"),
    "latency as text": (put(*TIMING, "p50_ms", value="1.0"), "valid number"),
    "latency as truth": (put(*TIMING, "p50_ms", value=True), "valid number"),
    "p90 below p50": (put(*TIMING, "p90_ms", value=1e-6), "90th percentile below the median"),
    "negative runs": (put(*TIMING, "runs", value=-3), r"timings\.0\.runs"),
    "half a run": (put(*TIMING, "runs", value=2.5), r"timings\.0\.runs"),
    "anchor of nothing": (put("pieces", 0, "anchors_ms", 0, value=0.0), "anchors_ms"),
    "too few anchors": (put("pieces", 0, "anchors_ms", value=[1.0]), "another number of networks"),
    "probe of nothing": (put("pieces", 0, "probe_ms", value=0.0), "probe_ms"),
    "too few timings": (put("pieces", 1, "timings", value=[]), "another number of networks"),
    "negative operator": (put("pieces", 0, "operators", 0, "stem", "ms", value=-0.1), "operators"),
    "operators elsewhere": (put("pieces", 1, "operators", value=[{}]), "operators of other networks"),
    "no operators": (put("pieces", 0, "operators", value=[]), "operators of other networks"),
    "escape in a kernel": (put("pieces", 0, "operators", 0, "stem", "kernels", value=[STOVE]), "cannot be shown"),
    "escape in a fact": (put("facts", "processor", value=STOVE), "cannot be shown"),
    "markup in a fact": (put("facts", "processor", value="[link=http://x]y[/link]"), "cannot be shown"),
    "long fact": (put("facts", "processor", value="x" * 10_000), "at most 200 characters"),
    "many facts": (put("facts", value={str(i): "x" for i in range(99)}), "at most 32"),
    "unknown key": (put("command", value="rm"), "Extra inputs are not permitted"),
    "unknown format": (put("format", value=2), "format"),
    "missing key": (without("results", "pieces"), "pieces: Field required"),
    "no pieces": (put("pieces", value=[]), "pieces"),
    "pieces as text": (put("pieces", value="all"), "valid array"),
    "piece that is not planned": (put("pieces", 1, "index", value=9), "a piece 9, which the plan does not have"),
    "piece twice": (twice, "a piece twice"),
    "piece refused and measured": (put("refused", value=[{"index": 1, "reason": "x"}]), "a piece twice"),
    "no reference": (put("pieces", 0, "index", value=3), "does not begin with the reference network"),
    "other threads": (put("settings", "threads", value=4), "other settings than the plan's"),
    "other provider": (put("settings", "provider", value="CUDAExecutionProvider"), "other settings than the plan's"),
    "odd storage": (put("settings", "weights_8bit", value="float64"), "weights_8bit"),
    "date beyond time": (put("finished", value=1e300), "finished"),
    "network twice": (repeated, "names a network twice"),
    "network that is another": (swapped, "is not the one that it names"),
    "unknown network": (renamed, "does not say what network"),
    "digest that is none": (put("plan", "pieces", 1, "networks", 0, value="../../x"), "networks"),
    "candidate of no space": (put("plan", "candidates", "0" * 16, value={"a": 1}), "is none of the space"),
    "escape in a candidate": (put("plan", "candidates", "0" * 16, value={"a": STOVE}), "candidates"),
    "candidate that is none": (put("plan", "candidates", "0" * 16, value=[1]), "candidates"),
    "other anchors": (put("plan", "anchors", value=["0" * 16]), "other anchors"),
    "other reference": (put("plan", "pieces", 0, "role", value="check"), "does not begin with the space's reference"),
    "unknown space": (put("plan", "space", "name", value="resnet"), "a space that cannot be loaded: unknown space"),
    "space in a file": (put("plan", "space", "name", value="/etc/space.yaml"), "space"),
    "space in a file here": (put("plan", "space", "name", value="space.yaml"), "cannot be loaded: unknown space"),
    "huge image": (put("plan", "space", "input_shape", value=[3, 9999, 9999]), "cannot be loaded"),
    "huge classifier": (put("plan", "space", "num_classes", value=10**9), "num_classes"),
    "unknown dimension": (put("plan", "space", "joint", value=["bits", "colour"]), "cannot be loaded"),
    "space of another kind": (put("plan", "space", value="mbconv"), "space"),
    "name that is none": (put("plan", "name", value="../../evil"), "cannot be called"),
    "protocol of text": (put("plan", "protocol", "rounds", value="many"), "protocol"),
    "windows of no network": (energy(windows=[{"item": 99, "start_s": 1, "end_s": 2, "runs": 1}]), "does not name"),
    "windows of an unknown one": (energy(networks=["0" * 16]), "which the plan does not name"),
    "windows backwards": (energy(windows=[{"item": 0, "start_s": 2, "end_s": 1, "runs": 1}]), "end before they begin"),
    "windows without runs": (energy(windows=[{"item": 0, "start_s": 1, "end_s": 2, "runs": 0}]), "runs"),
    "window networks twice": (energy(networks=["0" * 16] * 2), "does not name|twice"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_results_are_refused_and_leave_nothing(
    kind: str, good: Path, tmp_path: Path, devices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, complaint = HOSTILE[kind]
    monkeypatch.chdir(tmp_path)
    Path("space.yaml").write_text("name: mbconv\n")
    path = changed_results(good, tmp_path / "results.zip", change)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(InvalidFileError, match=complaint) as raised:
        import_results(path)
    assert str(raised.value).isprintable()
    assert set(tmp_path.rglob("*")) == before
    assert not devices.exists()


def test_too_few_networks_make_no_device(good: Path, tmp_path: Path, devices: Path) -> None:
    def only_some(*indexes: int) -> Change:
        return lambda _, results: results.update(pieces=[p for p in results["pieces"] if p["index"] in indexes])

    for indexes, complaint in (((0, 1), "at least 20"), ((0, 2, 3), "no held-out networks")):
        path = changed_results(good, tmp_path / "results.zip", only_some(*indexes))
        with pytest.raises(HwnasError, match=complaint):
            import_results(path)
    assert not devices.exists()


def test_a_power_meters_log_is_read(good: Path, tmp_path: Path, devices: Path) -> None:
    with pytest.raises(InvalidFileError, match=r"no measuring windows: run 'python measure.py --energy'"):
        import_results(good, power=tmp_path / "power.csv")
    start = 1.7e9
    path, power = tmp_path / "results.zip", tmp_path / "power.csv"

    def with_windows(plan: dict[str, Any], results: dict[str, Any]) -> None:
        names = [d for p in plan["pieces"] for d in p["networks"]]
        windows = [
            {
                "item": i,
                "start_s": start + 60 * r + 2 * (i + 1),
                "end_s": start + 60 * r + 2 * (i + 1) + 1.5,
                "runs": 100,
            }
            for r in range(2)
            for i in range(-1, len(names) - 5)
        ]
        energy(networks=names[: len(names) - 5], windows=windows)(plan, results)

    changed_results(good, path, with_windows)
    lines = ["time_s,power_w"]
    for k in range(1200):
        t = 0.1 * k - 5
        item = int((t % 60) // 2) - 1
        lines.append(f"{start + t:.2f},{2.0 + (1.0 + 0.1 * (7 * item % 25) if t >= 0 and 0 <= item < 25 else 0.0):.3f}")
    power.write_text("\n".join(lines))
    made = import_results(path, power=power)
    meter = made.profile.power_meter
    assert meter is not None
    assert meter.idle_watts == pytest.approx(2.0, abs=0.05)
    assert meter.what == "an external meter, log power.csv"
    known = [n.energy_mj for n in made.table.networks if n.energy_mj is not None]
    assert len(known) == 25
    assert known[0] == pytest.approx(1.0 * 1.5 / 100 * 1e3, rel=0.2)  # 1 W for 1.5 s, 100 inferences
    assert known[20] == pytest.approx(2.5 * 1.5 / 100 * 1e3, rel=0.2)

    # The log may come later, too; and one that does not fit leaves no device.
    waiting = import_results(path, name="later")
    assert waiting.profile.power_meter is None
    assert len(Session.load(devices / "later").windows) == 2 * 26
    power.write_text("time_s,power_w\n1,2\n1.1,2\n1.2,2\n")
    with pytest.raises(NoisyMeasurementError):
        import_results(path, power=power, name="never")
    assert list_devices() == ["later", NAME]
    assert not (devices / "never").exists()


def test_a_device_of_another_machine_is_read_where_devices_are(good: Path, tmp_path: Path) -> None:
    path = changed_results(good, tmp_path / "results.zip", put("facts", "processor", value="Cortex-A72"))
    made = import_results(path)
    assert Device.load(tmp_path / "devices" / NAME).profile.facts["processor"] == "Cortex-A72"
    space = load_space("mbconv", input_shape=(1, 8, 8), num_classes=10, joint=("bits",))
    assert CostModel(space, made).of(space.reference())["latency_ms"] > 0
