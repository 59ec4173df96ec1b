"""The folders are layers: what each module may import, and what no module may do."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("spaces", "latency_tables", "predictors", "search", "scripts")
"""From the lowest to the highest."""
MODULES = sorted(path.relative_to(ROOT) for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
WITH_TORCH = {
    "calibration", "calls", "compression.importance", "compression.low_rank", "compression.patch_moments",
    "compression.range_calibration", "compression.range_observer", "compression.ranges", "compression.taylor",
    "compression.weight_sharing", "frozen", "hadamard", "images", "network", "onnx_calls", "onnx_graph",
    "onnx_kinds", "onnx_writer", "products", "quantizers", "shared.mixture_run", "shared.shared_network",
    "shared.shared_unit", "sparsify", "traced.arguments", "traced.aten", "traced.expressions", "traced.handlers",
    "traced.layer_handlers", "traced.model", "traced.rows", "traced.shape_handlers", "traced.tracing", "traced.weights",
    "unit", "units",
}  # fmt: skip
"""Of spaces: all other modules only describe."""

every_module = pytest.mark.parametrize("path", MODULES, ids=str)


def tree_of(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), str(path))


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports anywhere, functions and type-checking blocks included."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def test_all_layers_have_modules() -> None:
    assert {path.parts[0] for path in MODULES} == set(LAYERS)


@every_module
def test_imports_only_go_down(path: Path) -> None:
    own = LAYERS.index(path.parts[0])
    for name in imported(path):
        root, *rest = name.split(".")
        if root == "hwnas" and rest:
            assert rest[0] in LAYERS, f"{path} imports {name}, which is no layer"
            assert LAYERS.index(rest[0]) <= own, f"{path} imports {name}, which is above it"


@every_module
def test_imports_are_absolute_and_under_one_namespace(path: Path) -> None:
    for name in imported(path):
        assert not name.startswith("."), f"{path} imports {name!r} relatively"
        assert name.split(".")[0] not in (*LAYERS, "tests"), f"{path} imports {name!r} outside of the namespace hwnas"


def test_no_module_is_importable_but_through_the_namespace() -> None:
    assert not (ROOT / "hwnas").exists()
    assert not (ROOT / "__init__.py").exists()


@pytest.mark.parametrize(
    ("package", "only"),
    [
        (
            "ray",
            {
                "search/ray_cluster.py",
                "search/ray_driver.py",
                "search/ray_map.py",
                "search/ray_measuring.py",
                "search/ray_nodes.py",
                "search/supernet/ray_training.py",
            },
        ),
        ("onnxruntime", {"latency_tables/runtimes/onnx_session.py", "latency_tables/runtimes/onnx_static.py"}),
    ],
)
def test_a_heavy_package_is_imported_in_few_places(package: str, only: set[str]) -> None:
    users = {path.as_posix() for path in MODULES if package in {name.split(".")[0] for name in imported(path)}}
    assert users == only


def test_modules_that_describe_spaces_do_without_torch() -> None:
    described = {".".join(path.with_suffix("").parts[1:]) for path in MODULES if path.parts[0] == "spaces"} - WITH_TORCH
    assert described >= {"decision", "candidate", "operator", "slot", "workload", "space", "stage_space", "catalog"}
    names = ["hwnas.spaces", *(f"hwnas.spaces.{name}" for name in sorted(described) if "__init__" not in name)]
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "from hwnas.spaces import load_space\n"
        "space = load_space('mbconv', input_shape=(1, 8, 8), num_classes=10)\n"
        "assert space.workload(space.reference()).macs > 0\n"
        "print(sorted({n.split('.')[0] for n in sys.modules} & {'torch', 'onnx', 'onnxruntime', 'ray'}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.anchor, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def test_every_package_is_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {f"hwnas.{'.'.join(path.parent.parts)}" for path in MODULES}
    assert set(settings["packages"]) == folders
    assert settings["package-dir"] == {f"hwnas.{layer}": layer for layer in LAYERS}


UNPICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {
    "eval", "exec", "torch.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all",
    "yaml.unsafe_load_all", "yaml.full_load_all", "os.system",
}  # fmt: skip


@every_module
def test_nothing_from_outside_is_executed_or_unpickled(path: Path) -> None:
    assert not UNPICKLERS & {name.split(".")[0] for name in imported(path)}
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and node.module in ("torch", "yaml"):
            assert not {alias.name for alias in node.names} & {"load", "unsafe_load", "full_load"}, f"{path}"
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in UNSAFE_CALLS, f"{path}:{node.lineno}: {ast.unparse(node)}"
            allowed = {k.arg: ast.unparse(k.value) for k in node.keywords if k.arg in ("allow_pickle", "shell")}
            assert "True" not in allowed.values(), f"{path}:{node.lineno}: {ast.unparse(node)}"
