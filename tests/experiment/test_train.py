import csv
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
import yaml
from tests.fixtures.wandb_server import offline_records

from segbench.cli import main as cli
from segbench.errors import SegbenchError
from segbench.experiment.build import build_dataset, build_measures
from segbench.experiment.train import train
from segbench.runs.directory import Run
from segbench.runs.partial import Partial
from segbench.training.callbacks.progress import RunProgress

SEGBENCH = Path(sys.executable).with_name("segbench")


def state(directory):
    return json.loads((directory / "state.json").read_text())["state"]


def weights(directory, which="last"):
    return torch.load(Run(directory).checkpoint(which), weights_only=True)["state_dict"]


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def rows(directory, column):
    with (directory / "metrics.csv").open() as file:
        return [(int(row["step"]), float(row[column])) for row in csv.DictReader(file) if row.get(column)]


def test_a_run_directory_holds_what_it_should(tiny_run):
    there = {path.name for path in tiny_run.iterdir() if not path.name.startswith(".")}
    # Written where the machine's meters can be read.
    assert there - {"energy.json"} == {
        *(
            "config.yaml",
            "digests.json",
            "history.jsonl",
            "overrides.yaml",
            "dataset.json",
            "splits.json",
            "provenance.json",
            "state.json",
            "run.log",
            "metrics.csv",
        ),
        *("checkpoints", "results.json", "per_image.npz", "panels", "extremes"),
    }
    assert state(tiny_run) == "finished"
    assert {path.name for path in (tiny_run / "checkpoints").iterdir()} == {
        *("best.ckpt", "last.ckpt", "previous.ckpt", "validation.json")
    }


def test_the_recorded_config_is_resolved_and_is_what_ran(tiny_run, tiny_config):
    recorded = yaml.safe_load((tiny_run / "config.yaml").read_text())
    composed = tiny_config()
    # What is left to the machine is recorded as it was settled.
    settled = dict.fromkeys(("trainer.sync_batchnorm", "trainer.allow_tf32", "trainer.benchmark"), False)
    settled["data.num_workers"] = 0
    assert {composed.flat[key] for key in settled} == {"auto"}
    assert recorded == composed.replace(settled).tree
    (began,) = Run(tiny_run).legs()
    assert (began.step, dict(began.changes), dict(began.settled)) == (0, {}, settled)
    assert yaml.safe_load((tiny_run / "overrides.yaml").read_text()) == ["trainer.max_steps=3"]


def test_results_say_how_they_came_about(tiny_run):
    results = Run.open(tiny_run).results()
    assert results["protocol"] | {"versions": None, "split": None} == {
        "dataset": "synthetic_em",
        "split": None,
        "checkpoint": "best",
        "checkpoint_chosen_by": "val/mean_iu",
        "precision": "32-true",
        "tta": "none",
        "tile": None,
        "threads": 1,
        "versions": None,
        "paper": None,
        "ended_by": None,
        "continued": [],
    }
    assert results["protocol"]["versions"].keys() == results["metrics"].keys()
    assert results["provenance"]["versions"]["lightning"]
    assert (results["timing"]["steps"], results["timing"]["checkpoint_step"]) == (3, 2)


def test_a_clock_that_jumps_changes_no_score_and_no_duration(tiny_run, tiny_config, tmp_path, monkeypatch):
    real, jumps = time.time, itertools.cycle([0.0, -3600.0, 86400.0])
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    train(tiny_config(), tmp_path / "run", ["trainer.max_steps=3"])
    jumped, steady = (Run.open(path).results() for path in (tmp_path / "run", tiny_run))
    assert jumped["metrics"] == steady["metrics"]
    assert all(0 <= seconds < 3600 for seconds in jumped["timing"].values())


