"""Fault runs: small trainings that are killed with SIGKILL at random moments and continued until they are through.

    python tests/end_to_end/faults.py [--kills 120] [--seed 0]      make test-faults

Of each setting there is one run that nothing disturbs. A disturbed one has to end with its weights (the last and the
best), its rows of metrics.csv and its scores, to the last bit. The processes are forks of this one, so that a start
costs no imports; `--command` starts `segbench train` instead, whose further process it starts itself.
"""

from __future__ import annotations

import argparse
import csv
import mmap
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}

import hydra
import lightning
import torch
from rich.console import Console
from rich.table import Table

from segbench.config.composed import resolved
from segbench.config.packaged import conf_root
from segbench.config.record import Config
from segbench.experiment import build
from segbench.experiment.train import train
from segbench.runs.directory import Run
from segbench.runtime.processes import STARTED
from segbench.training.callbacks.checkpoint_files import CheckpointFiles

# Seven images twice an epoch; validations and checkpoints fall on the last step of an epoch and within.
OVERRIDES = [
    *("name=fault", "model=unet", "model.width=4", "model.depth=2", "model.dropout=0.3"),
    *("data.tile=60", "data.train=7", "data.val=3", "data.test=3", "data.height=64", "data.width=64"),
    *("data.repeats=2", "augment=unet", "metrics=overlap", "callbacks=averaged", "callbacks.panels=null"),
    *("callbacks.extremes=null", "callbacks.checkpoint.every_n_train_steps=2", "scheduler=cosine"),
    *("scheduler.warmup_steps=5", "trainer.max_steps=40", "trainer.val_check_interval=7"),
    *("trainer.check_val_every_n_epoch=null", "trainer.precision=32-true", "trainer.accelerator=cpu"),
    *("trainer.log_every_n_steps=1", "task.channels_last=false", "threads=1", "tta=none"),
]
PHASES = ("start", "step", "validation", "checkpoint", "test", "end")


