"""From two folders to a trained model and predictions, as the README says it."""

import json
import shutil

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from segbench.errors import SegbenchError
from segbench.experiment.evaluate import evaluate
from segbench.experiment.predict import predict
from segbench.experiment.train import train
from segbench.runs.directory import Run

PALETTE = ((0, 0, 0), (200, 30, 30), (30, 200, 30))
SMALL = (
    "experiment=image_folder",
    "name=own",
    "model.width=4",
    "model.depth=2",
    "data.tile=32",
    "data.batch_size=2",
    "trainer=cpu",
    "trainer.max_steps=3",
    "trainer.val_check_interval=2",
    "trainer.precision=32-true",
    "threads=1",
)


def drawn(seed, height, width):
    """Ids in blocks, and an image whose values follow them."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 3, (3, 4), dtype=np.uint8).repeat(-(-height // 3), 0).repeat(-(-width // 4), 1)
    return ids[:height, :width], rng


def photos(folder):
    """RGB of different sizes, smaller and larger than a tile; masks with a palette."""
    for seed in range(6):
        ids, rng = drawn(seed, 24 + 6 * seed, 40)
        image = np.array(PALETTE)[ids] + rng.integers(0, 50, (*ids.shape, 3))
        cv2.imwrite(str(folder / "images" / f"{seed}.png"), image.astype(np.uint8)[..., ::-1])
        mask = Image.fromarray(ids)
        mask.putpalette([value for colour in PALETTE for value in colour])
        mask.save(folder / "masks" / f"{seed}.png")


def stack(folder):
    """One stack of sixteen bits; masks of two values."""
    ids, images = zip(
        *((ids, ids * 9000.0 + rng.integers(0, 4000, ids.shape)) for ids, rng in map(page, range(8))), strict=True
    )
    tifffile.imwrite(folder / "images" / "a.tif", np.array(images, np.uint16), photometric="minisblack")
    tifffile.imwrite(folder / "masks" / "a.tif", (np.array(ids) > 0).astype(np.uint8) * 255, photometric="minisblack")


def page(seed):
    return drawn(seed, 40, 48)


@pytest.fixture
def trained(compose, tmp_path, monkeypatch):
    """`trained(write, *overrides)`: folder and run directory of three steps on what `write` puts into a folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(write, *overrides):
        folder = tmp_path / "data"
        for name in ("images", "masks"):
            (folder / name).mkdir(parents=True)
        write(folder)
        paths = f"data.images={folder / 'images'}", f"data.masks={folder / 'masks'}"
        train(compose(*SMALL, *paths, *overrides), tmp_path / "run", [])
        return folder, tmp_path / "run"

    return run


def test_photographs_with_palette_masks(trained, compose, tmp_path):
    folder, run = trained(photos, "data.classes=[sky, house, tree]")
    scores = json.loads((run / "results.json").read_text())["metrics"]
    assert {"test/mean_iu", "test/iu/sky", "test/iu/tree"} <= set(scores)
    assert len(list((run / "panels").glob("*.png"))) == 1
    assert json.loads((run / "dataset.json").read_text())["modalities"]["image"]["unit"] == "value, 0 to 255"
    given = f"run={run}", f"input={folder / 'images'}", f"output={tmp_path / 'out'}", "trainer=cpu"
    predict(compose(*given, config="predict"))
    for seed in range(6):
        with Image.open(tmp_path / "out" / f"{seed}.png") as mask:
            assert mask.mode == "P" and mask.size == (40, 24 + 6 * seed)
            assert tuple(mask.getpalette()[:9]) == tuple(value for colour in PALETTE for value in colour)
            assert set(np.unique(np.asarray(mask))) <= {0, 1, 2}