def test_every_score_can_be_computed_again_from_the_counts_of_the_images(tiny_run, tiny_config):
    results = Run.open(tiny_run).results()["metrics"]
    config = tiny_config()
    with np.load(tiny_run / "per_image.npz", allow_pickle=False) as stored:
        assert stored["ids"].tolist() == [f"test-{number:04d}" for number in range(5)]
        assert stored["split"].item() == "test"
        recomputed = {}
        for measure in build_measures(config.metrics, build_dataset(config.data, config.weights).spec)["semantic"]:
            prefix = f"semantic/{measure.name}/"
            counts = {key.removeprefix(prefix): stored[key] for key in stored if key.startswith(prefix)}
            assert {len(array) for array in counts.values()} == {5}
            totals = {key: array.sum(0) for key, array in counts.items()}
            recomputed |= {f"test/{name}": float(value) for name, value in measure.scores(totals).items()}
            assert json.loads(stored["versions"].item())[f"semantic/{measure.name}"] == measure.version
    assert recomputed == results


def test_the_confusion_matrices_hold_every_pixel_once(tiny_run):
    with np.load(tiny_run / "per_image.npz") as stored:
        assert stored["semantic/confusion/matrix"].sum((1, 2)).tolist() == [48 * 48] * 5


def test_curves_are_logged_over_steps(tiny_run):
    assert [step for step, _ in rows(tiny_run, "train/loss")] == [0, 1, 2]
    assert all(value > 0 for _, value in rows(tiny_run, "train/gradient_norm"))
    assert [value for _, value in rows(tiny_run, "train/lr")] == pytest.approx([1e-4, 2e-4, 3e-4])
    ((step, score),) = rows(tiny_run, "val/mean_iu")
    assert (step, 0 <= score <= 1) == (1, True)


def test_panels_show_the_first_images(tiny_run):
    names = [path.name for path in sorted((tiny_run / "panels").glob("*.png"))]
    assert {f"test-{number:04d}.png" for number in range(4)} <= set(names)
    assert "test-0004.png" not in names
    picture = cv2.imread(str(tiny_run / "panels" / "test-0000.png"))
    # Four pictures of 48 x 48, enlarged sevenfold, in a row.
    assert picture.shape[1] > 4 * 7 * 48 > picture.shape[0]


def test_the_log_tells_the_way(tiny_run):
    log = (tiny_run / "run.log").read_text()
    assert "step 3 of 3, loss " in log
    assert "best val/mean_iu so far" in log
    assert "scoring best.ckpt on test: 5 images, tta=none" in log


def test_the_same_seed_gives_the_same_run(tiny_run, tiny_config, tmp_path):
    # Seed 0, and loading processes.
    train(tiny_config("data.num_workers=2"), tmp_path / "again", [])
    assert equal(weights(tiny_run), weights(tmp_path / "again"))
    assert Run(tmp_path / "again").results()["metrics"] == Run(tiny_run).results()["metrics"]
    assert rows(tiny_run, "train/loss") == rows(tmp_path / "again", "train/loss")


def test_another_seed_gives_another_run(tiny_run, tiny_config, tmp_path):
    train(tiny_config("seed=1"), tmp_path / "other", [])
    assert not equal(weights(tiny_run), weights(tmp_path / "other"))


def test_the_table_stands_beside_the_threshold_and_the_paper(tiny_config, tmp_path, capsys):
    config = tiny_config("trainer.max_steps=1")
    paper = {"method": "U-Net", "source": "table 1", "metrics": {"rand_error": 0.0382, "speed": 1.0}}
    config = config.replace({"paper": paper})
    train(config, tmp_path / "run", [])
    table = capsys.readouterr().out
    assert "tiny: test, last checkpoint, tta none" in table
    assert "best global threshold" in table
    assert "paper: U-Net" in table
    assert "0.0382" in next(line for line in table.splitlines() if " rand_error " in line)
    assert "1.0000" in next(line for line in table.splitlines() if " speed " in line)
    assert f"run:   {tmp_path / 'run'}\n" in table


def test_test_time_averaging_and_tiles_are_recorded(tiny_config, tmp_path):
    train(tiny_config("trainer.max_steps=1", "tta=d4", "tile=24", "data.test=1"), tmp_path / "run", [])
    protocol = Run(tmp_path / "run").results()["protocol"]
    assert (protocol["tta"], protocol["tile"]) == ("d4", 24)


