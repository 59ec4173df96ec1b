"""What is in a kit: programs that a bare board can run, and the networks of the plan, small."""

from __future__ import annotations

import ast
import io
import json
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from hwnas.latency_tables.kit.budget import Budget
from hwnas.latency_tables.kit.pack import BOARD_MODULES, FOLDER, IR_VERSION, OPSET, KitPlan, pack_kit, repeat_weights
from hwnas.latency_tables.plan import anchors, precision_pairs, uniform_precision
from hwnas.latency_tables.profiler import prepare, settle
from hwnas.latency_tables.runtimes.onnxruntime import OnnxRuntime
from hwnas.spaces import load_space
from hwnas.spaces.errors import HwnasError
from hwnas.spaces.network import Network
from hwnas.spaces.onnx_graph import to_onnx
from tests.every_kind import IMAGE, everything

from .kits import LENIENT, NAME, tiny_space

ROOT = Path(__file__).resolve().parents[3]
BOARD_FILES = ["latency_tables/kit/measure.py", *(f"{m.replace('.', '/')}.py" for m in BOARD_MODULES)]

every_file = pytest.mark.parametrize("file", BOARD_FILES)


def imported_at_run_time(file: str) -> Iterator[str]:
    def walk(node: ast.AST) -> Iterator[ast.AST]:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        yield node
        for child in ast.iter_child_nodes(node):
            yield from walk(child)

    for node in walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)


@every_file
def test_programs_import_nothing_that_the_board_lacks(file: str) -> None:
    bundled = {f"hwnas.{module}" for module in BOARD_MODULES}
    optional = {"psutil"} if file == "latency_tables/machine.py" else set()
    for name in imported_at_run_time(file):
        root = name.split(".")[0]
        assert name in bundled or root in {"numpy", "onnxruntime", *sys.stdlib_module_names, *optional}, name


@every_file
def test_programs_are_python_3_9(file: str) -> None:
    tree = ast.parse((ROOT / file).read_text(), feature_version=(3, 9))
    calls = {ast.unparse(n.func): {k.arg for k in n.keywords} for n in ast.walk(tree) if isinstance(n, ast.Call)}
    assert "slots" not in calls.get("dataclass", set()), "dataclasses have slots from 3.10 on"
    assert "strict" not in calls.get("zip", set()), "zip is strict from 3.10 on"
    assert any(isinstance(n, ast.ImportFrom) and n.module == "__future__" for n in tree.body), "X | Y needs it"


def test_programs_are_the_projects_own(kit: Path) -> None:
    with zipfile.ZipFile(kit) as archive:
        for file in BOARD_FILES[1:]:
            assert archive.read(f"{FOLDER}/hwnas/{file}") == (ROOT / file).read_bytes()
        assert archive.read(f"{FOLDER}/measure.py") == (ROOT / BOARD_FILES[0]).read_bytes()
        names = archive.namelist()
    assert {n.split("/")[0] for n in names} == {FOLDER}
    packages = {str(Path(n).parent) for n in names if n.startswith(f"{FOLDER}/hwnas")}
    assert all(f"{package}/__init__.py" in names for package in packages), "an installed hwnas must not be found first"


def test_the_plan_is_that_of_a_registration(kit: Path) -> None:
    space = tiny_space()
    with zipfile.ZipFile(kit) as archive:
        plan = json.loads(archive.read(f"{FOLDER}/plan.json"))
        networks = zipfile.ZipFile(io.BytesIO(archive.read(f"{FOLDER}/networks.zip")))
    assert (plan["name"], plan["space"]) == (NAME, space.spec)
    first, *others = plan["pieces"]
    uniform = [space.decode(uniform_precision(space, *pair)).digest for pair in precision_pairs(space)]
    assert first == {"role": "fit", "networks": uniform}
    assert plan["anchors"] == [space.decode(row).digest for row in anchors(space)]
    assert set(plan["anchors"]) <= set(uniform)
    assert [(p["role"], len(p["networks"])) for p in others] == [("check", 6), ("fit", 6), ("fit", 6)]
    planned = [digest for piece in plan["pieces"] for digest in piece["networks"]]
    assert len(set(planned)) == len(planned) == 12 + 6 + 12
    assert set(planned) == set(plan["candidates"])
    for digest, values in plan["candidates"].items():
        assert space.decode(space.encode(values)).digest == digest
    files = set(networks.namelist()) - {"sum.onnx"}
    for digest in planned:
        both = {f"{digest}.int8.onnx", f"{digest}.uint8.onnx"}
        has_8_bit = any(
            o.weight_bits == 8 and o.in_bits <= 8 and not o.depthwise
            for o in space.workload(plan["candidates"][digest]).operators
        )
        assert files & {f"{digest}.onnx", *both} == (both if has_8_bit else {f"{digest}.onnx"})
    for name in networks.namelist():
        model = onnx.load_from_string(networks.read(name))
        assert model.opset_import[0].version <= 19, "the newest that ONNX Runtime 1.16 reads"
        assert onnx.TensorProto.INT4 not in {t.data_type for t in model.graph.initializer}, "1.22 cannot read it"


