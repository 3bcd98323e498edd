"""The laws of the house: which room may import which, no circles, tests that mirror the source."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import segbench

SRC = Path(segbench.__file__).parents[1]
PACKAGE = SRC / "segbench"
TESTS = Path(__file__).parent

# From the bottom up: a room imports from rooms above it in this list only, and never from one beside it.
FLOORS = (
    ("", "errors", "compiled"),
    ("spec", "config"),
    ("models", "losses", "metrics", "inference", "runtime"),
    ("data", "display", "runs", "tracking"),
    ("training", "compare"),
    ("prediction", "report"),
    ("experiment",),
    ("papers", "export", "sweep"),
    ("cli",),
    ("api",),
    ("train", "evaluate", "__main__", "hydra_plugins"),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
PURE = ("models", "losses", "metrics", "inference")
STATES = "segbench.metrics.states"
"""torchmetrics states over the metrics: the one module of them that knows torch."""
INTERNALS = "segbench.training.lightning_internals"
"""The one module that reaches into Lightning's private parts."""
LOOPS = ("fit_loop", "epoch_loop", "val_loop", "validate_loop", "test_loop", "predict_loop")
PRIVATE_PARTS = {
    # Hydra offers its completion to a shell's script alone.
    "segbench.cli.completion": (
        "hydra._internal.core_plugins.bash_completion",
        "hydra._internal.core_plugins.bash_completion.BashCompletion",
        "BashCompletion(hydra.config_loader)._query",
    ),
    # Tensor subclasses are made so, and some operations have no public name.
    "segbench.inference.rowwise": ("aten._prelu_kernel", "aten._to_copy", "Tensor._make_wrapper_subclass"),
    # An override says only here whether its text stood in quotes.
    "segbench.cli.arguments": ("override._value",),
    # hydra.main prints tracebacks and ends the process; these are its steps.
    "segbench.cli.entry": (
        *("hydra._internal.hydra", "hydra._internal.hydra.Hydra"),
        *("hydra._internal.callbacks", "hydra._internal.callbacks.Callbacks"),
    ),
    "segbench.config.composing": (
        *("hydra._internal.hydra", "hydra._internal.hydra.Hydra"),
        *("hydra._internal.utils", "hydra._internal.utils.create_config_search_path"),
    ),
    # argparse lists its options nowhere else.
    "segbench.cli.flags": ("reading._actions",),
    # Without this setting sides whose maps come down to one pixel are exported as fixed.
    "segbench.export.network": ("torch.fx.experimental._config",),
    # torch has no public way to ask whether a processor computes bfloat16 fast.
    "segbench.runtime.hardware": ("torch.cpu._is_avx512_bf16_supported", "torch.cpu._is_amx_tile_supported"),
    # A batch that a loading process cannot send is dropped and its reader waits; torch sends its errors so.
    "segbench.data.loader": ("Queue._on_queue_feeder_error", "torch._utils", "torch._utils.ExceptionWrapper"),
    # Public, in spite of its name.
    "segbench.runtime.ranks": ("os._exit", "sys._current_frames"),
    # The public use_artifact takes nothing offline, and waits for the server otherwise.
    "segbench.tracking.wandb_run": ("run._log_artifact",),
    # submitit shows a script only when it submits one.
    "segbench.sweep.slurm": ("executor._make_submission_file_text", "executor._submitit_command_str"),
    # Optuna numbers a trial in its storage by nothing else.
    "segbench.sweep.search": ("frozen._trial_id",),
}
"""What else is private to others and used, by module."""
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


