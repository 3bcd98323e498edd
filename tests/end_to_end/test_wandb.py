"""Runs in W&B from the command line: a loopback server answers the client, offline files are read back."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests.fixtures.wandb_server import WandbServer, black_hole, offline_records

from segbench.cli.compare import run as compare
from segbench.cli.report import run as report
from segbench.experiment.evaluate import evaluate
from segbench.experiment.train import train
from segbench.runs.directory import Run
from segbench.runtime.signals import EARLY, Stopped
from segbench.sweep.scores import score_of


def summary_of(folder):
    found = {}
    for record in offline_records(folder):
        for item in record.get("summary", {}).get("update", ()):
            found["/".join(item.get("nested_key", [item.get("key")]))] = json.loads(item["value_json"])
    return found


@pytest.fixture
def _offline(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("HOME", str(tmp_path))


GIVEN = (
    "logger=wandb",
    "trainer.max_steps=40",
    "trainer.val_check_interval=20",
    "data.height=96",
    "data.width=96",
    "logger.wandb.log_model=true",
    "metrics=overlap",
)


PICTURE = Path(__file__).parents[2] / "docs" / "pictures" / "wandb_masks.png"
"""Of the documentation; SEGBENCH_WRITE_PICTURES=1 draws it again."""


def draw_masks(run, rows):
    """The last image of the validation with its masks, from the files that W&B gets, side by side."""
    import cv2

    from segbench.display.panels import montage

    (folder,) = (run / "wandb").glob("offline-run-*/files")
    last = [row for row in rows if "val/images/filenames" in row][-1]
    image_HWC = cv2.imread(str(folder / last["val/images/filenames"][0]))[..., ::-1]
    tiles, names = [image_HWC], ["val/images"]
    colours = np.array([(69, 117, 180), (215, 48, 39)], np.uint8)
    for name, mask in last["val/images/all_masks"][0].items():
        classes_HW = cv2.imread(str(folder / mask["path"]), cv2.IMREAD_GRAYSCALE)
        assert classes_HW.shape == image_HWC.shape[:2]
        tiles.append((image_HWC * 0.5 + colours[np.minimum(classes_HW, 1)] * 0.5).astype(np.uint8))
        names.append(f"mask: {name}")
    picture = montage([np.ascontiguousarray(tile) for tile in tiles], names)
    if os.environ.get("SEGBENCH_WRITE_PICTURES"):
        PICTURE.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(PICTURE), picture[..., ::-1])
    assert picture.shape == cv2.imread(str(PICTURE)).shape


@pytest.mark.usefixtures("_offline")
def test_what_a_run_and_its_evaluation_leave(tiny_config, compose, tmp_path, monkeypatch):
    run = tmp_path / "run"
    train(tiny_config(*GIVEN), run, [])
    given = compose(f"run={run}", "logger=wandb", "trainer=cpu", "threads=1", config="evaluate")
    evaluate(given, tmp_path / "evaluation", [])

    summary = summary_of(run / "wandb")
    # The score that a search compares runs by, whoever searches.
    assert summary["val/mean_iu"] == summary["best/mean_iu"] == score_of(Run(run), "val/mean_iu")
    results = Run(run).results()["metrics"]
    assert summary["test/mean_iu"] == pytest.approx(results["test/mean_iu"])
    assert set(summary["val/pixel_acc"]) == {"max", "last"}
    assert summary["reported/checkpoint"] == "best"

    histories = [record["history"] for record in offline_records(run / "wandb") if "history" in record]
    rows = [{"/".join(item["nested_key"]): json.loads(item["value_json"]) for item in row["item"]} for row in histories]
    pictures = [
        (row["trainer/global_step"], row["val/images/captions"]) for row in rows if "val/images/captions" in row
    ]
    assert [step for step, _ in pictures] == [20, 40]
    assert pictures[0][1] == pictures[1][1] == ["val-0000", "val-0001"]

    artifacts = [record["artifact"] for record in offline_records(run / "wandb") if "artifact" in record]
    by_kind = {artifact["type"]: artifact for artifact in artifacts}
    assert set(by_kind) == {"dataset", "run_table", "model", "scores"}
    assert by_kind["dataset"]["use_after_commit"] is True
    contents = {entry["path"]: entry for entry in by_kind["run_table"]["manifest"]["contents"]}
    table = json.loads(Path(contents["test/per_image.table.json"]["local_path"]).read_text())
    with np.load(run / "per_image.npz") as counts:
        assert [row[0] for row in table["data"]] == list(counts["ids"])
        matrices_NKK = counts["semantic/confusion/matrix"].astype(float)
    right = np.trace(matrices_NKK, axis1=1, axis2=2) / matrices_NKK.sum((1, 2))
    assert [row[table["columns"].index("pixel_acc")] for row in table["data"]] == pytest.approx(list(right))
    assert all(set(row[1]["masks"]) == {"prediction", "label", "errors"} for row in table["data"])

    draw_masks(run, rows)

    # The evaluation uses the very model and data of the training: equal digests are one version.
    used = [record["artifact"] for record in offline_records(tmp_path / "evaluation") if "artifact" in record]
    lineage = {each["type"]: (each["name"], each["digest"]) for each in used if each.get("use_after_commit")}
    assert lineage == {kind: (by_kind[kind]["name"], by_kind[kind]["digest"]) for kind in ("dataset", "model")}

    # So do a comparison and a report: the scores that the training made.
    (tmp_path / "sent").mkdir()
    monkeypatch.chdir(tmp_path / "sent")
    assert compare([str(run), "wandb=project", "format=json"]) == 0
    report([str(run), f"output={tmp_path / 'reported' / 'report.html'}", "wandb=project"])
    for folder in (tmp_path / "sent", tmp_path / "reported"):
        sent = [record["artifact"] for record in offline_records(folder) if "artifact" in record]
        (scores,) = [each for each in sent if each.get("use_after_commit")]
        assert (scores["name"], scores["digest"]) == (by_kind["scores"]["name"], by_kind["scores"]["digest"])


@pytest.mark.usefixtures("_offline")
def test_a_run_that_a_search_gives_up_is_finished_with_the_score_of_its_best(tiny_config, tmp_path, monkeypatch):
    from segbench.training.callbacks.progress import RunProgress

    def asks(self, trainer, *rest):
        if trainer.global_step == 3:
            raise Stopped(EARLY)

    monkeypatch.setattr(RunProgress, "on_train_batch_start", asks, raising=False)
    train(tiny_config("logger=wandb", "trainer.max_steps=9"), tmp_path / "run", [])
    run = Run(tmp_path / "run")
    assert (run.state(), run.ended_by()) == ("finished", "a search that gave it up")
    assert run.results()["metrics"]["val/mean_iu"] == score_of(run, "val/mean_iu")
    assert summary_of(run.path)["val/mean_iu"] == score_of(run, "val/mean_iu")
    records = offline_records(run.path)
    assert [record["exit"].get("exit_code", 0) for record in records if "exit" in record] == [0]
    assert not any("preempting" in record for record in records)


SMALL = (
    "experiment=quickstart threads=1 trainer.val_check_interval=2 trainer.log_every_n_steps=1 data.train=4 data.val=2 "
    "data.test=2 data.height=64 data.width=64 data.tile=32 data.batch_size=2 scheduler.warmup_steps=1 "
    "trainer.precision=32-true metrics=overlap model.width=4 model.depth=2"
).split()


def environment(tmp_path, url):
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "SEGBENCH_"))}
    own = {"WANDB_BASE_URL": url, "WANDB_API_KEY": "k" * 40, "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    return kept | own


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["refused", "black hole", "500", "TLS", "silent at the start"])
def test_without_a_server_that_answers_a_training_ends_as_it_should(kind, tmp_path):
    held, server = black_hole(), WandbServer()
    url = f"http://127.0.0.1:{held.getsockname()[1]}"
    if kind == "refused":
        held.close()
    elif kind != "black hole":
        url = server.url.replace("http", "https") if kind == "TLS" else server.url
        server.status = 500 if kind == "500" else 200
        server.silent_on = "UpsertBucket"
    command = [sys.executable, "-m", "segbench", "train", *SMALL, "trainer.max_steps=4", "logger=wandb"]
    done = subprocess.run(
        [*command, f"hydra.run.dir={tmp_path / 'run'}"],
        env=environment(tmp_path, url),
        capture_output=True,
        text=True,
        check=False,
    )
    held.close()
    server.close()
    assert done.returncode == 0, done.stderr
    assert Run(tmp_path / "run").state() == "finished"
    assert done.stderr.count("continuing offline") == 1
    assert "Traceback" not in done.stderr
    assert [record["exit"].get("exit_code", 0) for record in offline_records(tmp_path) if "exit" in record][-1:] == [0]
    log = (tmp_path / "run" / "run.log").read_text().splitlines()
    (said,) = [line for line in log if "continuing offline" in line]
    (before,) = [line for line in log if ": input em" in line]
    waited = [time.mktime(time.strptime(line[:19], "%Y-%m-%d %H:%M:%S")) for line in (before, said)]
    assert waited[1] - waited[0] < 25  # 15 of waiting, and the import of wandb


class Agent:
    """What the server tells the agent: a run that is given up, one that is preempted, and its resume."""

    def __init__(self, arguments):
        self.arguments, self.stage, self.preempted = arguments, 0, None

    def validated(self, server, name):
        return any("val/mean_iu" in row for row in server.runs.get(name, {"history": []})["history"])

    def __call__(self, server):
        living = server.heartbeats[-1]
        match self.stage:
            case 0:
                return self.next("run", "r1", self.arguments | {"trainer.max_steps": 3000})
            case 1 if self.validated(server, "r1"):
                return self.next("stop", "r1")
            case 2 if "r1" not in living:
                return self.next("run", "r2", self.arguments | {"trainer.max_steps": 1000})
            case 3 if self.validated(server, "r2"):
                os.kill(process_of("r2"), signal.SIGTERM)
                self.stage += 1
            case 4 if "r2" not in living:
                run = server.runs["r2"]
                self.preempted = (run["exit"], run["preempting"])
                whole = {key: value["value"] for key, value in run["config"].items() if key != "_wandb"}
                return self.next("resume", "r2", whole)
            case 5 if "r2" not in living:
                return [{"type": "exit"}]
        return []

    def next(self, kind, name, arguments=None):
        self.stage += 1
        given = {key: {"value": value} for key, value in (arguments or {}).items()}
        return [{"type": kind, "run_id": name, "program": "segbench", "args": given}]


def process_of(name):
    for path in Path("/proc").glob("[0-9]*"):
        try:
            named = f"WANDB_RUN_ID={name}\0".encode() in (path / "environ").read_bytes()
            if named and b"-m\0segbench\0" in (path / "cmdline").read_bytes():
                return int(path.name)
        except OSError:
            continue
    raise AssertionError(f"no process of {name}")


@pytest.mark.slow
def test_the_agent_runs_stops_and_resumes(tmp_path):
    import yaml

    from segbench.config.packaged import conf_root

    server = WandbServer()
    server.sweep = yaml.safe_load((conf_root() / "sweep" / "quickstart.yaml").read_text())
    server.sweep["command"][-1:] = [*SMALL[1:], server.sweep["command"][-1]]
    nested = {"optimizer": {"lr": 0.01}, "model": {"dropout": 0.1}, "tile": None}
    agent = Agent(nested | {"logger.wandb.notes": "a, b", "logger.wandb.tags": ["x", "y"]})
    server.commands = [agent] * 200
    program = tmp_path / "bin" / "segbench"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m segbench "$@"\n')
    program.chmod(0o755)
    own = environment(tmp_path, server.url)
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "agent", "e/p/sw"],
        cwd=tmp_path,
        env=own | {"PATH": f"{program.parent}:{own['PATH']}"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    server.close()
    assert agent.stage == 5, done.stderr[-3000:]
    directories = {path.read_text(): path.parent for path in tmp_path.glob("outputs/quickstart/*/wandb_id.txt")}
    assert set(directories) == {"r1", "r2"}
    given_up, resumed = (server.runs[name] for name in ("r1", "r2"))
    assert (given_up["exit"], given_up["preempting"]) == (0, False)
    assert Run(directories["r1"]).ended_by() == "a search that gave it up"
    assert agent.preempted == (143, True)
    assert resumed["exit"] == 0
    assert Run(directories["r2"]).results()["timing"]["steps"] == 1000
    assert len(Run(directories["r2"]).legs()) == 2
    for name, run in server.runs.items():
        assert run["summary"]["val/mean_iu"] == pytest.approx(score_of(Run(directories[name]), "val/mean_iu"))
        assert (run["config"]["optimizer"]["value"]["lr"], run["config"]["model"]["value"]["dropout"]) == (0.01, 0.1)
        assert (run["notes"], run["tags"][:2], run["project"]) == ("a, b", ["x", "y"], "p")
