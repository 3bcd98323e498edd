import json
import shutil

import numpy as np
import pytest
import tifffile
import torch
from tests.conftest import DRAWN

import segbench
from segbench.compare.reading import read_run
from segbench.data.drawn_em.slices import draw_slice
from segbench.data.tiles import normalise
from segbench.errors import SegbenchError
from segbench.experiment import calibrate
from segbench.experiment.build import build_dataset, build_task
from segbench.experiment.evaluate import evaluate
from segbench.experiment.predict import predict
from segbench.experiment.train import train
from segbench.inference.contours import contour_map
from segbench.inference.finishing import Finishing
from segbench.runs.directory import Run
from segbench.training import task as task_module
from segbench.training.checkpoint import load_weights


@pytest.fixture(scope="module")
def calibrated_run(compose, tmp_path_factory):
    """A run that calibrates and filters its test."""
    folder = tmp_path_factory.mktemp("calibrated") / "run"
    train(compose(*DRAWN, "calibration=cubic", "median=2"), folder, [])
    return folder


@pytest.fixture
def scored(compose, tmp_path):
    def run(of, *overrides, directory="evaluation"):
        config = compose(f"run={of}", "trainer=cpu", "name=evaluate", *overrides, config="evaluate")
        evaluate(config, tmp_path / directory, [])
        return Run(tmp_path / directory)

    return run


def network_of(run):
    config = Run.open(run).config()
    dataset = build_dataset(config.data, None)
    task = build_task(config, dataset.spec).eval()
    load_weights(task.model, Run.open(run).checkpoint())
    return task, dataset


def raw_predictions(task, source, spec):
    images = [source.read(index) for index in range(len(source))]
    return [
        (task.predict({"em": normalise(raw.images["em"], spec.modalities["em"])})["semantic"], raw.labels["semantic"])
        for raw in images
    ]


def test_a_run_records_the_polynomial_of_its_training_images(calibrated_run):
    task, dataset = network_of(calibrated_run)
    recorded = Run(calibrated_run).calibration()
    assert recorded.images == 4
    pairs = raw_predictions(task, dataset.split("train"), dataset.spec)
    x = np.concatenate([prob_KHW[1].numpy().ravel() for prob_KHW, _ in pairs]).astype(np.float64)
    y = np.concatenate([label_HW.ravel() for _, label_HW in pairs])
    powers = np.vander(x, 4, increasing=True)
    expected = powers @ np.linalg.lstsq(powers, y, rcond=None)[0]
    np.testing.assert_allclose(powers @ recorded.polynomials["semantic"], expected, atol=1e-4)
    protocol = Run(calibrated_run).results()["protocol"]
    assert protocol["median"] == 2
    assert protocol["calibration"] == {"semantic": list(recorded.polynomials["semantic"])}


def test_what_is_scored_at_the_test_is_finished_and_a_validation_is_not(calibrated_run, scored):
    task, dataset = network_of(calibrated_run)
    finish = Finishing(Run(calibrated_run).calibration().polynomials, 2)
    wrong = total = 0
    for prob_KHW, label_HW in raw_predictions(task, dataset.split("test"), dataset.spec):
        pred_HW = finish({"semantic": prob_KHW})["semantic"].argmax(0).numpy()
        wrong, total = wrong + int((pred_HW != label_HW).sum()), total + label_HW.size
    metrics = Run(calibrated_run).results()["metrics"]
    assert metrics["test/pixel_acc"] == pytest.approx(1 - wrong / total)
    plain = scored(calibrated_run, "calibration=none", "median=0")
    assert not (plain.path / "calibration.json").exists()
    assert {"calibration", "median"}.isdisjoint(plain.results()["protocol"])
    assert plain.results()["metrics"] != {key: metrics[key] for key in plain.results()["metrics"]}


def test_an_evaluation_takes_what_the_run_recorded_and_fits_what_it_did_not(
    calibrated_run, tiny_run, scored, monkeypatch
):
    again = scored(calibrated_run)
    assert again.results()["metrics"] == Run(calibrated_run).results()["metrics"]
    assert again.calibration() is None
    fitted = scored(tiny_run, "calibration=cubic", directory="other")
    assert fitted.calibration().images == 4
    assert Run(tiny_run).calibration() is None
    monkeypatch.setattr(calibrate, "_fitted", lambda *_: pytest.fail("fitted again"))
    scored(calibrated_run, directory="third")