def test_all_slices_train_and_the_test_volume_is_predicted(isbi_config, tmp_path):
    config = isbi_config("data.protocol=all", "callbacks=averaged")
    train(config, tmp_path / "run", [])
    path = tmp_path / "run" / "predictions" / "test-volume.tif"
    with tifffile.TiffFile(path) as tiff:
        assert len(tiff.pages) == 30
    prob = tifffile.imread(path)
    assert (prob.shape, prob.dtype) == ((30, 64, 64), np.float32)
    assert 0 <= prob.min() < prob.max() <= 1
    results = Run(tmp_path / "run").results()
    assert not any(name.startswith("test/") for name in results["metrics"])
    assert results["protocol"]["checkpoint"] == "last"
    assert [path.name for path in path.parent.iterdir()] == ["test-volume.tif"]


def test_the_test_volume_is_predicted_with_the_checkpoint_that_is_kept(compose, isbi_config, drawn_isbi, tmp_path):
    from segbench.experiment.predict import predict

    # The checkpoint's network is the averaged one.
    config = isbi_config("data.protocol=all", "callbacks=averaged")
    train(config, tmp_path / "run", [])
    given = {"run": str(tmp_path / "run"), "input": str(drawn_isbi / "test-volume.tif"), "output": str(tmp_path)}
    (predicted,) = predict(
        compose(*(f"{key}={value}" for key, value in given.items()), "trainer=cpu", config="predict")
    )
    np.testing.assert_array_equal(
        tifffile.imread(predicted), tifffile.imread(tmp_path / "run" / "predictions" / "test-volume.tif")
    )


def test_isbi_trains_with_the_papers_ingredients(isbi_config, tmp_path):
    config = isbi_config("experiment=unet_isbi_em_cpu", "tta=none", "model.width=4", "data.repeats=1")
    assert config.loss_of("semantic").name == "WeightedCrossEntropy"
    scores = train(config, tmp_path / "run", [])
    assert 0 <= scores["test/rand_error"] <= 1
    assert Run(tmp_path / "run").results()["protocol"]["paper"]["row"] == "unet_isbi_em"


def test_a_gpu_asked_for_where_there_is_none_makes_no_directory(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SegbenchError, match=r"on a machine without a usable GPU"):
        train(tiny_config("trainer=gpu"), tmp_path / "run", [])
    assert not (tmp_path / "run").exists()


def test_a_directory_that_holds_a_run_is_left_as_it_is(tiny_run, tiny_config):
    before = (tiny_run / "results.json").read_text()
    with pytest.raises(SegbenchError, match="holds a run already"):
        train(tiny_config(), tiny_run, [])
    assert (tiny_run / "results.json").read_text() == before
    assert state(tiny_run) == "finished"


def test_bad_data_fails_the_run_and_leaves_the_directory_free(isbi_config, tmp_path):
    config = isbi_config(f"data.root={tmp_path}/nowhere")
    with pytest.raises(SegbenchError, match=r"no folder .*nowhere"):
        train(config, tmp_path / "run", [])
    assert state(tmp_path / "run") == "failed"
    assert "nowhere" in Run(tmp_path / "run").reason()
    with Run(tmp_path / "run") as run:
        run.lock()


def test_an_interrupted_run_says_so_and_keeps_its_checkpoint(tiny_config, tmp_path, monkeypatch):
    def interrupt(self, trainer, *arguments):
        if trainer.global_step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunProgress, "on_train_batch_end", interrupt)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(tiny_config("callbacks.checkpoint.every_n_train_steps=1"), tmp_path / "run", [])
    assert state(tmp_path / "run") == "interrupted"
    assert torch.load(Run(tmp_path / "run").checkpoint("last"), weights_only=True)["global_step"] >= 1


def test_a_run_without_checkpoints_is_refused_before_it_trains(tiny_config, tmp_path):
    with pytest.raises(SegbenchError, match=r"callbacks\.checkpoint=null\n.*a run is scored\n.*leave"):
        train(tiny_config("callbacks.checkpoint=null"), tmp_path / "run", [])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", ["input_scale=2", "match_histogram=a.tif", "ensemble=other"])