def kernels(runtime: OnnxRuntime, model: onnx.ModelProto, folder: Path) -> Counter[str]:
    path = folder / "optimised.onnx"
    runtime.session(model, optimized_model_filepath=str(path))
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def test_the_files_run_the_same_kernels_as_exported_ones_and_take_a_fraction_of_the_room(tmp_path: Path) -> None:
    space, runtime = load_space("mbconv", input_shape=(3, 32, 32), num_classes=10), OnnxRuntime()
    sizes = []
    for row in space.sample(np.random.default_rng(0), 6):
        plain, repeated = (space.build(space.decode(row)) for _ in range(2))
        settle(plain)
        repeat_weights(repeated)
        exported, packed = to_onnx(plain), to_onnx(repeated, whole_bytes=True, opset=OPSET)
        packed.ir_version = IR_VERSION
        assert kernels(runtime, exported, tmp_path) == kernels(runtime, packed, tmp_path)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, model in (("exported", exported), ("packed", packed)):
                archive.writestr(name, model.SerializeToString())
            sizes.append([archive.getinfo(name).compress_size for name in ("exported", "packed")])
        weights = {t.name: onnx.numpy_helper.to_array(t) for t in packed.graph.initializer if t.name.endswith("weight")}
        assert all(w.size < 32 or len(np.unique(w)) > 2 for w in weights.values()), (
            "no constant, which kernels might skip"
        )
    exported_bytes, packed_bytes = np.sum(sizes, axis=0)
    assert packed_bytes < exported_bytes / 2


@pytest.mark.parametrize("bits", [32, 8])
def test_networks_of_every_kind_are_packed(bits: int, tmp_path: Path) -> None:
    workload, runtime = everything(bits), OnnxRuntime()
    plain, repeated = (Network(workload, IMAGE) for _ in range(2))
    settle(plain)
    repeat_weights(repeated)
    exported, packed = to_onnx(plain), to_onnx(repeated, whole_bytes=True, opset=OPSET)
    packed.ir_version = IR_VERSION
    assert kernels(runtime, exported, tmp_path) == kernels(runtime, packed, tmp_path)
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in packed.graph.initializer if t.name.endswith("weight")}
    assert np.mean(weights["a.first/weight"] != 0) == pytest.approx(0.5, abs=0.01 if bits == 32 else 0.1)


def test_whole_bytes_change_no_output() -> None:
    space = load_space("mbconv", input_shape=(1, 8, 8), num_classes=10)
    network = space.build(space.decode(uniform_precision(space, 4, 8)))
    settle(network)
    x = np.random.default_rng(0).random((3, 1, 8, 8), dtype=np.float32)
    (narrow,), (whole,) = (
        OnnxRuntime().session(to_onnx(network, whole_bytes=flag)).run(None, {"input": x}) for flag in (False, True)
    )
    assert np.array_equal(narrow, whole)


def test_slow_networks_are_fewer_and_never_too_few() -> None:
    def amounts(network_s: float, minutes: float) -> tuple[int, int]:
        budget = Budget(6 * network_s, *(np.full(n, network_s) for n in (12, 40, 228)))
        checks, drawn = budget.amounts(minutes)
        if (checks, drawn) != (20, 36):
            assert budget.total_s(checks, drawn) <= 0.75 * 60 * minutes
        return checks, drawn

    assert amounts(1.0, 20) == (40, 228), "all"
    assert amounts(5.0, 20) == (40, 86), "180 in 15 min: 12 + 40 + 86, and 7 times 6 anchors"
    assert amounts(5.0, 40)[1] > amounts(5.0, 20)[1] > amounts(5.0, 19)[1]
    assert amounts(50.0, 20) == (20, 36), "12 + 36 to learn from"


@pytest.mark.parametrize(("side", "networks"), [(32, 240), (224, 48)])
def test_a_kit_takes_less_than_20_minutes_on_a_raspberry_pi_by_default(
    side: int, networks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hwnas.latency_tables.kit.pack._networks_archive", lambda *_: b"")
    space = load_space("mbconv", input_shape=(3, side, side), num_classes=10)
    kit = pack_kit(tmp_path / "kit.zip", NAME, space)
    assert (kit.networks, kit.checks) == (networks, 40 if networks == 240 else 20)
    assert kit.estimate_s < 20 * 60


def test_a_kit_that_cannot_be_packed_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise HwnasError("no such luck")

    monkeypatch.setattr("hwnas.latency_tables.kit.pack.to_onnx", fail)
    with pytest.raises(HwnasError, match="no such luck"):
        pack_kit(tmp_path / "kit.zip", NAME, tiny_space(), KitPlan(networks=12, checks=2, protocol=LENIENT))
    assert list(tmp_path.iterdir()) == []


def test_prepared_networks_are_not_the_packed_ones() -> None:
    """What a registration measures has weights of its own; only kits repeat them."""
    space = tiny_space()
    executable = prepare(space, uniform_precision(space, 32, 32), OnnxRuntime())
    model = executable.model  # type: ignore[attr-defined]
    weight = next(onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "head/weight")
    rows = np.sort(np.abs(weight.reshape(len(weight), -1)), axis=1)
    assert not np.allclose(rows[0] / rows[0].max(), rows[1] / rows[1].max())