class Whereabouts:
    """Where a training is, in memory that it shares with this script: a phase, and how often the phase has changed."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 5)

    @property
    def phase(self) -> str:
        return PHASES[self._memory[0]]

    @phase.setter
    def phase(self, phase: str) -> None:
        self._memory[0] = PHASES.index(phase)
        self._memory[1:5] = (self.changes + 1).to_bytes(4, "little")

    @property
    def changes(self) -> int:
        return int.from_bytes(self._memory[1:5], "little")


class Trace(lightning.Callback):
    """Says where the first process is."""

    def __init__(self, whereabouts: Whereabouts) -> None:
        def at(phase: str):
            return lambda *arguments: setattr(whereabouts, "phase", phase)

        self.on_train_batch_start = self.on_validation_end = at("step")
        self.on_validation_start = at("validation")
        self.on_test_start, self.on_test_end = at("test"), at("end")


def traced(whereabouts: Whereabouts) -> None:
    """Have the trainings of this process say where they are."""
    callbacks, begin = build.build_callbacks, CheckpointFiles.begin
    build.build_callbacks = lambda *arguments: [*callbacks(*arguments), Trace(whereabouts)]

    def writing(files, job):
        def in_thread():
            before, whereabouts.phase = whereabouts.phase, "checkpoint"
            job()
            if whereabouts.phase == "checkpoint":
                whereabouts.phase = before

        begin(files, in_thread)

    CheckpointFiles.begin = writing


class Forks:
    """A training in forks of this process, one a rank, which talk as under torchrun."""

    def __init__(self, config: Config, directory: Path, processes: int) -> None:
        self._whereabouts = Whereabouts()
        self._store = torch.distributed.TCPStore("127.0.0.1", 0, None, is_master=True, wait_for_workers=False)
        fork = multiprocessing.get_context("fork")
        self._ranks = [
            fork.Process(target=self._run, args=(config, directory, rank, processes)) for rank in range(processes)
        ]
        for process in self._ranks:
            process.start()

    def _run(self, config: Config, directory: Path, rank: int, processes: int) -> None:
        os.setpgid(0, 0)
        if processes > 1:
            os.environ |= {
                **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self._store.port), "WORLD_SIZE": str(processes)},
                **{"TORCHELASTIC_USE_AGENT_STORE": "True", STARTED: "1", "RANK": str(rank), "LOCAL_RANK": str(rank)},
            }
        said = os.open(directory.with_suffix(".out"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(said, stream)
        if rank == 0:
            traced(self._whereabouts)
        train(config, directory, [], resume=rank > 0 or (directory / "config.yaml").is_file())

    def phase(self) -> str:
        return self._whereabouts.phase

    def let_run(self, order: random.Random) -> bool:
        """Wait for a random place of the training; whether it is through before."""
        # A start brings a run forward by a third or so; the moment is drawn within what the place has of them.
        place, moment = order.randint(0, 70), order.uniform(0.0, 0.05)
        while self._whereabouts.changes < place:
            if self.wait(0.002):
                return True
        return self.wait(moment)

    def kill(self, order: random.Random) -> None:
        """Kill the ranks, in any order, the others a moment after the first."""
        for process in order.sample(self._ranks, len(self._ranks)):
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
                time.sleep(order.choice([0.0, 0.0, 0.3]))

    def wait(self, seconds: float) -> bool:
        """Whether all ranks are through by then."""
        until = time.monotonic() + seconds
        for process in self._ranks:
            process.join(max(0.0, until - time.monotonic()))
        return not any(process.is_alive() for process in self._ranks)

    def codes(self) -> list[int | None]:
        return [process.exitcode for process in self._ranks]


class Command:
    """A training by `segbench train`; its first process is killed, and takes the others along."""

    whole = 0.0
    """Seconds that an undisturbed one takes."""

    def __init__(self, config: Config, directory: Path, processes: int) -> None:
        fresh = [
            *OVERRIDES,
            f"data.num_workers={config.data.num_workers}",
            f"data.batch_size={config.data.batch_size}",
        ]
        if processes > 1:
            fresh += ["trainer=ddp", f"trainer.devices={processes}", "trainer.accelerator=cpu"]
        given = (
            [f"resume={directory}"] if (directory / "config.yaml").is_file() else [*fresh, f"hydra.run.dir={directory}"]
        )
        said = directory.with_suffix(".out").open("a")
        self._process = subprocess.Popen([sys.executable, "-m", "segbench.train", *given], stdout=said, stderr=said)

    def phase(self) -> str:
        return "any"

    def let_run(self, order: random.Random) -> bool:
        """Wait for a random time; whether it is through before."""
        return self.wait(order.uniform(0.0, 1.2 * self.whole))

    def kill(self, order: random.Random) -> None:
        self._process.kill()

    def wait(self, seconds: float) -> bool:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def codes(self) -> list[int | None]:
        return [self._process.returncode]


def outcome(directory: Path) -> dict:
    """What two runs are compared by."""
    kept = {}
    for name in ("last", "best"):
        content = torch.load(directory / "checkpoints" / f"{name}.ckpt", weights_only=True)
        kept[name] = (content["global_step"], {**content["state_dict"], **content["averaged_model"]})
    with (directory / "metrics.csv").open() as file:
        return {"weights": kept, "rows": list(csv.DictReader(file)), "scores": Run(directory).results()["metrics"]}


def same_weights(one: dict, other: dict) -> bool:
    return all(
        one[name][0] == other[name][0]
        and one[name][1].keys() == other[name][1].keys()
        and all(torch.equal(tensor, other[name][1][key]) for key, tensor in one[name][1].items())
        for name in one
    )


def disturbed(start, kills: int, order: random.Random, phases: Counter) -> tuple[int, bool]:
    """Start, kill and start again until a run is through or was killed so often; then let it end.

    Returns:
        how often it was killed, and whether it came to its end.
    """
    done = 0
    while True:
        running = start()
        last = done == kills
        if running.wait(600.0) if last else running.let_run(order):
            if all(code == 0 for code in running.codes()):
                return done, True
            print(f"  left with {running.codes()}", file=sys.stderr)
            return done, False
        phases[running.phase()] += 1
        running.kill(order)
        running.wait(60.0)
        done += 1
        if last:
            return done, False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=120, help="in all, shared out among the settings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--command", action="store_true", help="start `segbench train` each time, not a fork")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    given = parser.parse_args()
    torch.set_num_threads(1)
    order, table, bad = random.Random(given.seed), Table(), 0
    for name in ("processes", "workers", "runs", "kills", "lost", "weights differ", "rows differ", "scores differ"):
        table.add_column(name, justify="right")
    table.add_column("killed in")
    settings = [(processes, workers) for processes in given.processes for workers in given.workers]
    root = Path(tempfile.mkdtemp(prefix="segbench-faults-"))
    began = time.monotonic()
    for processes, workers in settings:
        with hydra.initialize_config_dir(str(conf_root()), version_base="1.3"):
            extra = [f"data.num_workers={workers}", f"data.batch_size={2 // processes}", f"trainer.devices={processes}"]
            config = Config.of(resolved(hydra.compose("train", [*OVERRIDES, *extra])))
        starter = Command if given.command else Forks

        def start(directory: Path, starter=starter, config=config, processes=processes):
            return starter(config, directory, processes)

        folder = root / f"{processes}-{workers}"
        folder.mkdir()
        at, reference = time.monotonic(), start(folder / "whole")
        assert reference.wait(600.0) and reference.codes() == [0] * len(reference.codes()), folder / "whole.out"
        Command.whole, expected = time.monotonic() - at, outcome(folder / "whole")
        quota, phases, runs, killed = given.kills // len(settings), Counter(), 0, 0
        faults = Counter()
        while killed < quota:
            run = folder / f"run{runs}"
            # A run is killed up to eight times.
            often = min(order.randint(1, 8), quota - killed)
            times, through = disturbed(lambda run=run: start(run), often, order, phases)
            runs, killed = runs + 1, killed + times
            if not through:
                faults["lost"] += 1
                print(f"  lost: {run}, see {run.with_suffix('.out')}", file=sys.stderr)
                continue
            ended = outcome(run)
            faults["weights"] += not same_weights(expected["weights"], ended["weights"])
            faults["rows"] += expected["rows"] != ended["rows"]
            faults["scores"] += expected["scores"] != ended["scores"]
            if faults.total():
                print(f"  {dict(faults)}: {run}", file=sys.stderr)
            else:
                shutil.rmtree(run)
            print(f"{processes} processes, {workers} workers: {killed} of {quota} kills, {runs} runs", file=sys.stderr)
        where = ", ".join(f"{phase} {phases[phase]}" for phase in (*PHASES, "any") if phases[phase])
        figures = (
            processes,
            workers,
            runs,
            killed,
            faults["lost"],
            faults["weights"],
            faults["rows"],
            faults["scores"],
        )
        table.add_row(*map(str, figures), where)
        bad += faults.total()
    Console(width=140).print(table)
    print(f"{time.monotonic() - began:.0f} s")
    if not bad:
        shutil.rmtree(root)
    return int(bad > 0)


if __name__ == "__main__":
    raise SystemExit(main())