def _named(path):
    """As `imported`, with what a type checker alone imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


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


def test_nor_one_that_only_types_close():
    named = {module: {name for name in _named(path) if name in FILES} - {module} for module, path in FILES.items()}
    assert (
        circles({module: {name for name in names if room(name) == room(module)} for module, names in named.items()})
        == []
    )


@pytest.mark.parametrize("module", [module for module in FILES if room(module) in PURE])
def test_the_pure_parts_know_no_framework_and_not_each_other(module):
    assert not outside(module) & {"lightning", "hydra", "omegaconf", "wandb"}
    assert {room(name) for name in INSIDE[module]} <= {"errors", "spec", "compiled", room(module)}


@pytest.mark.parametrize("module", [module for module in FILES if room(module) == "metrics" and module != STATES])
def test_metrics_are_numpy(module):
    assert not outside(module) & {"torch", "torchmetrics"}


@pytest.mark.parametrize("module", [module for module in FILES if room(module) in ("runs", "compare", "report")])
def test_a_run_directory_is_read_without_torch(module):
    assert not outside(module) & {"torch", "lightning", "torchmetrics"}
    # The one decoder of images knows no torch either.
    assert {room(name) for name in INSIDE[module] - {"segbench.data.files.encoded"}} <= {
        *("errors", "spec", "config", "runtime", "runs", "display", "metrics", "tracking", "compare", "report")
    }


def test_below_the_entry_a_configuration_is_a_record():
    # Comparisons read what others recorded, of which a part may be missing.
    rooms = set(FLOOR) - {"config", "compare", "report", "cli"}
    raw = []
    for module in (module for module in FILES if room(module) in rooms):
        for node in ast.walk(ast.parse(FILES[module].read_text())):
            for argument in node.args.args if isinstance(node, ast.FunctionDef) else ():
                kind = "" if argument.annotation is None else ast.unparse(argument.annotation)
                if argument.arg in ("config", "trainer", "reference") and kind.startswith(("dict", "Mapping")):
                    raw.append((module, node.name))
    # What a run recorded is data until it is a record; a digest is of what is written.
    data = {("segbench.runs.history", "effective"), ("segbench.runs.history", "continuations")}
    assert set(raw) <= data | {("segbench.sweep.job", "digest_of")}


@pytest.mark.parametrize("tracker", ["wandb", "mlflow", "trackio"])
def test_trackers_are_known_in_one_room(tracker):
    assert {room(module) for module in FILES if tracker in outside(module)} == {"tracking"}


def test_only_build_instantiates():
    assert [module for module in FILES if "hydra.utils" in IMPORTS[module]] == []
    making = [module for module in FILES if "segbench.config.instances.instance" in IMPORTS[module]]
    assert making == ["segbench.experiment.axes"]


def intrusions(text):
    """Where a file reaches into what is private to others, or changes a Trainer.

    Private are names with an underscore that the file does not define itself, and the loops of a Trainer.
    """
    tree = ast.parse(text)
    nodes = list(ast.walk(tree))
    of_lightning = any(name.split(".")[0] == "lightning" for name in _imported(tree))
    own = {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    own |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and _is_self(node.value) and _changed(node)}
    for node in nodes:
        match node:
            case ast.Attribute(value=owner, attr=name):
                # A class below one of Lightning inherits its private parts.
                inherited = _is_self(owner) and not of_lightning
                foreign = _of_trainer(owner) or (name not in own and not inherited)
                if (_private(name) and foreign) or name in LOOPS or (_changed(node) and _of_trainer(owner)):
                    yield ast.unparse(node)
            case ast.Call(func=ast.Name(id=access), args=[owner, ast.Constant(value=str(name)), *_]):
                if access in ("getattr", "hasattr") and _private(name):
                    yield ast.unparse(node)
                if access in ("setattr", "delattr") and (_private(name) or _of_trainer(owner)):
                    yield ast.unparse(node)
            case ast.Constant(value=str(name)) if name.split(".")[0] in LOOPS:
                yield ast.unparse(node)
            case ast.Import() | ast.ImportFrom():
                yield from (name for name in _imported(node) if any(map(_private, name.split("."))) and not _ours(name))


def _ours(module):
    return module.split(".")[0] == "segbench"


def _private(name):
    return name.startswith("_") and not name.endswith("__")


def _changed(attribute):
    return isinstance(attribute.ctx, (ast.Store, ast.Del))


def _is_self(node):
    return ast.unparse(node) in ("self", "cls", "super()")


def _of_trainer(node):
    return any(getattr(part, "id", getattr(part, "attr", "")) == "trainer" for part in ast.walk(node))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("trainer._signal_connector", "trainer._signal_connector"),
        ("self.trainer._signal_connector.x()", "self.trainer._signal_connector"),
        ("class A:\n    _signal_connector = 1\ntrainer._signal_connector", "trainer._signal_connector"),
        ("logger._offline = True", "logger._offline"),
        ("trainer.strategy.checkpoint_io = mine", "trainer.strategy.checkpoint_io"),
        ("self.trainer.should_stop = True", "self.trainer.should_stop"),
        ("trainer.fit_loop", "trainer.fit_loop"),
        ("loops['fit_loop']", "'fit_loop'"),
        ("{'epoch_loop.state_dict': 1}", "'epoch_loop.state_dict'"),
        ("getattr(trainer, '_results')", "getattr(trainer, '_results')"),
        ("setattr(self.trainer, 'max_steps', 3)", "setattr(self.trainer, 'max_steps', 3)"),
        ("from lightning.pytorch.loops import _Loop", "lightning.pytorch.loops._Loop"),
        ("import lightning.fabric._x as x", "lightning.fabric._x"),
        ("import lightning\nclass A(lightning.Callback):\n    def f(self):\n        self._inner", "self._inner"),
    ],
)
def test_what_is_private_to_others_is_found(text, found):
    assert found in list(intrusions(text))


@pytest.mark.parametrize(
    "text",
    [
        "self._mine",
        "import lightning\nclass A(lightning.Callback):\n    def f(self):\n        self._mine = self._mine",
        "class A:\n    def _write(self): ...\ndef f(run):\n    run._write()",
        "trainer.global_step; trainer.strategy.root_device",
        "self.trainer = trainer",
        "value.__dict__",
        "getattr(model, 'geometry', None)",
    ],
)
def test_what_is_ones_own_or_public_is_not(text):
    assert list(intrusions(text)) == []


@pytest.mark.parametrize("module", [module for module in FILES if module != INTERNALS])
def test_private_parts_of_others_are_left_alone(module):
    assert set(intrusions(FILES[module].read_text())) == set(PRIVATE_PARTS.get(module, ()))


def test_private_parts_of_lightning_stand_in_one_file():
    assert list(intrusions(FILES[INTERNALS].read_text()))


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
    [
        ["--help"],
        ["completion", "query", "segbench train optimizer._target_=torch.optim.SGD optimizer.n"],
        ["list", "model"],
        ["compare", "--help"],
    ],
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


def calls(module):
    """What a file calls, as it is written there: `cv2.imdecode`."""
    return {
        ast.unparse(node.func) for node in ast.walk(ast.parse(FILES[module].read_text())) if isinstance(node, ast.Call)
    }


@pytest.mark.parametrize(
    ("function", "modules"),
    [
        ("cv2.imread", set()),
        ("cv2.imdecode", {"segbench.data.files.encoded"}),
        ("Image.open", set()),
        (
            "os.replace",
            {
                "segbench.runtime.files",
                # Whole files and folders that are moved, or outputs that are filled over a long time.
                "segbench.runs.directory",
                "segbench.training.callbacks.checkpoint_files",
                "segbench.data.prepare.fetch",
                "segbench.data.prepare.hdf5",
                "segbench.data.prepare.unpack",
                "segbench.prediction.files",
                "segbench.export.exporting",
            },
        ),
        # What it holds is not escaped.
        ("Markup", {"segbench.display.html", "segbench.report.figures"}),
        ("os.walk", {"segbench.runtime.files", "segbench.prediction.record"}),
        ("fcntl.flock", {"segbench.runtime.locks"}),
    ],
)
def test_there_is_one_way_for_each_thing(function, modules):
    assert {module for module in FILES if function in calls(module)} == modules


# Who opens files for writing: nothing in a run's directory is written but through `runtime.files`.
WRITERS = {
    "segbench.runtime.files",
    # The device that takes what nobody reads.
    "segbench.runtime.closed_pipe",
    # Data sets, which are no run's.
    *(f"segbench.data.prepare.{name}" for name in ("fetch", "downloads", "hdf5", "recipes", "unpack")),
    # A folder that was made for it, under a name that nobody can guess.
    "segbench.export.formats",
}


def writes(text):
    """Where a file writes to a path that is no `partial` of `written_whole`, and no open file."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        owner, _, method = called.rpartition(".")
        texts = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
        texts += [keyword.value.value for keyword in node.keywords if isinstance(keyword.value, ast.Constant)]
        modes = [mode for mode in texts if re.fullmatch(r"b?[wax]b?\+?b?|rb?\+b?", str(mode))]
        first = ast.unparse(node.args[0]) if node.args else ""
        own = owner == "partial" or first in ("partial", "file")
        opens = method == "open" and modes and owner not in ("tarfile", "zipfile")
        if not own and (opens or called == "os.open" or method in WRITING):
            yield called


