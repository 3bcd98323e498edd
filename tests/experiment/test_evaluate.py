import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml

import segbench
from segbench.data import datamodule
from segbench.data.sampler import Draw, EvaluationSampler
from segbench.errors import SegbenchError
from segbench.experiment.build import build_dataset
from segbench.experiment.evaluate import evaluate
from segbench.experiment.train import train
from segbench.runs.directory import Run

SEGBENCH = Path(sys.executable).with_name("segbench")


@pytest.fixture
def scored(compose, tiny_run, tmp_path):
    """`scored(*overrides)`: the directory in which `tiny_run` was evaluated."""

    def run(*overrides, directory="evaluation", of=tiny_run):
        config = compose(f"run={of}", "trainer=cpu", "name=evaluate", *overrides, config="evaluate")
        evaluate(config, tmp_path / directory, list(overrides))
        return tmp_path / directory

    return run


def same(one, other):
    """Whether two evaluations agree to the last bit."""
    with np.load(one / "per_image.npz") as first, np.load(other / "per_image.npz") as second:
        return (
            Run(one).results()["metrics"] == Run(other).results()["metrics"]
            and first.files == second.files
            and all(np.array_equal(first[key], second[key]) for key in first.files)
        )


@pytest.mark.parametrize(
    "overrides",
    [(), ("data.eval_batch_size=3",), ("data.num_workers=2",), ("data.eval_batch_size=5", "data.num_workers=1")],
    ids=" ".join,
)
def test_no_batch_size_or_worker_count_changes_a_bit(scored, tiny_run, overrides):
    assert same(scored(*overrides), tiny_run)


def test_two_processes_change_no_bit(tiny_config, tmp_path):
    # Five images on two ranks, one of them padding; a norm's statistics are the same everywhere.
    train(tiny_config("model.norm=batch"), tmp_path / "one", [])
    ranks = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "data.eval_batch_size=2")
    command = [SEGBENCH, "evaluate", "run=one", *ranks, "hydra.run.dir=two"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run:   ") == 1
    assert same(tmp_path / "two", tmp_path / "one")


def partial(directory):
    return Run(directory).results()["partial"]


def test_a_whole_split_is_not_partial(scored, tiny_run):
    assert partial(tiny_run) is partial(scored()) is Run(tiny_run).partial() is None


@pytest.mark.parametrize(("limit", "counted"), [("1", 2), ("0.7", 4)], ids=["batches", "share"])
def test_a_part_of_a_split_is_marked_everywhere(scored, tiny_run, caplog, capsys, limit, counted):
    directory = scored(f"+trainer.limit_test_batches={limit}", "data.eval_batch_size=2")
    assert partial(directory) == {"counted": counted, "of": 5}
    assert f"PARTIAL, {counted} of 5 images: " in capsys.readouterr().out
    told = (directory / "run.log").read_text()
    assert (
        f"partial: {counted} of 5 images of test were counted. Score it whole: segbench evaluate run={tiny_run}" in told
    )
    with (directory / "metrics.csv").open() as file:
        (row,) = [row for row in csv.DictReader(file) if row["partial/of"]]
    assert (float(row["partial/counted"]), float(row["partial/of"])) == (counted, 5)


def test_two_processes_know_what_both_counted(tiny_run, tmp_path):
    ranks = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "+trainer.limit_test_batches=2")
    command = [SEGBENCH, "evaluate", f"run={tiny_run}", *ranks, "hydra.run.dir=two"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert partial(tmp_path / "two") == {"counted": 4, "of": 5}
    assert done.stdout.count("PARTIAL") == done.stderr.count("partial: 4 of 5 images") == 1


class Sampled(EvaluationSampler):
    """Images in an order of one's own."""

    order: tuple[int, ...] = ()

    def __iter__(self):
        return map(Draw, self.order)

    def __len__(self):
        return len(self.order)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ((0, 1, 2, 3, 4, 0), {"counted": 5, "of": 5, "twice": 1}),
        ((0, 0, 2, 3, 4), {"counted": 4, "of": 5, "twice": 1}),
        ((3, 1), {"counted": 2, "of": 5}),
    ],
)
def test_whatever_a_sampler_repeats_or_leaves_out_is_told(scored, tiny_run, monkeypatch, order, expected):
    monkeypatch.setattr(Sampled, "order", order)
    monkeypatch.setattr(datamodule, "EvaluationSampler", Sampled)
    directory = scored()
    assert partial(directory) == expected
    if expected["counted"] == 5:
        assert same(directory, tiny_run)


@pytest.mark.parametrize(("limit", "said"), [("0", "limit_test_batches=0"), ("0.1", "0.1, where test has 5 batches")])
def test_a_limit_that_leaves_nothing_is_refused(scored, limit, said):
    with pytest.raises(SegbenchError, match=rf"{said}(.|\n)*expected: a (.|\n)*leave it out"):
        scored(f"+trainer.limit_test_batches={limit}")


