import numpy as np
import pytest
import tifffile
from PIL import Image

from segbench.data.pascal_voc import CLASSES, voc_palette
from segbench.errors import SegbenchError
from segbench.metrics.decoding import Decoding, decode_instances
from segbench.prediction import settings as settings_module
from segbench.prediction.outputs import InputOutputs
from segbench.prediction.overlay import Brush
from segbench.prediction.settings import Settings, Target, check_frames, check_settings
from segbench.spec import DatasetSpec, HeadSpec


def softmax(classes, height, width, seed=0):
    logits = np.random.default_rng(seed).normal(0, 3, (classes, height, width))
    powers = np.exp(logits)
    return (powers / powers.sum(0)).astype(np.float32)


def grey(height, width):
    return np.random.default_rng(1).integers(0, 256, (height, width), dtype=np.uint8)


@pytest.fixture
def one(target, filled, tmp_path):
    """`one(kinds, probabilities, ...)`: files of a page, relative to the output folder."""

    def made(kinds, prob, heads=("cells",), **settings):
        outputs = InputOutputs(target(kinds, [prob.shape[1:]], heads, **settings))
        image = grey(*prob.shape[1:])
        paths = filled(outputs, [(image, {heads[0]: prob})])
        return [str(path.relative_to(tmp_path / "out")) for path in paths], tmp_path / "out", image

    return made


def test_a_mask_is_the_likeliest_class_in_the_runs_palette(one):
    prob = softmax(3, 20, 31)
    names, folder, _ = one(["masks"], prob, ("land",))
    assert names == ["x.png"]
    with Image.open(folder / "x.png") as image:
        np.testing.assert_array_equal(np.asarray(image), prob.argmax(0))
        assert image.getpalette()[3:6] == [200, 0, 0]


def test_of_two_classes_the_second_ones_probability_is_written(one):
    prob = softmax(2, 20, 31)
    names, folder, _ = one(["probabilities"], prob)
    assert names == ["x.tif"]
    written = tifffile.imread(folder / "x.tif")
    assert written.dtype == np.float32
    np.testing.assert_array_equal(written, prob[1])


def test_several_classes_get_a_file_each(one):
    prob = softmax(3, 20, 31)
    names, folder, _ = one(["probabilities"], prob, ("land",))
    assert names == ["x-sky.tif", "x-road_path.tif", "x-tree.tif"]
    np.testing.assert_array_equal(tifffile.imread(folder / "x-tree.tif"), prob[2])


def test_zarr_keeps_classes_together(one):
    zarr = pytest.importorskip("zarr", reason="zarr, of the extra of that name, is not installed")
    prob = softmax(3, 20, 31)
    names, folder, _ = one(["masks", "probabilities", "instances"], prob, ("land",), store="zarr")
    assert names == ["masks/x.zarr", "probabilities/x.zarr", "instances/x.zarr"]
    np.testing.assert_array_equal(zarr.open(str(folder / "probabilities/x.zarr"), mode="r")[:], prob)
    np.testing.assert_array_equal(zarr.open(str(folder / "masks/x.zarr"), mode="r")[:], prob.argmax(0))
    array = zarr.open(str(folder / "instances/x.zarr"), mode="r")
    assert array.dtype == np.uint32
    np.testing.assert_array_equal(array[:], decode_instances(prob, Decoding()))


def test_several_kinds_get_a_folder_each(one):
    names, folder, _ = one(["masks", "overlays", "instances"], softmax(2, 20, 31), opacity=0.3)
    assert names == ["masks/x.png", "overlays/x.png", "instances/x.tif"]
    with Image.open(folder / "overlays" / "x.png") as overlay:
        assert overlay.mode == "RGB"
        assert overlay.size == (31, 20)


