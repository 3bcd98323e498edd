"""Prediction by networks that take whole photographs: the VOC server's archive, and several modalities."""

import json

import cv2
import numpy as np
import pytest
import tifffile
import torch
import yaml
from PIL import Image

from segbench.data.files.labelled import read_depth, read_rgb
from segbench.data.nyudv2 import CLASSES as NYUD_CLASSES
from segbench.data.nyudv2 import MODALITIES, log_depth, nyud_palette
from segbench.data.pascal_voc import CLASSES, VocImages, voc_palette
from segbench.data.tiles import normalise
from segbench.errors import SegbenchError
from segbench.experiment.build import build_dataset_spec, build_task
from segbench.experiment.evaluating import evaluating
from segbench.experiment.predict import predict, write_split
from segbench.inference import forward
from segbench.runs.directory import Run
from segbench.spec import DatasetSpec, HeadSpec, ModalitySpec
from segbench.training.checkpoint import load_weights

VOC = DatasetSpec(
    "pascal_voc",
    {"rgb": ModalitySpec(3, (122.67892, 116.66877, 104.00699), (1.0, 1.0, 1.0), "R, G, B, 0 to 255")},
    {"semantic": HeadSpec(CLASSES, voc_palette())},
    "",
    "",
    "",
)


def nyud(*modalities):
    units = {name: MODALITIES[name] for name in modalities}
    return DatasetSpec("nyudv2", units, {"semantic": HeadSpec(NYUD_CLASSES, nyud_palette())}, "", "", "")


@pytest.fixture(scope="session")
def untrained(compose, tmp_path_factory):
    """`untrained(spec, *overrides)`: a run directory of a narrow FCN whose weights are all drawn; made once."""
    made = {}

    def run(spec, *overrides):
        if (spec.name, overrides) in made:
            return made[spec.name, overrides]
        given = (
            "trainer=cpu",
            "trainer.precision=32-true",
            "task.channels_last=false",
            "threads=1",
            "model.width=0.05",
            "name=fcn",
        )
        config = compose(*overrides, *given)
        folder = tmp_path_factory.mktemp("fcn")
        (folder / "checkpoints").mkdir()
        (folder / "config.yaml").write_text(yaml.safe_dump(config.tree))
        (folder / "dataset.json").write_text(json.dumps(spec.to_dict()))
        model = build_task(config, spec).model
        for name, parameter in model.named_parameters():
            # Score layers start at zero, and would make every class as likely.
            if name.startswith("score"):
                torch.nn.init.normal_(parameter, std=0.1)
        state = {f"model.{name}": value for name, value in model.state_dict().items()}
        torch.save({"state_dict": state, "global_step": 7}, folder / "checkpoints" / "last.ckpt")
        made[spec.name, overrides] = folder
        return folder

    return run


@pytest.fixture
def call(compose, tmp_path):
    """`call(run, *overrides)`: segbench predict into tmp_path/out."""

    def predicted(run, *overrides):
        return predict(compose(f"run={run}", f"output={tmp_path}/out", "trainer=cpu", *overrides, config="predict"))

    return predicted


def expected(run, images):
    """What the network makes of images as the data sets read them."""
    opened = Run.open(run)
    described = build_dataset_spec(opened)
    task = build_task(opened.config(), described).eval()
    load_weights(task.model, opened.checkpoint())
    tensors = {name: normalise(image, described.modalities[name]) for name, image in images.items()}
    return task.predict(tensors)["semantic"].numpy()


def indices(path):
    with Image.open(path) as image:
        return np.asarray(image)


def photograph(path, seed, height=24, width=31):
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), cv2.resize(coarse, (width, height)))
    return path


@pytest.fixture
def voc_run(untrained):
    return untrained(VOC, "experiment=fcn32s_voc")


@pytest.fixture
def photographs(tmp_path):
    """JPEGImages of four photographs of two sizes, and a list of three of them."""
    for seed in range(4):
        photograph(tmp_path / "JPEGImages" / f"2008_00000{seed}.jpg", seed, height=24 + seed // 2 * 9)
    (tmp_path / "test.txt").write_text("2008_000000\n2008_000001\n2008_000003\n")
    return tmp_path / "JPEGImages"


def test_the_archive_of_the_voc_server_holds_what_the_data_set_would_predict(
    call, voc_run, photographs, tmp_path, capfd
):
    ids = tmp_path / "test.txt"
    files = call(voc_run, "format=voc", f"input={photographs}", f"ids={ids}", "voc.competition=comp5")
    names = [f"2008_00000{seed}" for seed in (0, 1, 3)]
    folder = tmp_path / "out" / "results" / "VOC2012" / "Segmentation" / "comp5_test_cls"
    assert files == [folder / f"{name}.png" for name in names]
    assert f"tar -C {tmp_path}/out -czf results.tgz results" in capfd.readouterr().err
    source = VocImages(tuple(names), {name: photographs / f"{name}.jpg" for name in names})
    seen = set()
    for index, path in enumerate(files):
        label = indices(path)
        np.testing.assert_array_equal(label, expected(voc_run, source.read(index).images).argmax(0))
        seen |= set(np.unique(label).tolist())
    assert 1 < len(seen)
    assert max(seen) <= 20


def test_images_of_one_size_may_go_through_together(call, voc_run, photographs, tmp_path):
    forwards = []
    hook = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, inputs: forwards.append(inputs[0].shape) if type(module).__name__ == "FCN" else None
    )
    try:
        files = call(voc_run, f"input={photographs}", "batch_size=2")
    finally:
        hook.remove()
    assert [(shape[0], shape[2]) for shape in forwards] == [(2, 24), (2, 33)]
    for path in files:
        alone = expected(voc_run, {"rgb": read_rgb(photographs / f"{path.stem}.jpg", "x")}).argmax(0)
        assert (indices(path) != alone).mean() < 0.01


