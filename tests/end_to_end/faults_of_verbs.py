"""Fault runs of the commands beside training: killed with SIGKILL at random moments, and called again until they end.

    python tests/end_to_end/faults_of_verbs.py [--kills 10] [--seed 0] [export prepare predict report reproduce retry]

Of each command there is one call that nothing disturbs. A disturbed one has to end with the same result by the same
command; what is there after a kill is whole or is not taken for the result; no process outlives a kill; and at the end
there is no file that the undisturbed call has not left, too. The processes are forks of this one, so that a start costs
no imports.
"""

from __future__ import annotations

import argparse
import hashlib
import http.server
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}

import cv2
import numpy as np
import torch
import torch._dynamo
import torch.export
from rich.console import Console
from rich.table import Table

import segbench
from segbench.cli import main as cli
from segbench.data.prepare import recipes
from segbench.data.prepare.downloads import Remote
from segbench.runs.directory import Run
from segbench.sweep.directory import Sweep

TINY = [
    *(
        "experiment=quickstart",
        "name=fault",
        "model=unet",
        "model.width=4",
        "model.depth=2",
        "data.tile=60",
        "threads=1",
    ),
    *("data.train=4", "data.val=2", "data.test=2", "data.height=64", "data.width=64", "metrics=overlap"),
    *("scheduler.warmup_steps=1", "trainer.max_steps=30", "trainer.val_check_interval=10"),
    *("trainer.check_val_every_n_epoch=null", "trainer.precision=32-true", "trainer.accelerator=cpu"),
    *("task.channels_last=false", "callbacks.panels=null"),
]
EXPERIMENT = """\
# @package _global_
defaults:
  - quickstart
model: {width: 4, depth: 2}
data: {train: 3, val: 1, test: 2, height: 48, width: 48, tile: 40, repeats: 2}
trainer: {max_steps: 60, val_check_interval: 20, precision: 32-true, accelerator: cpu}
callbacks: {panels: null}
threads: 1
paper: {row: of_mine, method: mine, source: a table, experiment: row, metrics: {pixel_error: 0.0611}}
"""
RUN, IMAGES, CONFIGS = "run", "images", "configs"
"""What all commands read, beside their folders."""


def command(*arguments: object) -> None:
    """A command in this process, which it ends."""
    sys.argv = ["segbench", *map(str, arguments)]
    cli.main()


@dataclass(frozen=True)
class Verb:
    """A command under test.

    Attributes:
        call: what it does, given its folder; in a fork, in the folder above.
        result: what two folders are compared by; raises if something half is there as the result.
        begin: makes its folder, in this process.
        again: whether a call after the end is refused, since the result exists.
    """

    call: Callable[[Path], None]
    result: Callable[[Path], Any]
    begin: Callable[[Path], None] = lambda folder: None
    refuses: bool = False