def test_an_overlay_is_the_image_under_the_brush(target, filled, tmp_path, spec):
    prob, image = softmax(2, 20, 31), grey(20, 31)
    outputs = InputOutputs(target(["overlays"], [(20, 31)], opacity=0.3))
    (path,) = filled(outputs, [(image, {"cells": prob})], side=50)
    head = spec().heads["cells"]
    expected = Brush(head, 0.3).draw(np.repeat(image[..., None], 3, 2), prob.argmax(0).astype(np.uint8))
    with Image.open(path) as overlay:
        np.testing.assert_array_equal(np.asarray(overlay), expected)


def test_objects_are_numbered_over_the_whole_page_by_the_runs_decoding(target, filled):
    pages = [(grey(20, 31), {"cells": softmax(2, 20, 31, seed)}) for seed in range(2)]
    decoding = Decoding(min_size=4, threshold=0.6)
    (path,) = filled(InputOutputs(target(["instances"], [(20, 31)] * 2, decoding=decoding)), pages)
    with tifffile.TiffFile(path) as tiff:
        assert [page.dtype for page in tiff.pages] == [np.uint16] * 2
        for page, (_, prob) in zip(tiff.pages, pages, strict=True):
            np.testing.assert_array_equal(page.asarray(), decode_instances(prob["cells"], decoding))


def test_the_pages_of_a_stack_are_those_of_every_output(target, filled):
    sizes = [(20, 31), (20, 31), (9, 12)]
    pages = [(grey(*size), {"cells": softmax(2, *size, seed)}) for seed, size in enumerate(sizes)]
    kinds = ["masks", "probabilities", "overlays", "instances"]
    paths = filled(InputOutputs(target(kinds, sizes)), pages)
    assert [path.suffix for path in paths] == [".tif"] * 4
    for path in paths:
        with tifffile.TiffFile(path) as tiff:
            assert [page.shape[:2] for page in tiff.pages] == sizes
    with tifffile.TiffFile(paths[0]) as tiff:
        np.testing.assert_array_equal(tiff.pages[2].asarray(), pages[2][1]["cells"].argmax(0))


def test_several_heads_get_files_of_their_names(target, filled, tmp_path):
    cells, land = softmax(2, 20, 31), softmax(3, 20, 31)
    outputs = InputOutputs(target(["masks", "probabilities"], [(20, 31)], ("cells", "land")))
    paths = filled(outputs, [(grey(20, 31), {"cells": cells, "land": land})])
    names = ["masks/x-cells.png", "masks/x-land.png", "probabilities/x-cells.tif", "probabilities/x-land-sky.tif"]
    assert [str(path.relative_to(tmp_path / "out")) for path in paths][:4] == names
    with Image.open(paths[1]) as image:
        np.testing.assert_array_equal(np.asarray(image), land.argmax(0))


def test_large_images_go_to_tiff_and_have_no_objects(target, filled, monkeypatch):
    monkeypatch.setattr(settings_module, "LARGE_PIXELS", 600)
    monkeypatch.setattr("segbench.prediction.outputs.LARGE_PIXELS", 600)
    prob, image = softmax(2, 20, 31), grey(20, 31)
    paths = filled(InputOutputs(target(["masks", "overlays"], [(20, 31)])), [(image, {"cells": prob})])
    assert [path.name for path in paths] == ["x.tif", "x.tif"]
    np.testing.assert_array_equal(tifffile.imread(paths[0]), prob.argmax(0))
    with pytest.raises(SegbenchError, match=r"x with a page of 620 pixels for format=instances\n.*at most 600"):
        InputOutputs(target(["instances"], [(20, 31)]))


def voc_spec():
    return DatasetSpec("pascal_voc", {}, {"semantic": HeadSpec(CLASSES, voc_palette())}, "", "", "")