def test_other_symmetries_have_another_polynomial(calibrated_run, scored):
    averaged = scored(calibrated_run, "tta=rot4")
    assert averaged.calibration().tta == "rot4"
    assert averaged.calibration().polynomials != Run(calibrated_run).calibration().polynomials


def test_images_that_are_brought_to_the_scale_of_the_training_change_no_polynomial(calibrated_run, scored):
    recorded = scored(calibrated_run, "input_scale=0.5")
    assert recorded.calibration() is None
    given = recorded.results()["protocol"]["calibration"]
    assert tuple(given["semantic"]) == Run(calibrated_run).calibration().polynomials["semantic"]
    plain, resized = (
        scored(calibrated_run, "tta=rot4", *scale, directory=f"rot4{len(scale)}")
        for scale in ((), ("input_scale=0.5",))
    )
    assert plain.calibration() == resized.calibration()


def test_whatever_is_scored_the_runs_own_training_images_calibrate(calibrated_run, scored):
    own = scored(calibrated_run, "tta=rot4").calibration()
    for number, other in enumerate((("+data.seed=7",), ("+data.train=2", "+data.test=3"), ("split=train",))):
        assert scored(calibrated_run, "tta=rot4", *other, directory=f"other{number}").calibration() == own


def test_training_images_that_moved_are_found_and_others_are_refused(compose, drawn_isbi, tmp_path, scored):
    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(drawn_isbi, here)
    given = [each for each in DRAWN if not each.startswith(("data.train", "data.val", "data.test", "data.h", "data.w"))]
    asked = ("data=isbi_em", f"data.root={here}", "data.fold=1", "data.repeats=1", "trainer.max_steps=1")
    train(compose(*given, *asked, "calibration=cubic"), tmp_path / "run", [])
    images = Run(tmp_path / "run").calibration().images
    # Another fold would calibrate on slices that the run has not seen.
    fitted = scored(tmp_path / "run", "tta=rot4", "+data.fold=0", "split=val", directory="fold").calibration()
    here.rename(there)
    moved = scored(tmp_path / "run", "tta=rot4", f"data.root={there}", directory="moved").calibration()
    assert moved == fitted
    assert fitted.images == images
    volume = there / "train-volume.tif"
    tifffile.imwrite(volume, 255 - tifffile.imread(volume), photometric="minisblack")
    with pytest.raises(SegbenchError, match=r"training images of .*run are not found: .*pixels changed.*\n.*\n.*none"):
        scored(tmp_path / "run", "tta=rot4", f"data.root={there}", directory="changed")


def test_polynomials_are_fitted_with_the_tiles_of_the_run(calibrated_run, scored, monkeypatch):
    tiles = []

    def predict_image(*given, **how):
        tiles.append((how["finish"] is not None, how["tile"]))
        return original(*given, **how)

    original = task_module.predict_image
    monkeypatch.setattr(task_module, "predict_image", predict_image)
    scored(calibrated_run, "tta=rot4", "tile=16", "split=val")
    assert set(tiles) == {(False, None), (True, 16)}


def test_predictions_are_finished_without_the_training_images(calibrated_run, compose, tmp_path, monkeypatch):
    monkeypatch.setattr("segbench.experiment.build.build_dataset", lambda *_: pytest.fail("the data set was read"))
    image = draw_slice(0, 3, 50, 41)[0]
    tifffile.imwrite(tmp_path / "input.tif", image, photometric="minisblack", metadata=None)
    given = (f"run={calibrated_run}", f"input={tmp_path}/input.tif", "trainer=cpu")
    (path,) = predict(compose(*given, f"output={tmp_path}/out", config="predict"))
    (tiled,) = predict(compose(*given, f"output={tmp_path}/tiled", "tile=16", config="predict"))
    off = ("calibration=none", "median=0")
    (plain,) = predict(compose(*given, f"output={tmp_path}/plain", *off, config="predict"))
    second = torch.from_numpy(tifffile.imread(plain))
    finish = Finishing(Run(calibrated_run).calibration().polynomials, 2)
    expected = finish({"semantic": torch.stack([1 - second, second])})["semantic"][1].numpy()
    np.testing.assert_allclose(tifffile.imread(path), expected, atol=1e-6)
    np.testing.assert_allclose(tifffile.imread(tiled), expected, atol=1e-4)
    loaded = segbench.load(calibrated_run, device="cpu").predict(image)
    np.testing.assert_allclose(loaded.probabilities[1], expected, atol=1e-6)
    loaded = segbench.load(calibrated_run, device="cpu", calibration="none", median=0).predict(image)
    np.testing.assert_allclose(loaded.probabilities[1], second.numpy(), atol=1e-6)