def test_an_option_of_evaluations_is_refused_in_a_training(tiny_config, tmp_path, option):
    with pytest.raises(SegbenchError, match=rf"{option} in a training\n.*\n.*evaluate run=.*run {option}$"):
        train(tiny_config(f"+{option}"), tmp_path / "run", [])
    assert not (tmp_path / "run").exists()


def test_another_process_does_not_judge_a_run_that_goes_on(tiny_config, tmp_path, monkeypatch):
    train(tiny_config("trainer.max_steps=1"), tmp_path / "run", [])
    recorded = Run(tmp_path / "run").config().replace({"input_scale": 2.0})
    monkeypatch.setattr("segbench.runtime.processes.is_main_process", lambda: False)
    monkeypatch.setattr(Run, "config", lambda run: recorded)

    class Reached(Exception):
        pass

    def reach(*arguments, **named):
        raise Reached

    monkeypatch.setattr("segbench.runs.running.running", reach)
    with pytest.raises(Reached):
        train(recorded, tmp_path / "run", [], resume=True)


def test_samples_are_drawn_as_the_network_sees_them(tiny_config, tmp_path):
    config = tiny_config("callbacks=inspect", "callbacks.inspect.count=3", "loss=weighted_cross_entropy", "data.test=1")
    train(config, tmp_path / "run", [])
    assert len(list((tmp_path / "run" / "inspect").glob("*.png"))) == 3


