"""Hours of running: one process trains, continues, scores, predicts, reports and sweeps in a loop, and must not grow.

    python tests/end_to_end/soak.py [--minutes 60]      make soak ARGS="--minutes 12"

A round trains through the Python API, is stopped by SIGTERM after its first checkpoint, continues, evaluates, predicts
a folder and writes a report, all in this process; of five rounds one also trains with loading processes and predicts
by the console, and launches a sweep of two jobs. After each round this process's memory, open files, threads and
children, what is left in the folder for temporary files, and what the round's runs take on disk are recorded. After a
warm-up none may grow beyond its bound.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import median

os.environ |= {"OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import segbench
from segbench.cli import main as cli

SMALL = [
    *("name=soak", "model=unet", "model.width=4", "model.depth=2", "data.tile=60", "data.batch_size=2", "data.train=6"),
    *("data.val=2", "data.test=2", "data.height=64", "data.width=64", "metrics=overlap", "scheduler.warmup_steps=1"),
    *("trainer.max_steps=12", "trainer.val_check_interval=4", "trainer.check_val_every_n_epoch=null"),
    *("trainer.precision=32-true", "trainer.accelerator=cpu", "task.channels_last=false", "threads=1"),
    "trainer.log_every_n_steps=1",
]
CONSOLE = 5
"""Of so many rounds one also uses the console."""
WARM_UP = 3
"""Rounds before what is compared: caches fill, libraries are loaded."""
GROWTH_MB = 40.0
"""By which the median memory of the last third of the rounds may exceed that of the first third after the warm-up."""
DISK = 1.1
"""By which factor those of the last third may take more on disk, likewise."""


@dataclass(frozen=True)
class Standing:
    """This process after a round.

    Attributes:
        memory_mb: resident.
        files: open descriptors.
        threads: of any library.
        children: processes below this one.
        temporary: files and folders in the folder for temporary ones.
        disk_kb: what the round's runs take.
        seconds: that the round took.
    """

    memory_mb: float
    files: int
    threads: int
    children: int
    temporary: int
    disk_kb: float
    seconds: float


def standing(round_folder: Path, temporary: Path, seconds: float) -> Standing:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    children = sum(len((task / "children").read_text().split()) for task in Path("/proc/self/task").iterdir())
    return Standing(
        memory_mb=pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
        files=len(os.listdir("/proc/self/fd")) - 1,
        threads=len(os.listdir("/proc/self/task")),
        children=children,
        temporary=sum(1 for _ in temporary.rglob("*")),
        disk_kb=sum(path.lstat().st_size for path in round_folder.rglob("*")) / 1024,
        seconds=seconds,
    )


def in_process(*arguments: object) -> None:
    """A command in this process."""
    sys.argv = ["segbench", *map(str, arguments)]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            cli.main()
        except SystemExit as left:
            assert not left.code, f"{sys.argv}: {said.getvalue()}"


def console(*arguments: object) -> None:
    """A command as a process."""
    done = subprocess.run(
        [sys.executable, "-m", "segbench", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{arguments}: {done.stderr}"


def stopped_after_a_checkpoint(run: Path) -> threading.Thread:
    """Send this process SIGTERM when a run has its first checkpoint; the API makes it a KeyboardInterrupt."""

    def waiting() -> None:
        until = time.monotonic() + 300.0
        while not (run / "checkpoints" / "last.ckpt").exists() and time.monotonic() < until:
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=waiting, daemon=True)
    thread.start()
    return thread


def one_round(number: int, folder: Path, images: Path) -> None:
    """A round, whose runs go into `folder`."""
    run = folder / "run"
    # A signal that comes when the training is over meets nobody.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    stopping = stopped_after_a_checkpoint(run)
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        with contextlib.suppress(KeyboardInterrupt):
            segbench.train([*SMALL, f"seed={number}", "trainer.max_steps=40"], directory=run)
        stopping.join()
        signal.signal(signal.SIGTERM, before)
        continued = segbench.train([f"resume={run}", "trainer.max_steps=44"])
        assert continued.results()["timing"]["steps"] == 44
        segbench.evaluate(run, ["split=val"], directory=folder / "evaluated")
        predictor = segbench.load(run)
        predictor.predict(np.zeros((64, 64), np.uint8))
    in_process(
        "predict", f"run={run}", f"input={images}", f"output={folder / 'predicted'}", "format=[masks,probabilities]"
    )
    in_process("report", run, f"output={folder / 'report.html'}")


def by_the_console(number: int, folder: Path, run: Path, images: Path) -> None:
    """A training with loading processes and a prediction as processes, and a sweep that this process launches."""
    console("train", *SMALL, "data.num_workers=2", f"seed={number}", f"hydra.run.dir={folder / 'workers'}")
    console("predict", f"run={run}", f"input={images}", f"output={folder / 'predicted'}", "format=instances")
    seeds = f"seed={number},{number + 1}"
    in_process("train", "-m", *SMALL, seeds, f"hydra.sweep.dir={folder / 'sweep'}", "hydra.launcher.jobs=2")
    in_process("sweep", "status", folder / "sweep")


def faults(rounds: list[Standing]) -> list[str]:
    """What has grown beyond its bound; empty if nothing has."""
    compared = rounds[WARM_UP:]
    if len(compared) < 3:
        return [f"only {len(rounds)} rounds, {WARM_UP} of which are the warm-up: too few to tell; give it more minutes"]
    third = len(compared) // 3
    found = []

    def middle(name: str) -> tuple[float, float]:
        return tuple(median(getattr(each, name) for each in part) for part in (compared[:third], compared[-third:]))

    (first, last), (first_kb, last_kb) = middle("memory_mb"), middle("disk_kb")
    if last - first > GROWTH_MB:
        found.append(f"memory_mb grew by {last - first:.0f}, more than {GROWTH_MB:.0f}")
    if last_kb > DISK * first_kb:
        found.append(f"disk_kb: {first_kb:.0f} in the first third of the rounds, {last_kb:.0f} in the last")
    for name in ("files", "threads", "children", "temporary"):
        first, last = (getattr(rounds[place], name) for place in (WARM_UP - 1, -1))
        if last > first:
            found.append(f"{name}: {first} after the warm-up, {last} at the end")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    root = Path(tempfile.mkdtemp(prefix="segbench-soak-"))
    temporary, images = root / "tmp", root / "images"
    temporary.mkdir()
    images.mkdir()
    tempfile.tempdir = os.environ["TMPDIR"] = str(temporary)
    for number in range(4):
        drawn = np.random.default_rng(number).integers(0, 256, (90, 120), dtype=np.uint8)
        cv2.imwrite(str(images / f"{number}.png"), drawn)
    os.chdir(root)
    ends, rounds = time.monotonic() + 60.0 * given.minutes, list[Standing]()
    while time.monotonic() < ends:
        began, folder = time.monotonic(), root / f"round{len(rounds)}"
        one_round(len(rounds), folder, images)
        if len(rounds) % CONSOLE == 0:
            # Longest, and in processes that end anyway.
            by_the_console(len(rounds), root / "console", folder / "run", images)
            shutil.rmtree(root / "console")
        rounds.append(standing(folder, temporary, time.monotonic() - began))
        print(f"round {len(rounds)}: {rounds[-1]}", file=sys.stderr)
        shutil.rmtree(folder)
    table = Table("round", *(field.name for field in fields(Standing)))
    shown = sorted({0, WARM_UP - 1, WARM_UP, len(rounds) // 2, len(rounds) - 1} & {*range(len(rounds))})
    for place in shown:
        table.add_row(str(place + 1), *(f"{value:.0f}" for value in astuple(rounds[place])))
    Console(width=120).print(table)
    found = faults(rounds)
    for fault in found:
        print(f"grows: {fault}")
    shutil.rmtree(root)
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main())
