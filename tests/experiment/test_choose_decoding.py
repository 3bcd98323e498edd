"""A run with cores, scored with other decodings: each as if it had been trained with it, and the best one by hand."""

import json

import cv2
import numpy as np
import pytest
import tifffile

from segbench.compare.reading import read_run
from segbench.errors import SegbenchError
from segbench.experiment.evaluate import evaluate
from segbench.experiment.predict import predict
from segbench.experiment.train import train
from segbench.metrics import seg
from segbench.report.page import report


@pytest.fixture(scope="module")
def objects_run(tmp_path_factory, compose):
    """A U-Net of a few steps on touching rectangles, with a class of cores."""
    folder = tmp_path_factory.mktemp("objects")
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for seed in range(8):
        ids = np.zeros((40, 48), np.uint16)
        for k in range(3):
            ids[6 + seed % 3 : 26 + 2 * k, 4 + 13 * k : 17 + 13 * k] = k + 1
        noise = np.random.default_rng(seed).integers(0, 40, ids.shape)
        cv2.imwrite(str(folder / "images" / f"{seed}.png"), np.uint8(90 * (ids > 0) + 30 * ids + noise))
        tifffile.imwrite(folder / "masks" / f"{seed}.tif", ids)
    config = compose(
        *("name=objects", "data=image_objects", f"data.images={folder / 'images'}", f"data.masks={folder / 'masks'}"),
        *("data.core=0.5", "decoding=cores", "data.tile=40", "data.batch_size=2", "data.repeats=8", "model=unet_same"),
        *("model.width=4", "model.depth=2", "optimizer.lr=2e-2", "trainer=cpu", "trainer.precision=32-true"),
        *("trainer.max_steps=16", "trainer.val_check_interval=16", "callbacks.checkpoint.monitor=val/seg", "threads=1"),
        *("task.channels_last=false", "data.val=0.25", "data.test=0.25"),
    )
    train(config, folder / "run", [])
    return folder / "run"


@pytest.fixture
def scored(compose, objects_run, tmp_path):
    """`scored(*overrides)`: results.json of an evaluation of the run, and its directory."""

    def run(*overrides, directory="evaluation"):
        given = f"run={objects_run}", "trainer=cpu", "name=evaluate", *overrides
        evaluate(compose(*given, config="evaluate"), tmp_path / directory, list(overrides))
        return json.loads((tmp_path / directory / "results.json").read_text()), tmp_path / directory

    return run


def test_every_combination_is_scored_at_once_and_the_best_is_named(scored, capsys):
    tried, _ = scored("split=val", "decoding.method=[components,cores]", "decoding.threshold=[null,0.7]")
    assert {key for key in tried["metrics"] if key.startswith("val/seg/")} == {
        f"val/seg/method {method} threshold {threshold}"
        for method in ("components", "cores")
        for threshold in ("none", "0.7")
    }
    assert tried["metrics"]["val/seg/method cores threshold none"] == tried["metrics"]["val/seg"]
    best = tried["protocol"]["chosen_decoding"]
    assert best["value"] == max(value for key, value in tried["metrics"].items() if key.startswith("val/seg/"))
    assert tried["metrics"][best["score"]] == best["value"]
    assert f"best seg: {best['value']:.4f} with" in capsys.readouterr().err
    # Alone it has the same score, under the run's usual name.
    for method in ("components", "cores"):
        alone, _ = scored("split=val", f"decoding.method={method}", "decoding.threshold=0.7", directory=method)
        assert alone["metrics"]["val/seg"] == tried["metrics"][f"val/seg/method {method} threshold 0.7"]
        assert "chosen_decoding" not in alone["protocol"]


def test_another_decoding_of_an_evaluation_is_one_of_its_settings(scored, capsys):
    results, directory = scored("decoding.min_core=3", "decoding.method=cores")
    assert results["protocol"]["decoding"] == {"min_core": 3}
    assert "decoding with min_core 3" in capsys.readouterr().out
    assert "min_core 3" in report([str(directory)])
    record = read_run(directory)
    assert (record.settings["decoding.min_core"], record.settings["decoding.core_class"]) == (3, -1)


def test_predicted_objects_are_those_that_are_scored(scored, compose, objects_run, tmp_path):
    given = f"run={objects_run}", "split=test", "trainer=cpu", f"output={tmp_path / 'out'}", "decoding.min_core=3"
    predict(compose(*given, "format=[instances,probabilities]", config="predict"))
    names = sorted(path.name for path in (tmp_path / "out" / "instances").iterdir())
    found = np.stack([tifffile.imread(tmp_path / "out" / "instances" / name) for name in names])
    truth = np.stack([tifffile.imread(objects_run.parent / "masks" / name) for name in names])
    results, _ = scored("decoding.min_core=3")
    assert results["metrics"]["test/seg"] == pytest.approx(
        seg(truth.astype(np.int32), found.astype(np.int32)), abs=1e-9
    )


