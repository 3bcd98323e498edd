"""The laws of the house: which room may import which, no circles, tests that mirror the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import segbench

SRC = Path(segbench.__file__).parents[1]
PACKAGE = SRC / "segbench"
TESTS = Path(__file__).parent

# From the bottom up: a room imports from rooms above it in this list only, and never from one beside it.
FLOORS = (
    ("", "errors"),
    ("spec", "config"),
    ("models", "losses", "metrics", "inference", "runtime"),
    ("data", "display", "runs", "tracking"),
    ("training", "compare"),
    ("prediction", "report"),
    ("experiment",),
    ("papers", "export", "sweep"),
    ("cli",),
    ("train", "evaluate", "__main__", "hydra_plugins"),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
PURE = ("models", "losses", "metrics", "inference")
STATES = "segbench.metrics.states"
"""torchmetrics states over the metrics: the one module of them that knows torch."""
THROUGH_SEVERAL_ROOMS = ("end_to_end", "slurm", "fixtures", "benchmarks")
"""Folders of tests that mirror no single room."""


def imported(path):
    """Every module that a file imports when it runs, at the top or inside functions, with the names it takes."""
    return {name for node in ast.parse(path.read_text()).body for name in _imported(node)}


def _imported(node):
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative imports hide where they go"
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from _imported(child)


def module_of(path):
    return ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_of(path): path for path in sorted(SRC.rglob("*.py"))}
IMPORTS = {module: imported(path) for module, path in FILES.items()}
INSIDE = {module: {name for name in names if name in FILES} - {module} for module, names in IMPORTS.items()}


def room(module):
    package, _, rest = module.partition(".")
    return rest.partition(".")[0] if package == "segbench" else package


def outside(module):
    return {name.split(".")[0] for name in IMPORTS[module]} - {"segbench", "hydra_plugins"}


def circles(arrows):
    """Sets of nodes that reach one another (Tarjan's strongly connected components of more than one node)."""
    order, low, stack, found = {}, {}, [], []

    def visit(node):
        order[node] = low[node] = len(order)
        stack.append(node)
        for other in sorted(arrows.get(node, ())):
            if other not in order:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == order[node]:
            circle = {*stack[stack.index(node) :]}
            del stack[stack.index(node) :]
            if len(circle) > 1:
                found.append(circle)

    for node in sorted(arrows):
        if node not in order:
            visit(node)
    return found


def test_type_checking_imports_do_not_count_and_those_in_functions_do(tmp_path):
    (tmp_path / "a.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\ndef f():\n    from wandb import sdk\n"
    )
    assert imported(tmp_path / "a.py") == {"typing", "typing.TYPE_CHECKING", "wandb", "wandb.sdk"}


def test_a_circle_is_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == [{"b", "c"}]
    assert circles({"a": {"b", "c"}, "b": {"c"}}) == []


def test_every_room_has_its_floor():
    assert {room(module) for module in FILES} == set(FLOOR)


@pytest.mark.parametrize("module", FILES)
def test_imports_go_down_only(module):
    own = room(module)
    upwards = {name for name in INSIDE[module] if room(name) != own and FLOOR[room(name)] >= FLOOR[own]}
    assert upwards == set()


def test_there_is_no_circle_of_files():
    assert circles(INSIDE) == []


@pytest.mark.parametrize("module", [module for module in FILES if room(module) in PURE])
def test_the_pure_parts_know_no_framework_and_not_each_other(module):
    assert not outside(module) & {"lightning", "hydra", "omegaconf", "wandb"}
    assert {room(name) for name in INSIDE[module]} <= {"errors", "spec", room(module)}


@pytest.mark.parametrize("module", [module for module in FILES if room(module) == "metrics" and module != STATES])
def test_metrics_are_numpy(module):
    assert not outside(module) & {"torch", "torchmetrics"}


@pytest.mark.parametrize("module", [module for module in FILES if room(module) in ("runs", "compare", "report")])
def test_a_run_directory_is_read_without_torch(module):
    assert not outside(module) & {"torch", "lightning", "torchmetrics"}
    assert {room(name) for name in INSIDE[module]} <= {
        *("errors", "spec", "config", "runtime", "runs", "display", "metrics", "tracking", "compare", "report")
    }


def test_trackers_are_known_in_one_room():
    assert {room(module) for module in FILES if "wandb" in outside(module)} == {"tracking"}


def test_only_build_instantiates():
    assert [module for module in FILES if "hydra.utils" in IMPORTS[module]] == ["segbench.experiment.build"]


def mirrored(path):
    """The modules that a file of tests is of: test_a.py, test_a_and_b.py, or test_<package>.py of a whole package."""
    folder = path.parent.relative_to(TESTS)
    source = (SRC if "hydra_plugins" in folder.parts else PACKAGE) / folder
    name = path.stem.removeprefix("test_")
    if name == folder.name:
        return [source / "__init__.py"]
    names = [name] if (source / f"{name}.py").is_file() else name.split("_and_")
    return [source / f"{each}.py" for each in names]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=str(path.relative_to(TESTS)))
        for path in sorted(TESTS.rglob("test_*.py"))
        if path != Path(__file__) and path.relative_to(TESTS).parts[0] not in THROUGH_SEVERAL_ROOMS
    ],
)
def test_tests_mirror_the_source(path):
    assert [str(each) for each in mirrored(path) if not each.is_file()] == []


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["completion", "query", "segbench train mod"], ["list", "model"], ["compare", "--help"]],
    ids=lambda a: a[0],
)
def test_help_completion_and_list_start_without_torch(arguments):
    code = (
        "import sys; from segbench.cli.main import main; main(); "
        "heavy = {'torch', 'lightning', 'numba', 'cv2', 'albumentations', 'matplotlib'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