WRITING = (
    *("write_text", "write_bytes", "FileHandler", "CSVLogger", "imwrite", "savez", "savez_compressed", "copyfile"),
    *("copytree", "copy2", "symlink_to", "hardlink_to", "touch", "savefig", "TiffWriter"),
)


@pytest.mark.parametrize(
    "text",
    [
        *("path.open('a')", "open(path, mode='w')", "path.write_text('')", "os.open(path, os.O_CREAT)"),
        *("np.savez(path, a=1)", "logging.FileHandler(path)", "tifffile.imwrite(path, a)", "open(path, 'r+b')"),
    ],
)
def test_what_writes_by_itself_is_found(text):
    assert len(list(writes(text))) == 1


@pytest.mark.parametrize("text", ["path.open()", "partial.write_text('')", "np.savez(file, a=1)", "path.open('rb')"])
def test_what_reads_or_writes_through_the_one_place_is_not(text):
    assert list(writes(text)) == []


@pytest.mark.parametrize("module", [module for module in FILES if module not in WRITERS])
def test_nothing_writes_files_by_itself(module):
    assert [called for called in writes(FILES[module].read_text())] == KEPT.get(module, [])


KEPT = {
    # Into memory.
    "segbench.report.figures": ["figure.savefig"],
    # A folder, synced.
    "segbench.training.callbacks.checkpoint_files": ["os.open"],
    # Exclusively, an empty file under a name that is used once.
    "segbench.runtime.locks": ["os.open"],
    # Under a name of `partial_name`.
    "segbench.prediction.files": ["tifffile.TiffWriter"],
}


