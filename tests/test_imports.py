"""Imports go one way: entry points, build, task with data and callbacks, the pure parts, spec."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import segbench

SRC = Path(segbench.__file__).parent

LAYERS = (
    ("__init__", "errors", "closed_pipe", "digits", "processes", "stopping", "wandb_access"),
    ("spec",),
    (
        "models",
        "losses",
        "metrics",
        "optim",
        "loss_rate",
        "inference",
        "provenance",
        "runs",
        "wandb_source",
        "wandb_artifacts",
    ),
    ("config", "data", "panels", "tables", "checkpoint", "hardware"),
    ("entry", "task", "ledger", "deviations", "resume", "arguments"),
    ("callbacks", "compare", "prediction", "running"),
    ("build", "report"),
    ("initialise", "stages"),
    (
        "train",
        "evaluate",
        "predict",
        "export",
        "score",
        "bench",
        "listing",
        "data_command",
        "reproduce",
        "sweep",
        "ranks",
    ),
    ("cli", "completion"),
)
LAYER = {part: level for level, parts in enumerate(LAYERS) for part in parts}
ENTRY_POINTS = LAYERS[-2]
PURE = ("models", "losses", "metrics", "inference")
PART_OF = {"tiling": "inference", "symmetries": "inference", "tile_memory": "inference"}
STATES = "metrics/states.py"
"""torchmetrics states over the metrics: the one module of them that knows torch."""


def part(module):
    """The part of the package that `segbench.a.b` belongs to."""
    name = module.split(".")[1] if "." in module else "__init__"
    return PART_OF.get(name, name)


def imports(path):
    """Every module that a file imports when it runs, at the top or inside functions."""
    return {name for node in ast.parse(path.read_text()).body for name in _imports(node)}


def _imports(node):
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative imports hide where they go"
        if node.module == "segbench":
            yield from (f"segbench.{alias.name}" if alias.name != "__version__" else "segbench" for alias in node.names)
        else:
            yield node.module
    for child in ast.iter_child_nodes(node):
        yield from _imports(child)


FILES = {str(path.relative_to(SRC)): imports(path) for path in sorted(SRC.rglob("*.py"))}
PARTS = {name: part("segbench." + name.removesuffix(".py").split("/")[0]) for name in FILES}


def outside(name):
    return {module.split(".")[0] for module in FILES[name] if not module.startswith("segbench")}


def inside(name):
    return {part(module) for module in FILES[name] if module.split(".")[0] == "segbench"} - {PARTS[name]}


def test_type_checking_imports_do_not_count_and_those_in_functions_do(tmp_path):
    (tmp_path / "a.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\ndef f():\n    import wandb.sdk\n"
    )
    assert imports(tmp_path / "a.py") == {"typing", "wandb.sdk"}


def test_every_part_has_its_layer():
    assert set(PARTS.values()) <= set(LAYER), "give new parts their layer in LAYERS"


@pytest.mark.parametrize("name", FILES)
def test_imports_go_down_only(name):
    own = PARTS[name]
    if own == "__init__":
        assert not inside(name)
    allowed = {other for other in LAYER if LAYER[other] < LAYER.get(own, 0)} | set(
        ENTRY_POINTS if own in ENTRY_POINTS else ()
    )
    if own in LAYERS[-1]:
        allowed |= set(LAYERS[-1])
    assert inside(name) <= allowed


@pytest.mark.parametrize("name", [name for name in FILES if PARTS[name] in PURE])
def test_the_pure_parts_know_no_framework_and_not_each_other(name):
    assert not outside(name) & {"lightning", "hydra", "omegaconf", "wandb"}
    assert inside(name) <= {"errors", "spec"}


@pytest.mark.parametrize("name", [name for name in FILES if PARTS[name] == "metrics" and name != STATES])
def test_metrics_are_numpy(name):
    assert not outside(name) & {"torch", "torchmetrics"}


@pytest.mark.parametrize("name", [name for name in FILES if PARTS[name] in ("runs", "compare", "report")])
def test_a_run_directory_is_read_without_torch(name):
    assert not outside(name) & {"torch", "lightning", "torchmetrics"}
    assert inside(name) <= {
        "digits",
        "errors",
        "spec",
        "runs",
        "metrics",
        "wandb_source",
        "wandb_artifacts",
        "config",
        "entry",
        "compare",
    }


def test_wandb_is_met_at_the_edge_only():
    users = {name for name in FILES if "wandb" in outside(name)}
    assert users
    assert {name for name in users if PARTS[name] not in ("callbacks", "wandb_source", "wandb_artifacts")} == set()


def test_only_build_instantiates():
    assert [name for name in FILES if "hydra.utils" in FILES[name]] == ["build.py"]


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["completion", "query", "segbench train mod"], ["list", "model"], ["compare", "--help"]],
    ids=lambda a: a[0],
)
def test_help_completion_and_list_start_without_torch(arguments):
    code = (
        "import sys; from segbench.cli import main; main(); "
        "heavy = {'torch', 'lightning', 'numba', 'cv2', 'albumentations', 'matplotlib'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