def test_best_is_scored_unless_last_is_asked_for_and_the_results_say_which(scored):
    best, last = scored(directory="best"), scored("checkpoint=last", directory="last")
    assert [Run(path).results()["protocol"]["checkpoint"] for path in (best, last)] == ["best", "last"]
    assert [Run(path).results()["timing"]["checkpoint_step"] for path in (best, last)] == [2, 3]
    assert [Run(path).results()["protocol"]["checkpoint_chosen_by"] for path in (best, last)] == ["val/mean_iu", None]
    assert not same(best, last)


def test_the_run_that_was_scored_is_named(scored, tiny_run):
    directory = scored()
    assert Run(directory).results()["provenance"]["run"] == str(tiny_run)
    assert yaml.safe_load((directory / "config.yaml").read_text())["run"] == str(tiny_run)
    assert json.loads((directory / "state.json").read_text())["state"] == "finished"


@pytest.mark.parametrize(("split", "count"), [("val", 2), ("train", 4)])
def test_another_split_is_scored_under_its_name(scored, split, count):
    directory = scored(f"split={split}")
    assert all(name.startswith(f"{split}/") for name in Run(directory).results()["metrics"])
    with np.load(directory / "per_image.npz") as stored:
        assert stored["split"].item() == split
        assert stored["ids"].tolist() == [f"{split}-{number:04d}" for number in range(count)]


def test_the_validation_score_of_training_comes_back(scored, tiny_run):
    with (tiny_run / "metrics.csv").open() as file:
        logged = next(float(row["val/mean_iu"]) for row in csv.DictReader(file) if row["val/mean_iu"])
    assert Run(scored("split=val")).results()["metrics"]["val/mean_iu"] == pytest.approx(logged, abs=1e-6)


def test_tiles_change_no_result_beyond_rounding(scored, tiny_run):
    tiled = Run(scored("tile=16")).results()
    assert tiled["protocol"]["tile"] == 16
    assert tiled["metrics"] == pytest.approx(Run(tiny_run).results()["metrics"], abs=1e-3)


def test_averaging_over_symmetries_is_another_protocol(scored, tiny_run):
    directory = scored("tta=d4")
    assert Run(directory).results()["protocol"]["tta"] == "d4"
    assert not same(directory, tiny_run)


def test_an_average_over_scales_is_recorded_and_has_the_same_bits_in_every_batch(scored, tiny_run):
    directory = scored("tta=multiscale", "tta_scales=[0.5,1]")
    protocol = Run(directory).results()["protocol"]
    assert (protocol["tta"], protocol["tta_scales"]) == ("multiscale", [0.5, 1.0])
    assert not same(directory, tiny_run)
    assert "tta_scales" not in Run(tiny_run).results()["protocol"]
    batched = scored("tta=multiscale", "tta_scales=[0.5,1]", "data.eval_batch_size=3", directory="batched")
    assert same(batched, directory)


def test_an_input_scale_is_recorded_and_reported(scored, tiny_run, capsys):
    directory = scored("input_scale=0.5")
    results = Run(directory).results()
    assert results["protocol"]["input_scale"] == 0.5
    assert results["metrics"] != Run(tiny_run).results()["metrics"]
    assert "tta none, images resized by 0.5" in " ".join(capsys.readouterr().out.split())
    of_one = scored("input_scale=1", directory="one")
    assert same(of_one, tiny_run) and "input_scale" not in Run(of_one).results()["protocol"]


