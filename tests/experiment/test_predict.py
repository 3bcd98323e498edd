import json
import os
import shutil
import signal
import sys

import lightning
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from segbench.api import load
from segbench.cli import main as cli
from segbench.config.record import Trainer
from segbench.data.drawn_em.slices import draw_slice
from segbench.data.tiles import normalise
from segbench.errors import SegbenchError
from segbench.experiment.build import build_data, build_dataset, build_dataset_spec, build_task
from segbench.experiment.evaluate import score_split
from segbench.experiment.evaluating import devices_of
from segbench.experiment.predict import predict
from segbench.experiment.train import train
from segbench.experiment.trainer import build_trainer
from segbench.prediction import files, outputs, pages
from segbench.prediction.record import Record
from segbench.runs.directory import Run
from segbench.runtime.hardware import settle
from segbench.runtime.log import log_to
from segbench.training.checkpoint import load_weights


@pytest.fixture(scope="module")
def stack():
    """Three drawn pages of 50 x 41."""
    return np.stack([draw_slice(0, index, 50, 41)[0] for index in range(3)])


@pytest.fixture
def predicted(compose, tiny_run, tmp_path, stack):
    """`predicted(*overrides)`: the probabilities that `segbench predict` writes of `stack`."""

    def run(*overrides, pages=stack, output="out"):
        tifffile.imwrite(tmp_path / "input.tif", pages, photometric="minisblack", metadata=None)
        given = (f"run={tiny_run}", f"input={tmp_path}/input.tif", f"output={tmp_path}/{output}", "trainer=cpu")
        (path,) = predict(compose(*given, *overrides, config="predict"))
        assert path == tmp_path / output / "input.tif"
        return path

    return run


def test_each_page_gets_its_probability_of_cell(predicted, tiny_run, compose, stack):
    path = predicted()
    with tifffile.TiffFile(path) as tiff:
        assert [(page.shape, page.dtype) for page in tiff.pages] == [((50, 41), np.float32)] * 3
    config = Run.open(tiny_run).config()
    described = build_dataset_spec(Run.open(tiny_run))
    task = build_task(config, described).eval()
    load_weights(task.model, Run.open(tiny_run).checkpoint("best"))
    expected = [task.predict({"em": normalise(page, described.modalities["em"])})["semantic"][1] for page in stack]
    np.testing.assert_array_equal(tifffile.imread(path), torch.stack(expected).numpy())


class Capture(lightning.Callback):
    """Keeps the probabilities that a trainer's test scores."""

    def __init__(self):
        self.prob_KHW = []

    def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.prob_KHW += [result["semantic"].prob_KHW for result in outputs["results"]]


@pytest.mark.filterwarnings("ignore:.*fp16 is not supported on CPU", "ignore:.*for historical reasons")
@pytest.mark.parametrize(
    "precision", ["32-true", "64-true", "bf16-true", "16-true", "bf16-mixed", "16-mixed", "16", "bf16", "32", "64"]
)
def test_a_prediction_is_what_an_evaluation_scores_in_every_precision(compose, tiny_run, tmp_path, precision):
    run = Run.open(tiny_run)
    given = compose(f"run={tiny_run}", "trainer=cpu", f"trainer.precision='{precision}'", config="evaluate")
    config = given.applied_to(run.config())
    config, _ = settle(config)
    dataset = build_dataset(config.data, config.weights)
    task, capture = build_task(config, dataset.spec), Capture()
    data = build_data(config, dataset, task.model.geometry)
    trainer = build_trainer(config, tmp_path, [capture], [])
    with log_to(None):
        score_split(Run(tmp_path), trainer, task, data, "test", run.checkpoint(), True)
    given = (f"run={tiny_run}", "split=test", f"output={tmp_path}/out", "format=probabilities", "trainer=cpu")
    paths = predict(compose(*given, f"trainer.precision='{precision}'", config="predict"))
    predicted_NHW = np.stack([tifffile.imread(path) for path in paths])
    np.testing.assert_array_equal(predicted_NHW, np.stack([prob_KHW[1] for prob_KHW in capture.prob_KHW]))