def test_tensorboard_is_one_word_away(tiny_config, tmp_path):
    train(tiny_config("logger=tensorboard", "trainer.max_steps=1", "data.test=1"), tmp_path / "run", [])
    assert list((tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*"))
    assert (tmp_path / "run" / "metrics.csv").is_file()


def test_wandb_runs_offline_without_a_key_and_ends_in_its_true_state(tiny_config, tmp_path, monkeypatch):
    import wandb

    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    given = ("logger=wandb", "data.test=1", "callbacks.panels.count=1", "logger.wandb.alerts=true")
    train(tiny_config(*given, "trainer.max_steps=1"), tmp_path / "good", [])
    with pytest.raises(SegbenchError, match="a loss of"):
        train(tiny_config(*given, "optimizer.lr=1e30"), tmp_path / "bad", [])
    assert wandb.run is None
    for name, code, alerts in (("good", 0, []), ("bad", 1, ["segbench: a run failed"])):
        records = offline_records(tmp_path / name)
        assert [record["exit"].get("exit_code", 0) for record in records if "exit" in record] == [code]
        assert [record["alert"]["title"] for record in records if "alert" in record] == alerts
        (folder,) = (tmp_path / name / "wandb").glob("offline-run-*")
        assert folder.name.endswith((tmp_path / name / "wandb_id.txt").read_text())
        assert (tmp_path / name / "metrics.csv").is_file()


def test_a_part_of_the_test_or_of_the_validations_is_marked_and_no_paper_stands_beside(tiny_config, tmp_path, capsys):
    limits = ("+trainer.limit_test_batches=2", "+trainer.limit_val_batches=1")
    paper = ("+paper.row=of_mine", "+paper.method=U-Net", "+paper.source=a table", "+paper.metrics={mean_iu: 0.9}")
    train(tiny_config(*limits, *paper), tmp_path / "run", [])
    results = Run(tmp_path / "run").results()
    assert results["partial"] == {"counted": 2, "of": 5}
    assert results["partial_validation"] == {"counted": 1, "of": 2}
    shown = capsys.readouterr().out
    assert "PARTIAL, 2 of 5 images: " in shown
    assert "validated on 1 of 2 images" in shown
    assert "paper" not in shown.replace("no paper's data", "")
    log = (tmp_path / "run" / "run.log").read_text()
    assert log.count("trainer.limit_val_batches=1: validations may count a part") == 1


def test_validations_are_the_score_where_there_is_no_test(tiny_config, tmp_path):
    train(tiny_config("data.test=0", "+trainer.limit_val_batches=1"), tmp_path / "run", [])
    assert Run(tmp_path / "run").partial() == Partial(1, 2)


def test_a_resumed_run_knows_what_its_last_validation_counted(tiny_config, tmp_path, monkeypatch):
    given = ("data.test=0", "+trainer.limit_val_batches=1", "trainer.max_steps=2")
    with monkeypatch.context() as patched:
        patched.setattr(Run, "write_results", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(tiny_config(*given), tmp_path / "run", [])
    train(tiny_config(*given), tmp_path / "run", [], resume=True)
    assert Run(tmp_path / "run").partial() == Partial(1, 2)


def test_a_quick_try_of_everything_is_a_partial_run(tiny_config, tmp_path):
    train(tiny_config("+trainer.fast_dev_run=true"), tmp_path / "run", [])
    assert Run(tmp_path / "run").partial() == Partial(1, 5)


def test_the_scores_of_a_sanity_check_are_no_validations(tiny_config, tmp_path):
    given = ("trainer.num_sanity_val_steps=1", "trainer.val_check_interval=100")
    train(tiny_config(*given), tmp_path / "run", [])
    results = Run(tmp_path / "run").results()
    assert "partial_validation" not in results
    assert not any(key.startswith("val/") for key in results["metrics"])


def test_quickstart_writes_checkpoints_often(compose):
    assert compose("name=quickstart").flat["callbacks.checkpoint.every_n_train_steps"] <= 4


def test_a_sweep_runs_its_jobs_in_directories_of_their_own(tiny_overrides, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGBENCH_RUN_ID", "here")
    given = ("seed=0,1", "trainer.max_steps=1", "data.test=1", "callbacks.panels=null")
    monkeypatch.setattr(sys, "argv", ["segbench", "train", "-m", *tiny_overrides, *given])
    cli.main()
    jobs = tmp_path / "outputs" / "tiny" / "sweep_here"
    assert [state(jobs / number) for number in ("0", "1")] == ["finished"] * 2
    assert [Run(jobs / number).config().seed for number in ("0", "1")] == [0, 1]
    assert "seed=1" in yaml.safe_load((jobs / "1" / "overrides.yaml").read_text())
    assert not equal(weights(jobs / "0"), weights(jobs / "1"))


def test_a_sweep_is_named_after_its_experiment(tiny_overrides, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGBENCH_RUN_ID", "here")
    unnamed = [override for override in tiny_overrides if not override.startswith("name=")]
    monkeypatch.setattr(sys, "argv", ["segbench", "train", "-m", *unnamed, "trainer.max_steps=1", "seed=0"])
    cli.main()
    job = tmp_path / "outputs" / "quickstart" / "sweep_here" / "0"
    assert Run(job).config().name == "quickstart"


def test_two_processes_learn_what_one_learns_with_twice_the_batch(tiny_config, tiny_overrides, tmp_path):
    given = ("model.dropout=0", "callbacks.panels=null", "data.test=3", "loss=cross_entropy_dice")
    ranks = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", f"hydra.run.dir={tmp_path}/two")
    command = [SEGBENCH, "train", *ranks, *tiny_overrides, *given, "data.batch_size=1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run:   ") == 1
    train(tiny_config(*given, "data.batch_size=2"), tmp_path / "one", [])
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys()
    for name in one:
        # Adam's first steps are of one size whatever the gradient: a sign flips where it is nothing but rounding.
        assert (one[name] - two[name]).abs().quantile(0.9) < 1e-6, name
    assert state(tmp_path / "two") == "finished"
    with np.load(tmp_path / "two" / "per_image.npz") as stored:
        assert stored["ids"].tolist() == ["test-0000", "test-0001", "test-0002"]


def test_sums_of_losses_clipping_and_accumulation_in_one_run(tiny_config, tmp_path):
    picked = ("loss=cross_entropy_lovasz", "scheduler=poly", "scheduler.warmup_steps=0", "optimizer=sgd")
    limits = ("optimizer.lr=1e-2", "trainer.gradient_clip_val=1e-3", "trainer.accumulate_grad_batches=2")
    train(tiny_config(*picked, *limits), tmp_path, [])
    losses, entropies, lovasz, norms, rates = (
        rows(tmp_path, f"train/{name}") for name in ("loss", "loss/cross_entropy", "loss/lovasz", "gradient_norm", "lr")
    )
    assert [step for step, _ in losses] == [0, 1, 2]
    sums = [first + second for (_, first), (_, second) in zip(entropies, lovasz, strict=True)]
    assert [loss for _, loss in losses] == pytest.approx(sums, rel=1e-6)
    assert [rate for _, rate in rates] == pytest.approx([1e-2 * (1 - step / 3) ** 0.9 for step in range(3)])
    # Logged before it is clipped.
    assert all(norm > 1e-3 for _, norm in norms)


@pytest.mark.parametrize("accumulated", [4, 17], ids=["whole steps", "steps of the batches that are left"])
def test_the_loss_on_show_is_the_logged_one(tiny_config, tmp_path, accumulated):
    # Twenty batches an epoch; the last step is shown, however short the run.
    train(tiny_config(f"trainer.accumulate_grad_batches={accumulated}", "trainer.max_steps=2"), tmp_path, [])
    (_, logged) = rows(tmp_path, "train/loss")[-1]
    assert json.loads((tmp_path / ".progress.json").read_text())["loss"] == pytest.approx(logged, rel=1e-12)
    assert f"step 2 of 2, loss {logged:.4f}" in (tmp_path / "run.log").read_text()


@pytest.mark.filterwarnings("ignore:.*fp16 is not supported on CPU", "ignore:.*for historical reasons")
@pytest.mark.parametrize(
    ("precision", "kind"), [("bf16-true", torch.bfloat16), ("16-true", torch.float16), ("64-true", torch.float64)]
)
def test_a_training_whose_weights_are_of_another_type(tiny_config, tmp_path, precision, kind):
    # Adam's epsilon is 0 in float16.
    config = tiny_config(f"trainer.precision={precision}", "optimizer=sgd", "loss=cross_entropy_lovasz")
    scores = train(config, tmp_path / "run", [])
    assert all(each.dtype == kind for name, each in weights(tmp_path / "run").items() if name.endswith("weight"))
    assert scores["test/mean_iu"] >= 0
    assert np.isfinite([loss for _, loss in rows(tmp_path / "run", "train/loss")]).all()
    assert Run(tmp_path / "run").results()["protocol"]["precision"] == precision


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "16-true", "64-true", "bf16-mixed", "16-mixed"])
def test_a_training_on_a_gpu_in_every_precision(tiny_config, tmp_path, precision):
    config = tiny_config(f"trainer.precision={precision}", "trainer.accelerator=gpu", "optimizer=sgd")
    train(config, tmp_path / "run", [])
    assert np.isfinite([loss for _, loss in rows(tmp_path / "run", "train/loss")]).all()


@pytest.mark.gpu
def test_two_deterministic_trainings_on_a_gpu_are_equal(tiny_config, tmp_path):
    given = ("trainer=gpu", "trainer.deterministic=true", "trainer.precision=bf16-mixed", "trainer.max_steps=3")
    for name in ("one", "other"):
        train(tiny_config(*given), tmp_path / name, [])
    assert equal(weights(tmp_path / "one"), weights(tmp_path / "other"))


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has ..."), "GPU's .*2.50 GiB"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), "machine's .*9 b"),
    ],
)
def test_a_batch_that_does_not_fit_into_memory_is_told_in_a_sentence(tiny_config, tmp_path, monkeypatch, error, asked):
    from segbench.models.unet import UNet

    def full(self, image):
        raise error

    monkeypatch.setattr(UNet, "forward", full)
    with pytest.raises(SegbenchError, match=rf"the {asked}.* more.*\n.*\n.*data.tile= or data.batch_size="):
        train(tiny_config(), tmp_path / "run", [])
    recorded = json.loads((tmp_path / "run" / "state.json").read_text())
    assert recorded["state"] == "failed"
    assert "memory ran out" in str(recorded)


def test_a_training_without_test_images_says_what_is_reported(tiny_config, tmp_path):
    train(tiny_config("data.test=0", "trainer.max_steps=1", "trainer.val_check_interval=1"), tmp_path / "run", [])
    assert "no test images: the last validation is reported" in (tmp_path / "run" / "run.log").read_text()