def test_matched_grey_values_are_recorded_and_reported(scored, tiny_run, tmp_path, capsys):
    one = ("+data.test=1",)
    plain = scored(*one, directory="plain")
    source = build_dataset(Run(tiny_run).config().data, None).split("test")
    for name, image in (("own", source.read(0).images["em"]), ("other", 255 - source.read(1).images["em"] // 2)):
        tifffile.imwrite(tmp_path / f"{name}.tif", image)
    own = scored(*one, f"match_histogram={tmp_path}/own.tif", directory="own")
    assert same(own, plain)
    capsys.readouterr()
    other = scored(*one, f"match_histogram={tmp_path}/other.tif", directory="other")
    assert not same(other, plain)
    digests = [Run(directory).results()["protocol"].get("match_histogram") for directory in (plain, own, other)]
    assert digests[0] is None and len(set(digests)) == 3
    assert f"grey values matched to {digests[2][:12]}" in " ".join(capsys.readouterr().out.split())


def test_grey_values_of_no_file_are_refused_before_a_directory_is_made(scored, tmp_path):
    with pytest.raises(SegbenchError, match=r"match_histogram=.*nowhere.tif: no such file"):
        scored(f"match_histogram={tmp_path}/nowhere.tif")
    assert not (tmp_path / "evaluation").exists()


def test_scales_belong_to_multiscale(tiny_config, compose, scored):
    run = tiny_config("tta=multiscale", "tta_scales=[0.5,1]")

    def merged(*overrides):
        config = compose("run=x", *overrides, config="evaluate").applied_to(run)
        return config.tta, config.tta_scales

    assert merged() == ("multiscale", [0.5, 1.0])
    assert merged("tta_scales=[2]") == ("multiscale", [2.0])
    assert merged("tta=multiscale") == ("multiscale", [0.5, 1.0])
    assert merged("tta=none") == ("none", None)
    with pytest.raises(SegbenchError, match=r"tta_scales=\[2.*\]\n  expected: null unless tta=multiscale"):
        merged("tta=d4", "tta_scales=[2]")
    with pytest.raises(SegbenchError, match=r"tta_scales=\[2.*\]\n  expected: null unless tta=multiscale"):
        scored("tta_scales=[2]")


def test_what_is_refused_beside_a_run_is_advised_of_the_command_that_was_given(tiny_config, tiny_run, compose):
    run = tiny_config()
    for command in ("evaluate", "predict"):
        needed = {"evaluate": (), "predict": ("output=x",)}[command]
        with pytest.raises(SegbenchError, match=r"tta=none of the run and tta_scales(.|\n)*do:    add tta=multiscale"):
            compose("run=x", "tta_scales=[2]", *needed, config=command).applied_to(run)
        with pytest.raises(SegbenchError, match=rf"data\.tile=0\n(.|\n)*`segbench {command} --cfg job`"):
            compose("run=x", "+data.tile=0", *needed, config=command).applied_to(run)
    with pytest.raises(SegbenchError, match=r"tta=d4 and tta_scales(.|\n)*or leave tta_scales out"):
        segbench.load(tiny_run, device="cpu", tta="d4", tta_scales=[1.0])


def test_a_used_directory_is_not_advised_to_go_on_with_an_evaluation(scored):
    scored()
    with pytest.raises(SegbenchError, match=r"holds a run already(.|\n)*hydra\.run\.dir=DIR$"):
        scored()


def test_the_evaluated_run_is_left_as_it_is(scored, tiny_run):
    before = {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*")}
    scored()
    assert {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*")} == before


def test_the_same_directory_twice_is_refused(scored):
    scored()
    with pytest.raises(SegbenchError, match="holds a run already"):
        scored()


def test_no_run_writes_nothing(scored, tmp_path):
    with pytest.raises(SegbenchError, match=r"config\.yaml is missing"):
        scored(of=tmp_path / "nowhere")
    assert not (tmp_path / "evaluation").exists()


def test_a_missing_checkpoint_is_told(scored, tiny_config, tmp_path):
    train(tiny_config("trainer.max_steps=1", "data.test=1"), tmp_path / "short", [])
    with pytest.raises(SegbenchError, match=r"no best checkpoint in .*there: last\.ckpt"):
        scored("checkpoint=best", of=tmp_path / "short")


def test_an_unknown_split_is_told(scored):
    with pytest.raises(SegbenchError, match=r"no split 'predict' in synthetic_em.*\n.*one of train, val, test"):
        scored("split=predict")


def test_a_tampered_run_cannot_name_a_target(scored, tiny_run, tmp_path):
    import shutil

    run = Path(shutil.copytree(tiny_run, tmp_path / "tampered"))
    config = Run(run).recorded()
    config["model"] = {"_target_": "os.system", "command": f"touch {tmp_path}/ran"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SegbenchError, match=r"os\.system, which a config that was handed over"):
        scored(of=run)
    assert not (tmp_path / "ran").exists()


def test_data_may_have_moved(scored, isbi_config, isbi, tmp_path):
    train(isbi_config("trainer.max_steps=1"), tmp_path / "run", [])
    moved = isbi.rename(tmp_path / "elsewhere")
    directory = scored(f"data.root={moved}", of=tmp_path / "run")
    assert same(directory, tmp_path / "run")


def test_what_was_trained_in_bf16_is_scored_in_bf16(tiny_config, compose):
    run = tiny_config("trainer.precision=bf16-mixed", "tile=8", "tta=d4", "threads=2")
    merged = compose("run=x", "tta=none", "data.num_workers=3", config="evaluate").applied_to(run)
    assert (merged.trainer.precision, merged.trainer.max_steps) == ("bf16-mixed", -1)
    assert (merged.data.num_workers, merged.tile, merged.tta, merged.threads) == (3, 8, "none", 2)
    assert merged.data.arguments == run.data.arguments
    asked = compose("run=x", "trainer.precision=32-true", config="evaluate")
    assert asked.applied_to(run).trainer.precision == "32-true"


@pytest.mark.parametrize(
    ("tile", "deterministic", "on"), [("null", "false", False), (60, "false", True), (60, "true", False)]
)
def test_cudnn_chooses_by_time_where_inference_tiles_have_one_size(compose, tiny_config, tile, deterministic, on):
    given = compose("run=x", f"tile={tile}", f"trainer.deterministic={deterministic}", config="evaluate")
    assert given.applied_to(tiny_config()).trainer.benchmark is on