def test_a_grey_photograph_is_taken_as_the_data_set_takes_it(call, voc_run, tmp_path):
    coarse = cv2.resize(np.random.default_rng(0).integers(0, 256, (5, 6), dtype=np.uint8), (31, 24))
    assert cv2.imwrite(str(tmp_path / "grey.jpg"), coarse)
    (path,) = call(voc_run, f"input={tmp_path}/grey.jpg")
    rgb = read_rgb(tmp_path / "grey.jpg", "grey")
    np.testing.assert_array_equal(indices(path), expected(voc_run, {"rgb": rgb}).argmax(0))


def test_tiles_of_a_network_without_tiles_are_refused(call, voc_run, photographs):
    with pytest.raises(SegbenchError, match=r"tile=16 for a network of unknown receptive field"):
        call(voc_run, f"input={photographs}", "tile=16")


def test_a_photograph_too_large_for_memory_is_refused(call, voc_run, photographs, monkeypatch):
    monkeypatch.setattr(forward, "WHOLE_PIXELS", 100)
    monkeypatch.setattr(forward, "free_bytes", lambda: 1e5)
    with pytest.raises(SegbenchError, match=r"a tile of 24 x 31 .* GiB needed at least.*\n.*\n.*takes it whole"):
        call(voc_run, f"input={photographs}")


@pytest.fixture
def rgbd_run(untrained):
    return untrained(nyud("rgb", "depth"), "experiment=fcn32s_nyudv2_rgbd")


@pytest.fixture
def rgbd(tmp_path):
    """Two images in the folders rgb and depth, the depth with a hole."""
    for seed in range(2):
        photograph(tmp_path / "in" / "rgb" / f"img_{seed}.png", seed)
        depth = cv2.resize(np.random.default_rng(seed).integers(800, 9000, (4, 5)).astype(np.uint16), (31, 24))
        depth[3:6, 4:9] = 0
        (tmp_path / "in" / "depth").mkdir(exist_ok=True)
        assert cv2.imwrite(str(tmp_path / "in" / "depth" / f"img_{seed}.png"), depth)
    return tmp_path / "in"


def test_modalities_reach_the_network_as_the_data_set_gives_them(call, rgbd_run, rgbd):
    files = call(rgbd_run, f"input={rgbd}", "format=probabilities")
    assert len(files) == 2 * 40
    assert [path.name for path in files[::40]] == ["img_0-wall.tif", "img_1-wall.tif"]
    for name, path in zip(("img_0.png", "img_1.png"), files[::40], strict=True):
        rgb, depth = (read(rgbd / folder / name, "x") for folder, read in (("rgb", read_rgb), ("depth", read_depth)))
        wall = expected(rgbd_run, {"rgb": rgb, "depth": log_depth(depth)})[0]
        np.testing.assert_array_equal(tifffile.imread(path), wall)
        swapped = expected(rgbd_run, {"rgb": rgb[..., ::-1], "depth": log_depth(depth)})[0]
        assert not np.allclose(wall, swapped, rtol=0.1, atol=0)


def test_modalities_may_be_named_one_by_one(call, rgbd_run, rgbd):
    together = [indices(path) for path in call(rgbd_run, f"input={rgbd}")]
    named = call(rgbd_run, f"input={{depth:{rgbd}/depth,rgb:{rgbd}/rgb}}", "overwrite=true")
    for path, before in zip(named, together, strict=True):
        np.testing.assert_array_equal(indices(path), before)


def test_a_missing_modality_and_one_of_another_size_are_named(call, rgbd_run, rgbd):
    with pytest.raises(SegbenchError, match=r"input= lacks depth\n.*nyudv2: rgb, depth\n"):
        call(rgbd_run, f"input={{rgb:{rgbd}/rgb}}")
    photograph(rgbd / "rgb" / "img_2.png", 2)
    with pytest.raises(SegbenchError, match=r"1 of 3 images lack a modality, first img_2 \(no depth\)"):
        call(rgbd_run, f"input={rgbd}")
    cv2.imwrite(str(rgbd / "depth" / "img_2.png"), np.full((31, 24), 1000, np.uint16))
    told = r"1 of 3 inputs .*:\n  .*rgb/img_2\.png is 24 x 31; .*depth/img_2\.png is 31 x 24\n"
    with pytest.raises(SegbenchError, match=told):
        call(rgbd_run, f"input={rgbd}")


def test_depth_as_a_picture_is_refused(call, rgbd_run, rgbd):
    photograph(rgbd / "depth" / "img_0.png", 0)
    with pytest.raises(SegbenchError, match=r"depth/img_0\.png has 3 channels of uint8\n.*depth in millimetres"):
        call(rgbd_run, f"input={rgbd}")


def test_voc_format_asks_for_voc_classes(call, rgbd_run, rgbd):
    with pytest.raises(SegbenchError, match=r"format=voc for a run on nyudv2 with 40 classes\n"):
        call(rgbd_run, f"input={rgbd}", "format=voc")


def test_the_split_to_predict_gets_masks_at_the_end_of_a_training(voc_run, photographs, tmp_path):
    names = ("2008_000000", "2008_000003")
    source = VocImages(names, {name: photographs / f"{name}.jpg" for name in names})
    opened = Run.open(voc_run)
    task = build_task(opened.config(), build_dataset_spec(opened))
    load_weights(task.model, opened.checkpoint())
    with evaluating(task, opened.config().trainer):
        files = write_split(task, source, tmp_path / "predictions")
    assert files == [tmp_path / "predictions" / f"{name}.png" for name in names]
    for index, path in enumerate(files):
        np.testing.assert_array_equal(indices(path), expected(voc_run, source.read(index).images).argmax(0))