def test_a_stack_of_sixteen_bits(trained, compose, tmp_path):
    folder, run = trained(stack)
    described = json.loads((run / "dataset.json").read_text())
    assert described["modalities"]["image"]["unit"] == "value, 0 to 65535"
    assert "by contiguous blocks of pages" in described["protocol"]
    assert json.loads((run / "splits.json").read_text())["test"] == ["a-0007"]
    given = f"run={run}", f"input={folder / 'images' / 'a.tif'}", f"output={tmp_path / 'out'}", "trainer=cpu"
    predict(compose(*given, "format=masks", config="predict"))
    assert tifffile.imread(next((tmp_path / "out").glob("*.tif"))).shape == (8, 40, 48)


def cells(folder):
    """Objects numbered in sixteen bits, a varying number in each image."""
    for seed in range(6):
        ids = np.zeros((40, 48), np.uint16)
        for k in range(2 + seed % 3):
            ids[4 : 20 + seed, 3 + 12 * k : 13 + 12 * k] = 1000 * (k + 1)
        image = (ids > 0) * 150 + np.random.default_rng(seed).integers(0, 50, ids.shape)
        cv2.imwrite(str(folder / "images" / f"{seed}.png"), image.astype(np.uint8))
        tifffile.imwrite(folder / "masks" / f"{seed}_masks.tif", ids)


def test_masks_of_objects(trained, compose, tmp_path):
    folder, run = trained(cells, "experiment=image_objects")
    scores = json.loads((run / "results.json").read_text())["metrics"]
    assert {"test/instance_ap", "test/instance_f1_50", "test/seg", "test/iu/border"} <= set(scores)
    given = f"run={run}", f"input={folder / 'images'}", f"output={tmp_path / 'out'}", "trainer=cpu"
    predict(compose(*given, config="predict"))
    assert np.issubdtype(tifffile.imread(next((tmp_path / "out").glob("0*.tif"))).dtype, np.unsignedinteger)


def test_another_recipe_takes_the_folder_too(trained):
    """`data=image_folder` brings scores for any number of classes along."""
    _, run = trained(photos, "experiment=quickstart", "data=image_folder", "optimizer=sgd", "optimizer.lr=1e-4")
    assert "test/mean_iu" in json.loads((run / "results.json").read_text())["metrics"]


def test_a_folder_that_has_grown_is_told_and_scored_by_the_images_of_the_time(trained, compose, tmp_path):
    folder, run = trained(photos)
    before = json.loads((run / "results.json").read_text())["metrics"]

    def scored(name, *overrides):
        given = f"run={run}", "trainer=cpu", "name=evaluate", *overrides
        evaluate(compose(*given, config="evaluate"), tmp_path / name, [])
        scores = json.loads((tmp_path / name / "results.json").read_text())["metrics"]
        return {key: value for key, value in scores.items() if key in before}

    first = scored("same")
    assert first == {key: value for key, value in before.items() if key.startswith("test/")}
    for kind in ("images", "masks"):
        for seed in range(5):
            shutil.copy(folder / kind / f"{seed}.png", folder / kind / f"new {seed}.png")
    found = r"was trained on other data: modalities\.image\.mean(.|\n)*data\.lists=.*splits\.json"
    with pytest.raises(SegbenchError, match=found):
        scored("grown")
    assert scored("restored", f"+data.lists={run}/splits.json") == first


def test_what_the_data_decide_is_recorded_and_kept_by_a_resume(trained, compose):
    settings = "data.tile=auto", "data.balance=auto", "loss.class_weights=auto", "data.classes=[sky, house, tree]"
    _, run = trained(photos, *settings)
    recorded = Run.open(run).config()
    assert recorded.augment.pick == "hflip" and recorded.data.tile == 32
    assert list(recorded.data.balance) == ["sky", "house", "tree"]
    assert list(recorded.loss[""].class_weights) == ["sky", "house", "tree"]
    assert {"data.tile", "data.balance", "augment.pick"} <= set(Run.open(run).legs()[0].settled)
    log = (run / "run.log").read_text()
    assert log.count("augment: hflip, since the images are colour photographs") == 1
    longer = recorded.replace({"trainer.max_steps": 4})
    train(longer, run, [], True)
    assert Run.open(run).config() == longer
    assert (run / "run.log").read_text().count("augment: hflip") == 1