def test_precisions_differ_as_their_roundings_do(predicted):
    single = tifffile.imread(predicted("trainer.precision=32-true"))
    half = tifffile.imread(predicted("trainer.precision=bf16-true", output="half"))
    # bfloat16 has eight bits: 2^-9 of each operation's result is lost, through a dozen layers.
    assert 1e-5 < np.abs(half - single).max() < 0.1


@pytest.mark.parametrize("precision", ["transformer-engine", "fp8"])
def test_a_precision_that_there_is_not_is_refused(predicted, precision):
    with pytest.raises(
        SegbenchError, match=rf"trainer\.precision={precision}\n.*one of 32-true, .*\n.*correct trainer"
    ):
        predicted(f"trainer.precision={precision}")


def test_nothing_but_the_result_and_its_record_is_left(predicted):
    assert sorted(path.name for path in predicted().parent.iterdir()) == ["input.tif", "predictions.jsonl"]


@pytest.mark.parametrize("tile", [8, 20])
def test_no_tile_size_changes_the_result(predicted, tile):
    whole, tiled = predicted(), predicted(f"tile={tile}", output="tiled")
    np.testing.assert_allclose(tifffile.imread(tiled), tifffile.imread(whole), atol=1e-5)


def test_the_last_checkpoint_may_be_asked_for(predicted):
    best, last = predicted(), predicted("checkpoint=last", output="last")
    assert not np.array_equal(tifffile.imread(best), tifffile.imread(last))


def test_a_single_page_is_predicted(predicted, stack):
    np.testing.assert_array_equal(
        tifffile.imread(predicted(pages=stack[1])), tifffile.imread(predicted(output="all"))[1]
    )


def test_an_average_over_symmetries_turns_with_the_image(predicted, stack):
    # Sides of whole poolings: else the grid of the pooling lies elsewhere in the turned image.
    stack = stack[:, :48, :40]
    upright = tifffile.imread(predicted("tta=d4", pages=stack))
    turned = tifffile.imread(
        predicted("tta=d4", pages=np.ascontiguousarray(np.rot90(stack, axes=(1, 2))), output="turned")
    )
    np.testing.assert_allclose(np.rot90(turned, -1, axes=(1, 2)), upright, atol=1e-5)


def test_an_average_over_scales_is_told_recorded_and_that_of_python(predicted, stack, tiny_run, capfd):
    given = ("tta=multiscale", "tta_scales=[0.5,1.5]")
    averaged = tifffile.imread(predicted(*given))
    assert "tta=multiscale; over 0.5, 1.5 of each image, taken whole, and mirrored" in capfd.readouterr().err
    assert averaged.shape == stack.shape and not np.array_equal(averaged, tifffile.imread(predicted(output="plain")))
    np.testing.assert_array_equal(tifffile.imread(predicted(*given, "batch_size=4", output="batched")), averaged)
    with pytest.raises(SegbenchError, match=r"made otherwise: tta_scales \[0.5, 1.5\], now \[0.5, 0.75"):
        predicted("tta=multiscale")
    loaded = load(tiny_run, device="cpu", tta="multiscale", tta_scales=[0.5, 1.5])
    np.testing.assert_allclose(loaded.predict(stack[0]).probabilities[1], averaged[0], atol=1e-6)


def test_an_input_scale_is_told_recorded_and_that_of_python(predicted, stack, tiny_run, capfd):
    resized = tifffile.imread(predicted("input_scale=1.5"))
    assert "; images resized by 1.5, each taken whole, and probabilities back\n" in capfd.readouterr().err
    assert resized.shape == stack.shape
    plain = tifffile.imread(predicted("input_scale=1", output="plain"))
    assert not np.array_equal(resized, plain)
    np.testing.assert_array_equal(plain, tifffile.imread(predicted(output="unset")))
    with pytest.raises(SegbenchError, match=r"made otherwise: input_scale 1\.5, now 2"):
        predicted("input_scale=2")
    with pytest.raises(SegbenchError, match=r"input_scale=0\.01\n"):
        predicted("input_scale=0.01")
    loaded = load(tiny_run, device="cpu", input_scale=1.5)
    np.testing.assert_allclose(loaded.predict(stack[0]).probabilities[1], resized[0], atol=1e-6)