def test_voc_writes_the_archive_that_the_server_takes(filled, tmp_path):
    prob = softmax(21, 20, 31)
    target = Target("2008_000006", ((20, 31),), voc_spec(), tmp_path, Settings(("voc",), voc_competition="comp5"))
    (path,) = filled(InputOutputs(target), [(grey(20, 31), {"semantic": prob})])
    assert path == tmp_path / "results/VOC2012/Segmentation/comp5_test_cls/2008_000006.png"
    with Image.open(path) as image:
        assert image.mode == "P"
        label = np.asarray(image)
        assert tuple(image.getpalette()[45:48]) == (192, 128, 128)
    np.testing.assert_array_equal(label, prob.argmax(0))
    assert label.max() <= 20


def test_voc_takes_photographs_only(tmp_path):
    target = Target("x", ((4, 4), (4, 4)), voc_spec(), tmp_path, Settings(("voc",)))
    with pytest.raises(SegbenchError, match=r"x has 2 pages"):
        InputOutputs(target)


@pytest.mark.parametrize(
    ("name", "place"),
    [("01/t000", "01_RES/mask000.tif"), ("02-0104", "02_RES/mask0104.tif"), ("t007", "mask007.tif")],
)
def test_ctc_writes_the_files_that_the_challenge_takes(spec, filled, tmp_path, name, place):
    prob = softmax(2, 20, 31)
    decoding = Decoding(threshold=0.5)
    target = Target(name, ((20, 31),), spec(), tmp_path, Settings(("overlays", "ctc"), decoding=decoding))
    (_, path) = filled(InputOutputs(target), [(grey(20, 31), {"cells": prob})])
    assert path == tmp_path / place
    objects = tifffile.imread(path)
    assert objects.dtype == np.uint16
    np.testing.assert_array_equal(objects, decode_instances(prob, decoding))


def test_ctc_takes_a_file_for_each_frame(spec, tmp_path):
    target = Target("t000", ((4, 4),) * 2, spec(), tmp_path, Settings(("ctc",)))
    with pytest.raises(SegbenchError, match=r"t000 with 2 pages.*\n.*\n.*format=instances"):
        InputOutputs(target)


def test_ctc_takes_frames_only():
    check_frames(["01/t000", "02-104", "t7"])
    with pytest.raises(
        SegbenchError, match=r"3 of 4 inputs.*: frame, 01_GT/SEG/man_seg000, t\n.*01/t000.*\n.*instances"
    ):
        check_frames(["frame", "t000", "01_GT/SEG/man_seg000", "t"])


def test_more_objects_than_a_tiff_can_number_are_refused(spec, filled, tmp_path):
    # A chessboard: every cell pixel is an object.
    board = np.indices((364, 364)).sum(0) % 2
    prob = np.stack((1 - board, board)).astype(np.float32)
    outputs = InputOutputs(Target("t000", ((364, 364),), spec(), tmp_path, Settings(("ctc",), store="zarr")))
    with pytest.raises(SegbenchError, match=r"66248 objects in t000\n.*65535"):
        filled(outputs, [(grey(364, 364), {"cells": prob})])
    outputs.discard()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"kinds": ()}, r"format=\[\]\n.*some of masks, probabilities"),
        ({"kinds": ("mask",)}, r"format=mask\n"),
        ({"kinds": ("masks", "masks")}, r"format=\[masks,masks\]\n.*each once"),
        ({"kinds": ("masks",), "store": "hdf5"}, r"store=hdf5\n.*tiff or zarr"),
        ({"kinds": ("overlays",), "opacity": 40}, r"opacity=40\n.*0 to 1"),
        ({"kinds": ("voc",)}, r"format=voc for a run on toy with 2 classes\n.*21 classes of PASCAL VOC\n"),
    ],
)
def test_settings_that_cannot_be_served_are_refused(spec, wrong, told):
    with pytest.raises(SegbenchError, match=told):
        check_settings(Settings(**wrong), spec())


def test_an_unknown_competition_is_refused():
    check_settings(Settings(("voc",)), voc_spec())
    with pytest.raises(SegbenchError, match=r"voc\.competition=comp7\n.*comp5 .* or comp6"):
        check_settings(Settings(("voc",), voc_competition="comp7"), voc_spec())