def test_a_folder_of_predictions_is_of_one_way_of_finishing(calibrated_run, compose, tmp_path):
    tifffile.imwrite(tmp_path / "input.tif", draw_slice(0, 3, 50, 41)[0], photometric="minisblack", metadata=None)
    given = (f"run={calibrated_run}", f"input={tmp_path}/input.tif", f"output={tmp_path}/out", "trainer=cpu")
    predict(compose(*given, config="predict"))
    with pytest.raises(SegbenchError, match="median"):
        predict(compose(*given, "median=1", config="predict"))


def test_a_test_volume_without_labels_is_finished_too(compose, drawn_isbi, tmp_path):
    given = [each for each in DRAWN if not each.startswith(("data.train", "data.val", "data.test", "data.h", "data.w"))]
    asked = (*given, "data=isbi_em", f"data.root={drawn_isbi}", "data.protocol=all", "data.repeats=1")
    asked += ("callbacks.checkpoint.monitor=null", "trainer.max_steps=1")
    train(compose(*asked, "calibration=cubic", "median=1"), tmp_path / "run", [])
    recorded = Run(tmp_path / "run").calibration()
    assert recorded.images == 30
    predicted = tifffile.imread(tmp_path / "run" / "predictions" / "test-volume.tif")
    assert predicted.shape == (30, 64, 64)
    # Nothing was tested.
    assert {"calibration", "median"}.isdisjoint(Run(tmp_path / "run").results()["protocol"])


def test_contours_are_drawn_in_evaluations_and_predictions(calibrated_run, compose, scored, tmp_path):
    image = draw_slice(0, 3, 50, 41)[0]
    tifffile.imwrite(tmp_path / "input.tif", image, photometric="minisblack", metadata=None)
    asked = ("calibration=none", "median=0", "contours=1.5")
    given = (f"run={calibrated_run}", f"input={tmp_path}/input.tif", "trainer=cpu")
    (path,) = predict(compose(*given, *asked, f"output={tmp_path}/out", config="predict"))
    (tiled,) = predict(compose(*given, *asked, f"output={tmp_path}/tiled", "tile=16", config="predict"))
    (plain,) = predict(compose(*given, *asked[:2], f"output={tmp_path}/plain", config="predict"))
    expected = contour_map(tifffile.imread(plain), 1.5)
    np.testing.assert_allclose(tifffile.imread(path), expected, atol=1e-6)
    np.testing.assert_allclose(tifffile.imread(tiled), expected, atol=1e-4)
    loaded = segbench.load(calibrated_run, device="cpu", calibration="none", median=0, contours=1.5).predict(image)
    np.testing.assert_allclose(loaded.probabilities[1], expected, atol=1e-6)
    with pytest.raises(SegbenchError, match="contours"):
        predict(compose(*given, *asked[:2], "contours=2", f"output={tmp_path}/out", config="predict"))
    with_contours, without = scored(calibrated_run, *asked), scored(calibrated_run, *asked[:2], directory="without")
    assert with_contours.results()["protocol"]["contours"] == 1.5
    assert "contours" not in without.results()["protocol"]
    assert with_contours.results()["metrics"] != without.results()["metrics"]
    # Settings of their own in a comparison.
    settings = [read_run(run.path).settings.get("contours") for run in (with_contours, without)]
    assert settings == [1.5, None]


@pytest.mark.parametrize(
    "changes",
    [{"checkpoint": 1}, *({"polynomials": {"semantic": a}} for a in ([], [0.0, float("nan"), 0, 0], [0] * 9))],
)
def test_a_damaged_record_is_told(calibrated_run, tmp_path, changes):
    whole = json.loads((calibrated_run / "calibration.json").read_text())
    (tmp_path / "calibration.json").write_text(json.dumps(whole | changes))
    with pytest.raises(SegbenchError, match=r"calibration\.json"):
        Run(tmp_path).calibration()