READERS = {
    "yaml.load": {"segbench.config.packaged", "segbench.config.handed_over"},
    # Values of a command line.
    "yaml.safe_load": {"segbench.experiment.resume", "segbench.cli.data"},
    "OmegaConf.load": set(),
    "OmegaConf.create": set(),
    # Published weights, plain tensors too.
    "torch.load": {"segbench.models.published.state_dict"},
    "pickle.load": set(),
    "pickle.loads": set(),
}
"""One door for what may have been handed over."""


@pytest.mark.parametrize("function", READERS)
def test_there_is_one_door_for_files_that_were_handed_over(function):
    assert {module for module in FILES if function in calls(module)} == READERS[function]


def test_packaged_and_own_configs_are_not_read_through_it_and_no_others_past_it():
    reading = {module for module in FILES if "segbench.config.packaged.read_yaml" in IMPORTS[module]}
    of_a_run = {"runs", "sweep", "compare", "report", "tracking", "training", "prediction", "export"}
    assert {module for module in reading if room(module) in of_a_run} <= {"segbench.sweep.directory"}


def test_checkpoints_are_read_without_code():
    loads = [
        node
        for node in ast.walk(ast.parse(FILES["segbench.models.published.state_dict"].read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    assert loads
    assert all("weights_only=True" in ast.unparse(node) for node in loads)


TAGS = re.compile(r"</?(a|body|div|figure|h[1-6]|html|img|li|p|pre|script|section|span|table|t[dhr]|ul)\b[^>]*>")


@pytest.mark.parametrize("module", FILES)
def test_pages_are_made_by_templates(module):
    texts = [node.value for node in ast.walk(ast.parse(FILES[module].read_text())) if isinstance(node, ast.Constant)]
    assert [text for text in texts if isinstance(text, str) and TAGS.search(text)] == []


def test_paths_in_commands_that_are_told_are_quoted():
    told = re.compile(
        r"segbench (?:train|evaluate|data|sweep|sync)\b.*?(?<![\w.])(?:data\.)?(?:run|resume|root|masks)=\{"
    )
    assert {module for module, path in FILES.items() if told.search(path.read_text())} == set()
    assert [module for module in FILES if "shlex.quote" in calls(module)] == ["segbench.errors"]


def test_what_is_printed_is_escaped():
    own = {"segbench.errors", "segbench.cli.starter.starter.callbacks"}
    assert {module for module in FILES if "print" in calls(module)} <= own


def test_only_one_console_is_used():
    assert [name for name, names in IMPORTS.items() if "rich.console.Console" in names] == []


def test_extras_that_are_told_exist_and_are_quoted():
    repo = TESTS.parent
    extras = set(tomllib.loads((repo / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    folders = [path for name in ("src", "conf", "docs", "benchmarks") for path in (repo / name).rglob("*.*")]
    told = "\n".join(path.read_text() for path in folders if path.suffix in (".py", ".yaml", ".md"))
    # Without quotes zsh takes the brackets for a pattern.
    assert not re.search(r"pip install segbench\[", told)
    named = set(re.findall(r"pip install 'segbench\[(\w+)\]'", told) + re.findall(r'not_installed\(.*"(\w+)"\)', told))
    assert named and named <= extras


def test_requirements_are_the_constraints_whole_with_digests():
    repo = TESTS.parent
    text = (repo / "requirements.txt").read_text()
    blocks = re.findall(r"^(\S+)==(\S+)(.*(?:\n +--hash=sha256:[0-9a-f]{64}.*)+)", text, re.MULTILINE)
    assert len(blocks) == text.count("==") - len(re.findall("; .*==", text)) > 100
    assert "://" not in text and "torch" not in {name for name, _, _ in blocks}
    pinned = dict(re.findall(r"^(\S+)==(\S+)$", (repo / "constraints.txt").read_text(), re.MULTILINE))
    pinned = {re.sub("[-_.]+", "-", name).lower(): version for name, version in pinned.items()}
    assert {name: version for name, version, _ in blocks if name in pinned} == {
        name: version for name, version in pinned.items() if name in {name for name, _, _ in blocks}
    }
