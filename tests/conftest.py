"""Miniatures of the data sets in their official layout, and one tiny run that many tests read."""

import logging
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

# How fast a machine draws examples is no fault of what is tested.
settings.register_profile("segbench", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("segbench")

# Scans of folders are kept in the user's cache: of the tests in one of their own, and everything else where it was.
_CACHE = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
_KEPT = {
    **{"TORCH_HOME": "torch", "HF_HOME": "huggingface", "MPLCONFIGDIR": "matplotlib"},
    **{"PIP_CACHE_DIR": "pip", "UV_CACHE_DIR": "uv"},
}
for _name, _folder in _KEPT.items():
    os.environ.setdefault(_name, os.path.join(_CACHE, _folder))
_OWN_CACHE = tempfile.TemporaryDirectory(prefix="segbench-tests-")
os.environ["XDG_CACHE_HOME"] = _OWN_CACHE.name

pytest_plugins = (
    "tests.fixtures.datasets",
    "tests.fixtures.runs",
    "tests.fixtures.caffe",
    "tests.fixtures.packages",
    "tests.fixtures.wandb_server",
    "tests.fixtures.gpu",
    "tests.fixtures.casts",
    "tests.fixtures.disks",
)

REPO = Path(__file__).resolve().parents[1]

# Everything that a test counts on, so that the experiments may change.
TINY = (
    "name=tiny",
    "model=unet",
    "model.width=4",
    "model.depth=2",
    "model.dropout=0.2",
    "data.tile=60",
    "data.batch_size=2",
    "data.repeats=10",
    "optimizer.lr=2e-3",
    "scheduler.warmup_steps=20",
    "callbacks.checkpoint.every_n_train_steps=4",
    "callbacks.checkpoint.monitor=val/mean_iu",
    "callbacks.panels.count=4",
    "tta=none",
    "trainer.max_steps=3",
    "trainer.val_check_interval=2",
    "trainer.log_every_n_steps=1",
    "trainer.precision=32-true",
    "task.channels_last=false",
    "threads=1",
)
DRAWN = (*TINY, "data.train=4", "data.val=2", "data.test=5", "data.height=48", "data.width=48")


def pytest_configure():
    # Beside another job, two threads are slower than one.
    torch.set_num_threads(1)
    # What `nohup` or a job in the background ignores, children would ignore too; handlers they do not inherit.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.fixture(autouse=True)
def _one_thread():
    yield
    # A run sets its own.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def compose():
    """`compose(*overrides, config="train")`: the record of a config, as an entry point makes it."""
    import hydra

    from segbench.config.composed import resolved
    from segbench.config.own_targets import opened
    from segbench.config.packaged import conf_root
    from segbench.config.requests import RECORDS

    def composed(*overrides, config="train"):
        with hydra.initialize_config_dir(str(conf_root()), version_base="1.3"):
            return RECORDS[config].of(resolved(hydra.compose(config, opened(overrides))))

    return composed


@pytest.fixture(scope="session")
def drawn_isbi(tmp_path_factory):
    """ISBI EM in the challenge's layout, drawn: 30 slices of 64 x 64 and 30 test slices; not to be changed."""
    import tifffile

    from segbench.data.drawn_em.slices import draw_slice

    folder = tmp_path_factory.mktemp("isbi")
    drawn = [draw_slice(0, index, 64, 64) for index in range(30)]
    volume = np.stack([image for image, _ in drawn])
    labels = np.stack([(instances > 0).astype(np.uint8) * 255 for _, instances in drawn])
    for name, stack in (("train-volume", volume), ("train-labels", labels), ("test-volume", volume[::-1])):
        tifffile.imwrite(folder / f"{name}.tif", stack, photometric="minisblack", metadata=None)
    return folder


@pytest.fixture
def isbi(drawn_isbi, tmp_path):
    """A copy of `drawn_isbi` that a test may damage."""
    return Path(shutil.copytree(drawn_isbi, tmp_path / "isbi"))


@pytest.fixture(scope="session")
def real_isbi():
    """The challenge's own files, where the machine has them."""
    folder = REPO.parent / "shared" / "data" / "isbi2012"
    if not (folder / "train-volume.tif").is_file():
        pytest.skip(f"no ISBI 2012 stacks in {folder}")
    return folder


@pytest.fixture
def on_ranks(tmp_path_factory):
    """`on_ranks(count, function)`: what `function(rank)` gives on each of `count` processes that talk by gloo.

    They are forks of this one, so they cost no imports; what one raises fails the test.
    """
    import multiprocessing
    import pickle
    import traceback

    from torch.distributed import TCPStore

    from segbench.runtime.processes import STARTED

    def rank_process(function, rank, environment, answer):
        os.environ.update(environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        try:
            answered = (True, function(rank))
        except BaseException:
            answered = (False, traceback.format_exc())
        answer.write_bytes(pickle.dumps(answered))

    def run(count, function, seconds=120):
        answers = [tmp_path_factory.mktemp("ranks") / "answer" for _ in range(count)]
        # As with torchrun, the store is that of the process which starts the ranks.
        store = TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False)
        environment = {
            **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"},
            **{"WORLD_SIZE": str(count), "NODE_RANK": "0", STARTED: "1"},
        }
        fork = multiprocessing.get_context("fork")
        ranks = [
            fork.Process(target=rank_process, args=(function, rank, environment, answer))
            for rank, answer in enumerate(answers)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(seconds)
        late = [rank for rank, process in enumerate(ranks) if process.is_alive()]
        for process in ranks:
            process.kill()
        results = [pickle.loads(answer.read_bytes()) if answer.exists() else (False, "killed") for answer in answers]
        said = [f"rank {rank}: {told}" for rank, (good, told) in enumerate(results) if not good]
        assert not said and not late, "\n".join([*said, f"late: {late}"])
        return [told for _, told in results]

    return run


@pytest.fixture(scope="session")
def tiny_overrides():
    """What `tiny_config` sets, for a command line."""
    return DRAWN


@pytest.fixture(scope="session")
def tiny_config(compose):
    """`tiny_config(*overrides)`: three steps of a small U-Net on five drawn test images."""
    return lambda *overrides: compose(*DRAWN, *overrides)


@pytest.fixture(scope="session")
def isbi_config(compose, drawn_isbi):
    """`isbi_config(*overrides)`: three steps of a small U-Net on the drawn ISBI slices."""
    return lambda *overrides: compose("data=isbi_em", *TINY, f"data.root={drawn_isbi}", *overrides)


@pytest.fixture(scope="session")
def tiny_run(tiny_config, tmp_path_factory):
    """A finished run of `tiny_config()`; read it, do not write into it."""
    from segbench.experiment.train import train

    directory = tmp_path_factory.mktemp("tiny") / "run"
    train(tiny_config(), directory, ["trainer.max_steps=3"])
    return directory


@pytest.fixture
def call(monkeypatch, capsys):
    """`call("train", ...)`: exit code, standard output and error of the command."""
    from segbench.cli import main as cli

    # Hydra sets a log up that writes to what is captured now.
    monkeypatch.setattr(logging.root, "handlers", list(logging.root.handlers))

    def told(*arguments):
        monkeypatch.setattr(sys, "argv", ["segbench", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as left:
            code = left.code or 0
        return code, *capsys.readouterr()

    return told


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """`stand_in(module, script)`: here, the text of a script stands for every run that `module` starts."""

    def standing(module, script):
        path = tmp_path / "standin.py"
        path.write_text(script)
        monkeypatch.setattr(
            module, "child_command", lambda directory: [sys.executable, "-S", str(path), str(directory)]
        )
        monkeypatch.setenv("SEGBENCH_RUN_ID", "here")
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return standing