def digests(folder: Path, *patterns: str) -> dict[str, str]:
    """Of the files by name."""
    paths = sorted(path for pattern in patterns for path in folder.glob(pattern) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def scores(run: Path) -> Any:
    return Run(run).results()["metrics"] if (run / "results.json").exists() else None


def exported(folder: Path) -> Any:
    path = folder / "model.pt2"
    if not path.exists():
        return None
    state = torch.export.load(path).state_dict
    return {name: tensor.double().sum().item() for name, tensor in state.items()}


def page(folder: Path) -> Any:
    path = folder / "page.html"
    return path.exists() and path.read_text().rstrip().endswith("</html>")


def row_of_ledger(folder: Path) -> Any:
    path = folder / "ledger" / "row.yaml"
    from segbench.config.packaged import read_yaml

    return read_yaml(path)["ours"] if path.exists() else None


def failed_sweep(folder: Path, made: Path) -> None:
    """A sweep of which one job has failed on the way and one has not begun."""
    shutil.copytree(made, folder / "sweep")


def weights(run: Path) -> Any:
    path = run / "checkpoints" / "last.ckpt"
    if not path.exists():
        return None
    content = torch.load(path, weights_only=True)
    return content["global_step"], {name: each.double().sum().item() for name, each in content["state_dict"].items()}


def jobs_of(folder: Path) -> Any:
    sweep = Sweep.open(folder / "sweep")
    return [(job.state(), weights(job.directory), scores(job.directory)) for job in sweep.jobs]


def published(root: Path) -> str:
    """The address of a drawn archive of 400 files on the loopback; it takes a second to send."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for number in range(400):
            part = "01_GT/SEG" if number % 2 else "02_GT/SEG"
            archive.writestr(f"DIC-C2DH-HeLa/{part}/{number}.tif", np.random.default_rng(number).bytes(20_000))
    (root / "served").mkdir()
    (root / "served" / "DIC-C2DH-HeLa.zip").write_bytes(content.getvalue())

    class Slow(http.server.SimpleHTTPRequestHandler):
        def copyfile(self, source: Any, outputfile: Any) -> None:
            while chunk := source.read(2**18):
                outputfile.write(chunk)
                time.sleep(0.02)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Slow, directory=str(root / "served")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    digest = f"sha256:{hashlib.sha256(content.getvalue()).hexdigest()}"
    url = f"http://127.0.0.1:{server.server_port}/DIC-C2DH-HeLa.zip"
    gives = recipes.PARTS["cell_tracking"]["dic_hela"].gives
    recipes.PARTS["cell_tracking"]["dic_hela"] = recipes.Part((Remote("DIC-C2DH-HeLa.zip", (url,), digest),), gives)
    return url


def verbs(root: Path, names: list[str]) -> Iterator[tuple[str, Verb]]:
    """The commands, with what they read made in `root`."""
    run, images = root / RUN, root / IMAGES
    segbench.train(TINY, directory=run)
    images.mkdir()
    for number in range(6):
        drawn = np.random.default_rng(number).integers(0, 256, (200, 260), dtype=np.uint8)
        cv2.imwrite(str(images / f"{number}.png"), drawn)
    if "export" in names:
        yield (
            "export",
            Verb(
                lambda at: command("export", f"run={run}", "format=pt2", f"output={at / 'model.pt2'}"),
                exported,
                refuses=True,
            ),
        )
    if "prepare" in names:
        published(root)
        yield (
            "prepare",
            Verb(
                lambda at: command("data", "prepare", "cell_tracking", f"root={at}", "parts=dic_hela"),
                lambda at: digests(at, "DIC-C2DH-HeLa/**/*"),
            ),
        )
    if "predict" in names:
        given = ("predict", f"run={run}", f"input={images}", "format=[masks,probabilities,instances]")
        yield (
            "predict",
            Verb(
                lambda at: command(*given, f"output={at / 'out'}"),
                lambda at: digests(at, "out/**/*.png", "out/**/*.tif"),
            ),
        )
    if "report" in names:
        yield "report", Verb(lambda at: command("report", run, f"output={at / 'page.html'}"), page)
    if "reproduce" in names:
        (root / CONFIGS / "experiment").mkdir(parents=True)
        (root / CONFIGS / "experiment" / "row.yaml").write_text(EXPERIMENT)
        given = ("reproduce", "row", "--config-dir", root / CONFIGS, "allow_dirty=true")
        yield (
            "reproduce",
            Verb(lambda at: command(*given, f"output={at / 'runs'}", f"ledger={at / 'ledger'}"), row_of_ledger),
        )
    if "retry" in names:
        made = root / "made"
        call_here("train", "-m", *TINY, "seed=0,1", f"hydra.sweep.dir={made}", "hydra.launcher.jobs=2")
        for job in Sweep.open(made).jobs:
            # As if its disk had been full on the way.
            os.replace(job.directory / "checkpoints" / "previous.ckpt", job.directory / "checkpoints" / "last.ckpt")
            (job.directory / "results.json").unlink()
            job.run.set_state("failed", "No space left on device")
        yield (
            "retry",
            Verb(
                lambda at: command("sweep", "retry", at / "sweep", "--jobs", "2"),
                jobs_of,
                partial(failed_sweep, made=made),
            ),
        )


def call_here(*arguments: object) -> None:
    process = multiprocessing.get_context("fork").Process(target=command, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0, arguments


def in_fork(verb: Verb, folder: Path) -> multiprocessing.process.BaseProcess:
    def run() -> None:
        said = os.open(folder.with_suffix(".out"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(said, stream)
        verb.call(folder)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def outlives(folder: Path) -> bool:
    """Whether a process that names the folder is there after ten seconds."""
    until = time.monotonic() + 10.0
    while True:
        named = 0
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                named += str(folder).encode() in path.read_bytes()
            except OSError:
                continue
        if not named or time.monotonic() > until:
            return bool(named)
        time.sleep(0.1)


def disturbed(verb: Verb, folder: Path, kills: int, whole_s: float, order: random.Random) -> tuple[int, Counter[str]]:
    """Call, kill and call again; then let it end.

    Returns:
        how often it was killed, and the faults.
    """
    found, done = Counter[str](), 0
    for _ in range(kills):
        process = in_fork(verb, folder)
        process.join(order.uniform(0.0, 1.1 * whole_s))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            done += 1
        found["outlived"] += outlives(folder)
        try:
            verb.result(folder)
        except Exception as error:
            print(f"  half: {folder}: {type(error).__name__}: {error}", file=sys.stderr)
            found["half"] += 1
        if verb.refuses and verb.result(folder) is not None:
            return done, found
    process = in_fork(verb, folder)
    process.join(300.0)
    found["lost"] += process.exitcode != 0
    return done, found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = ["export", "prepare", "predict", "report", "reproduce", "retry"]
    parser.add_argument("verbs", nargs="*", default=every, metavar="VERB")
    parser.add_argument("--kills", type=int, default=10, help="of each command")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    order, bad = random.Random(given.seed), 0
    table = Table(*("command", "calls", "kills", "lost", "half", "outlived", "differ", "litter"))
    root = Path(tempfile.mkdtemp(prefix="segbench-faults-"))
    os.chdir(root)
    began = time.monotonic()
    for name, verb in verbs(root, given.verbs):
        whole = root / name / "whole"
        whole.mkdir(parents=True)
        verb.begin(whole)
        at, process = time.monotonic(), in_fork(verb, whole)
        process.join()
        assert process.exitcode == 0, whole.with_suffix(".out").read_text()
        whole_s, expected, files = time.monotonic() - at, verb.result(whole), files_in(whole)
        faults, killed, calls = Counter[str](), 0, 0
        while killed < given.kills:
            folder, calls = root / name / f"run{calls}", calls + 1
            folder.mkdir()
            verb.begin(folder)
            # Several times each, so that what a kill leaves behind meets the next one.
            times, found = disturbed(verb, folder, min(3, given.kills - killed), whole_s, order)
            killed += times
            found["differ"] += verb.result(folder) != expected
            if litter := sorted(files_in(folder) - files):
                print(f"  litter: {litter[:5]}", file=sys.stderr)
                found["litter"] += 1
            if found.total():
                print(f"  {dict(found)}: {folder}, see {folder.with_suffix('.out')}", file=sys.stderr)
            else:
                shutil.rmtree(folder)
            faults += found
        table.add_row(
            name,
            str(calls),
            str(killed),
            *(str(faults[fault]) for fault in ("lost", "half", "outlived", "differ", "litter")),
        )
        print(f"{name}: {killed} kills, {json.dumps(faults)}, {whole_s:.1f} s undisturbed", file=sys.stderr)
        bad += faults.total()
    Console(width=140).print(table)
    print(f"{time.monotonic() - began:.0f} s")
    if not bad:
        shutil.rmtree(root)
    return int(bad > 0)


if __name__ == "__main__":
    raise SystemExit(main())