def test_images_of_other_grey_values_are_predicted_as_those_that_they_are_matched_to(
    predicted, stack, tiny_run, tmp_path, capfd
):
    own = tifffile.imread(predicted(pages=stack[0]))
    tifffile.imwrite(tmp_path / "trained.tif", stack[0])
    asked = f"match_histogram={tmp_path}/trained.tif"
    changed = 255 - (255 - stack[0].astype(np.float32)) / 2
    capfd.readouterr()
    found = tifffile.imread(predicted(asked, pages=changed, output="matched"))
    assert f"grey values of each page matched to those of 1 images in {tmp_path}" in capfd.readouterr().err
    np.testing.assert_allclose(found, own, atol=1e-4)
    assert np.abs(tifffile.imread(predicted(pages=changed, output="unmatched")) - own).max() > 1e-3
    made_by = json.loads((tmp_path / "matched" / "predictions.jsonl").read_text().splitlines()[0])["made_by"]
    assert len(made_by["match_histogram"]) == 64
    tifffile.imwrite(tmp_path / "trained.tif", stack[1])
    with pytest.raises(SegbenchError, match=f"made otherwise: match_histogram {made_by['match_histogram'][:12]}, now"):
        predicted(asked, pages=changed, output="matched")
    tifffile.imwrite(tmp_path / "trained.tif", stack[0])
    loaded = load(tiny_run, device="cpu", match_histogram=tmp_path / "trained.tif")
    for image in (changed, tmp_path / "input.tif"):
        np.testing.assert_allclose(loaded.predict(image).probabilities[1], found, atol=1e-6)


def test_prediction_needs_no_data_set(isbi_config, isbi, compose, tmp_path):
    train(isbi_config("trainer.max_steps=1", f"data.root={isbi}"), tmp_path / "run", [])
    volume = (isbi / "test-volume.tif").rename(tmp_path / "volume.tif")
    shutil.rmtree(isbi)
    given = (f"run={tmp_path}/run", f"input={volume}", f"output={tmp_path}/out", "trainer=cpu")
    (path,) = predict(compose(*given, config="predict"))
    assert tifffile.imread(path).shape == (30, 64, 64)


def test_the_input_is_never_written_over(predicted, tmp_path, stack):
    with pytest.raises(SegbenchError, match=r"would overwrite the input .*input\.tif\n.*another folder\n.*output="):
        predicted(output=".")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "input.tif"), stack)


def test_a_missing_file_is_told(compose, tiny_run, tmp_path):
    given = (f"run={tiny_run}", f"input={tmp_path}/none.tif", f"output={tmp_path}/out", "trainer=cpu")
    with pytest.raises(SegbenchError, match=r"no file .*none\.tif\n.*\.tif .*\n.*set input= to where it is"):
        predict(compose(*given, config="predict"))
    assert not (tmp_path / "out").exists()