def test_a_test_tries_nothing(scored):
    for split in ("test", "train"):
        with pytest.raises(SegbenchError, match=rf"min_core=\[1, 2\] with split={split}\n.*the images that choose"):
            scored("decoding.min_core=[1,2]", f"split={split}")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("decoding.depth=3", "decoding.depth=3 with decoding.method=cores"),
        ("decoding.depth=[3,5]", "with decoding.method=cores"),
        ("decoding.min_core=[]", r"decoding.min_core=\[\]"),
        ("decoding.min_core=[2,2]", r"decoding.min_core=\[2, 2\]"),
        ("decoding.min_core=[2,two]", 'decoding.min_core="two"'),
        ("decoding.min_core=two", 'decoding.min_core="two"'),
        ("decoding.method=core", 'decoding.method="core"'),
        ("decoding.core_class=7", "decoding.core_class=7 for 4 classes"),
        ("decoding.cell_class=7", "decoding.cell_class=7 for 4 classes"),
    ],
)
def test_what_a_decoding_does_not_use_or_take_is_refused_before_an_image_is(scored, given, found, caplog):
    with pytest.raises(SegbenchError, match=found):
        scored(given, "split=val")
    assert "scoring" not in caplog.text


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (("format=instances", "decoding.depth=3"), "decoding.depth=3 with decoding.method=cores"),
        (("format=instances", "decoding.min_core=two"), 'decoding.min_core="two"'),
        (("format=probabilities", "decoding.min_core=3"), "decoding.min_core=3 with format=probabilities"),
        (("format=masks", "opacity=0.7"), "opacity=0.7 with format=masks"),
        (("format=[masks,overlays]", "voc.year=2011"), "voc.year=2011 with format=masks,overlays"),
        (("format=overlays", "store=zarr"), "store=zarr with format=overlays"),
        (("format=overlays", "values=own"), "values=own with format=overlays"),
    ],
)
def test_what_a_prediction_does_not_use_is_refused(compose, objects_run, tmp_path, given, found):
    given = f"run={objects_run}", "split=test", "trainer=cpu", f"output={tmp_path / 'out'}", *given
    with pytest.raises(SegbenchError, match=found):
        predict(compose(*given, config="predict"))
    assert not list((tmp_path / "out").rglob("*.png"))


def test_a_prediction_without_a_border_grows_nothing(compose, tiny_run, tmp_path):
    given = f"run={tiny_run}", "split=test", "trainer=cpu", f"output={tmp_path / 'out'}", "format=instances"
    with pytest.raises(SegbenchError, match=r"decoding\.grow=3 with the classes membrane, cell\n"):
        predict(compose(*given, "decoding.grow=3", config="predict"))


def test_lists_are_for_evaluations(compose, objects_run, tmp_path):
    given = f"run={objects_run}", "split=test", f"output={tmp_path / 'out'}", "decoding.min_core=[2,3]"
    with pytest.raises(SegbenchError, match=r"decoding\.min_core"):
        predict(compose(*given, "format=instances", config="predict"))


def test_a_run_without_objects_has_no_other_decoding(compose, tiny_run, tmp_path):
    config = compose(f"run={tiny_run}", "trainer=cpu", "name=evaluate", "decoding.depth=2", config="evaluate")
    with pytest.raises(SegbenchError, match=r"decoding.depth=2, and no metric of the run that uses its decoding"):
        evaluate(config, tmp_path / "evaluation", [])


def test_a_decoding_that_is_none(scored):
    with pytest.raises(SegbenchError, match=r"decoding.threshold=1.5"):
        scored("split=val", "decoding.threshold=[0.5,1.5]")


def test_a_decoding_that_does_not_fit_the_classes_is_refused_on_every_path(scored, compose, tiny_run, tmp_path):
    with pytest.raises(SegbenchError, match=r"data.core=0.5 with decoding.core_class=null"):
        scored("split=val", "decoding.method=[watershed]", "decoding.core_class=[null]")
    cores = "decoding.method=cores", "decoding.core_class=-1"
    given = f"run={tiny_run}", "split=test", f"output={tmp_path / 'out'}", "format=instances", *cores
    with pytest.raises(SegbenchError, match=r"decoding.core_class=-1 .* classes membrane, cell"):
        predict(compose(*given, config="predict"))
    assert not list((tmp_path / "out").rglob("*.tif"))