def test_a_corrupt_file_is_told(compose, tiny_run, tmp_path, stack):
    tifffile.imwrite(tmp_path / "input.tif", stack, photometric="minisblack", metadata=None)
    whole = (tmp_path / "input.tif").read_bytes()
    (tmp_path / "input.tif").write_bytes(whole[: len(whole) // 2])
    given = (f"run={tiny_run}", f"input={tmp_path}/input.tif", f"output={tmp_path}/out", "trainer=cpu")
    with pytest.raises(SegbenchError, match=r"input\.tif .*cannot be read as TIFF.*\n.*whole TIFF file\n.*fetch"):
        predict(compose(*given, config="predict"))


def test_an_output_that_is_a_file_is_told(predicted, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(SegbenchError, match=r"out cannot be written: .*\n.*a directory.*\n.*output=DIR"):
        predicted()


@pytest.fixture
def folder(tmp_path, stack):
    """A folder of three PNGs, the pages of `stack`."""
    (tmp_path / "in").mkdir()
    for number, page in enumerate(stack):
        Image.fromarray(page).save(tmp_path / "in" / f"cell{number}.png")
    return tmp_path / "in"


@pytest.fixture
def run_folder(compose, tiny_run, folder, tmp_path):
    """`run_folder(*overrides)`: predict `folder`; the files, and those that were written now."""

    def run(*overrides):
        given = (f"run={tiny_run}", f"input={folder}", f"output={tmp_path}/out", "trainer=cpu", *overrides)
        written = []
        files = predict(compose(*given, config="predict"), written=written.append)
        return files, written

    return run


def indices(path):
    with Image.open(path) as image:
        assert image.mode == "P"
        return np.asarray(image)


def test_a_folder_of_pictures_gets_masks(run_folder, predicted, tmp_path):
    files, written = run_folder()
    assert files == written == [tmp_path / "out" / f"cell{number}.png" for number in range(3)]
    prob_NHW = tifffile.imread(predicted(output="prob"))
    for path, prob_HW in zip(files, prob_NHW, strict=True):
        np.testing.assert_array_equal(indices(path), prob_HW > 0.5)


def test_a_half_done_folder_goes_on(run_folder, folder, tmp_path, capfd):
    files, _ = run_folder()
    before = {path: path.stat().st_mtime_ns for path in files}
    files[1].unlink()
    again, written = run_folder()
    assert (again, written) == (files, [files[1]])
    assert {path: path.stat().st_mtime_ns for path in (files[0], files[2])} == {
        path: before[path] for path in (files[0], files[2])
    }
    assert "2 of 3 inputs are already predicted" in capfd.readouterr().err
    assert run_folder() == (files, [])
    # An image that was changed is predicted again.
    Image.fromarray(np.zeros((50, 41), np.uint8)).save(folder / "cell2.png")
    assert run_folder() == (files, [files[2]])


@pytest.mark.parametrize("overrides", [("tta=rot4",), ("checkpoint=last",), ("format=overlays",)])
def test_predictions_made_otherwise_are_not_mixed(run_folder, overrides):
    run_folder()
    with pytest.raises(SegbenchError, match=r"out holds predictions made otherwise: .*, now .*\n.*\n.*overwrite=true"):
        run_folder(*overrides)
    files, written = run_folder(*overrides, "overwrite=true")
    assert files == written


def test_blended_tiles_are_told_and_recorded(compose, tiny_config, tmp_path, stack, capfd):
    train(
        tiny_config("model.padding=same", "trainer.max_steps=1", "trainer.limit_test_batches=1"), tmp_path / "run", []
    )
    tifffile.imwrite(tmp_path / "input.tif", stack[0], photometric="minisblack", metadata=None)
    given = (f"run={tmp_path}/run", f"input={tmp_path}/input.tif", f"output={tmp_path}/out", "trainer=cpu", "tile=32")
    (path,) = predict(compose(*given, "overlap=0.25", config="predict"))
    assert "overlap=0.25: probabilities are approximate" in capfd.readouterr().err
    with pytest.raises(SegbenchError, match=r"holds predictions made otherwise: overlap 0.25, now null"):
        predict(compose(*given, config="predict"))
    blended = tifffile.imread(path)
    predict(compose(*given, "overwrite=true", config="predict"))
    assert 0 < np.abs(blended - tifffile.imread(path)).max() < 0.5


@pytest.mark.parametrize("override", ["tile=16", "batch_size=3", "threads=1"])
def test_what_does_not_change_a_prediction_may_change_between_two_calls(run_folder, override):
    files, _ = run_folder()
    masks = [indices(path) for path in files]
    files[0].unlink()
    assert run_folder(override)[1] == [files[0]]
    np.testing.assert_array_equal(indices(files[0]), masks[0])


def test_an_unreadable_image_is_named_and_the_others_are_predicted(run_folder, folder, tmp_path):
    (folder / "cell1.png").write_bytes((folder / "cell1.png").read_bytes()[:100])
    told = r"1 of 3 inputs could not be predicted:\n  .*cell1\.png cannot be decoded.*\n.*\n.*again: finished"
    with pytest.raises(SegbenchError, match=told):
        run_folder()
    assert sorted(path.stem for path in (tmp_path / "out").glob("*.png")) == ["cell0", "cell2"]


def test_a_picture_of_other_channels_is_named(run_folder, folder):
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(folder / "photo.png")
    with pytest.raises(SegbenchError, match=r"photo\.png has 3 channels\n.*1 \(em, grey level, 0 to 255\)"):
        run_folder()


def test_files_of_others_are_not_written_over(run_folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cell0.png").write_text("a label")
    with pytest.raises(SegbenchError, match=r"cell0\.png exists already and is not in .*predictions\.jsonl"):
        run_folder()
    assert (tmp_path / "out" / "cell0.png").read_text() == "a label"


def test_all_kinds_at_once(run_folder, tmp_path):
    files, _ = run_folder("format=[masks,probabilities,overlays,instances]", "decoding.min_size=5")
    assert [str(path.relative_to(tmp_path / "out")) for path in files[:4]] == [
        "masks/cell0.png",
        "probabilities/cell0.tif",
        "overlays/cell0.png",
        "instances/cell0.tif",
    ]
    assert len(files) == 12
    prob_HW, objects_HW = tifffile.imread(files[1]), tifffile.imread(files[3])
    np.testing.assert_array_equal(indices(files[0]), prob_HW > 0.5)
    counts = np.bincount(objects_HW.ravel())[1:]
    assert (counts >= 5).all()
    assert not (objects_HW > 0)[prob_HW <= 0.5].any()


def test_the_images_of_a_split_are_predicted_by_their_ids(compose, tiny_run, tmp_path):
    given = (f"run={tiny_run}", "split=test", f"output={tmp_path}/out", "trainer=cpu")
    files = predict(compose(*given, config="predict"))
    described = build_dataset_spec(Run.open(tiny_run))
    config = Run.open(tiny_run).config()
    source = build_dataset(config.data, config.weights).split("test")
    assert [path.stem for path in files] == list(source.ids)
    task = build_task(config, described).eval()
    load_weights(task.model, Run.open(tiny_run).checkpoint("best"))
    pixels = normalise(source.read(1).images["em"], described.modalities["em"])
    np.testing.assert_array_equal(indices(files[1]), task.predict({"em": pixels})["semantic"].argmax(0).numpy())


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ((), r"neither input= nor split=\n.*\n.*add input="),
        (("input=a", "split=test"), r"both input= and split=\n.*\n.*leave one out"),
        (("split=holiday",), r"no split 'holiday' in synthetic_em\n.*train, val or test\n"),
        (("split=test", "ids=a.txt"), r"ids=a\.txt with split=test\n"),
        (("split=test", "format=mask"), r"format=mask\n.*some of masks"),
        (("split=test", "format=voc"), r"format=voc for a run on synthetic_em with 2 classes\n"),
        (
            ("split=test", "format=ctc"),
            r"format=ctc and (\d+) of \1 inputs that are no frames: test-0000.*\n.*\n.*input=",
        ),
        (("split=test", "overlap=0.25"), r"overlap=0.25 for a network without padding\n.*exact already"),
        (("split=test", "overlap=0.6"), r"overlap=0.6\n.*less than or equal to 0.5"),
        (("split=test", "batch_size=0"), r"batch_size=0\n.*greater than or equal to 1"),
    ],
)
def test_a_command_that_cannot_be_meant_is_refused(compose, tiny_run, tmp_path, overrides, told):
    given = (f"run={tiny_run}", f"output={tmp_path}/out", "trainer=cpu", *overrides)
    with pytest.raises(SegbenchError, match=told):
        predict(compose(*given, config="predict"))


@pytest.mark.parametrize("store", ["tiff", "zarr"])
def test_an_image_in_zarr_is_predicted_as_one_in_tiff(predicted, compose, tiny_run, tmp_path, stack, store):
    zarr = pytest.importorskip("zarr", reason="zarr, of the extra of that name, is not installed")
    zarr.create_array(str(tmp_path / "input.zarr"), data=stack, chunks=(1, 16, 16))
    given = (f"run={tiny_run}", f"input={tmp_path}/input.zarr", f"output={tmp_path}/out2", "trainer=cpu", "tile=16")
    (path,) = predict(compose(*given, *(["store=tiff"] if store == "tiff" else []), config="predict"))
    assert path.name == f"input.{'tif' if store == 'tiff' else 'zarr'}"
    found = tifffile.imread(path) if store == "tiff" else zarr.open(str(path), mode="r")[:]
    np.testing.assert_array_equal(found, tifffile.imread(predicted("tile=16")))


def test_a_large_image_goes_window_by_window_to_the_same_result(predicted, monkeypatch, stack):
    whole = tifffile.imread(predicted("tile=16"))
    monkeypatch.setattr(pages, "WHOLE_BYTES", 100)
    monkeypatch.setattr(files, "CANVAS_BYTES", 100)
    monkeypatch.setattr(outputs, "CANVAS_BYTES", 100)
    monkeypatch.setattr(files, "TILED_PIXELS", 100)
    path = predicted("tile=16", output="large")
    with tifffile.TiffFile(path) as tiff:
        assert [page.is_tiled for page in tiff.pages] == [True] * 3
    np.testing.assert_array_equal(tifffile.imread(path), whole)


def test_faults_of_several_kinds_get_advice_that_fits_them_all(run_folder, folder):
    (folder / "cell1.png").write_bytes((folder / "cell1.png").read_bytes()[:100])
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(folder / "photo.png")
    with pytest.raises(SegbenchError, match=r"2 of 4 inputs(.|\n)*whole images, of the kind(.|\n)*fix or remove"):
        run_folder()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_prediction_that_goes_on_later(tiny_run, folder, tmp_path, monkeypatch, capsys, signum, code):
    output = tmp_path / "stopped"
    command = ["segbench", "predict", f"run={tiny_run}", f"input={folder}", f"output={output}", "format=masks"]

    def stop_behind_the_first(done):
        def added(record, *arguments):
            done(record, *arguments)
            os.kill(os.getpid(), signum)

        return added

    with monkeypatch.context() as patched:
        patched.setattr(sys, "argv", command)
        patched.setattr(Record, "add", stop_behind_the_first(Record.add))
        with pytest.raises(SystemExit) as left:
            cli.main()
    assert left.value.code == code
    assert "stopped; the same command continues from here" in capsys.readouterr().err
    assert not list(output.glob(".*"))
    monkeypatch.setattr(sys, "argv", command)
    cli.main()
    assert len(list(output.glob("*.png"))) == len(list(folder.iterdir()))


def test_several_processes_on_a_cpu_are_refused(predicted):
    with pytest.raises(SegbenchError, match=r"trainer\.devices=2 for a prediction on a CPU\n.*\n.*threads="):
        predicted("trainer.devices=2")


@pytest.mark.parametrize(
    ("devices", "expected"), [(1, ["cuda:0"]), ([3], ["cuda:3"]), (3, ["cuda:0", "cuda:1", "cuda:2"])]
)
def test_devices_are_those_of_the_trainer(devices, expected):
    named = devices_of(Trainer(_target_="lightning.Trainer", accelerator="gpu", devices=devices))
    assert [str(device) for device in named] == expected


def test_tiles_on_two_devices_give_the_file_of_one(predicted, monkeypatch):
    alone = tifffile.imread(predicted("tile=16"))
    monkeypatch.setattr("segbench.experiment.predict.devices_of", lambda trainer: (torch.device("cpu"),) * 2)
    np.testing.assert_array_equal(tifffile.imread(predicted("tile=16", output="two")), alone)
