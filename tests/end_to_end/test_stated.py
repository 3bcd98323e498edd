"""One picture, whatever a file states about it: the same array on every path, and back in the user's own values."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from segbench.api import load
from segbench.data.files.image_files import images_of, open_images, read_image
from segbench.data.files.masks import masks_of, read_mask
from segbench.data.files.open_stacks import OpenStacks
from segbench.data.image_folder import ImageFolder
from segbench.data.rescaled import Rescaled
from segbench.errors import SegbenchError
from segbench.experiment.predict import predict
from segbench.experiment.train import train
from segbench.prediction import pages as pages_module
from segbench.prediction.pages import OpenedFiles, OpenedSource
from segbench.spec import DatasetSpec, ModalitySpec, Reading


def picture(height=22, width=31, seed=0):
    """Discs brighter than their ground, and where they are."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    inside = np.zeros((height, width), bool)
    for _ in range(3):
        inside |= (y - rng.integers(height)) ** 2 + (x - rng.integers(width)) ** 2 < rng.integers(4, 8) ** 2
    grey = np.clip(60 + 120 * inside + rng.normal(0, 12, (height, width)), 1, 254).astype(np.uint8)
    return grey, inside


def tiff(path, image, **options):
    tifffile.imwrite(path, image, **({"metadata": None} | options))


WHITE = {"photometric": "miniswhite"}
ENCODINGS = {
    "black.tif": lambda path, grey: tiff(path, grey),
    "white.tif": lambda path, grey: tiff(path, 255 - grey, **WHITE),
    "white_lzw.tif": lambda path, grey: tiff(path, 255 - grey, compression="lzw", **WHITE),
    "white_tiles.tif": lambda path, grey: tiff(path, 255 - grey, tile=(16, 16), compression="zlib", **WHITE),
    "white_strips.tif": lambda path, grey: tiff(path, 255 - grey, rowsperstrip=5, **WHITE),
    "white_big.tif": lambda path, grey: tiff(path, 255 - grey, bigtiff=True, **WHITE),
    "palette.tif": lambda path, grey: tiff(
        path, 255 - grey, photometric="palette", colormap=np.repeat(np.arange(255, -1, -1)[None] * 257, 3, 0)
    ),
    "a.png": lambda path, grey: Image.fromarray(grey).save(path),
    "a.gif": lambda path, grey: Image.fromarray(grey).save(path),
    "a.jp2": lambda path, grey: Image.fromarray(grey).save(path),
    "a.webp": lambda path, grey: Image.fromarray(grey).save(path, lossless=True),
    "rgb.png": lambda path, grey: Image.fromarray(np.dstack([grey] * 3)).save(path),
    "rgba.png": lambda path, grey: Image.fromarray(np.dstack([grey] * 3 + [grey * 0 + 255])).save(path),
    "la.png": lambda path, grey: Image.fromarray(np.dstack([grey, grey * 0 + 255]), "LA").save(path),
    "la.tif": lambda path, grey: tiff(
        path, np.dstack([grey, grey]), photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"]
    ),
    "rgba.tif": lambda path, grey: tiff(
        path, np.dstack([grey] * 4), photometric="rgb", extrasamples=["unassalpha"], compression="zlib"
    ),
    "ycbcr.tif": lambda path, grey: Image.fromarray(np.dstack([grey, *[grey * 0 + 128] * 2]), "YCbCr").save(path),
    "cmyk.tif": lambda path, grey: Image.fromarray(np.dstack([grey] * 3)).convert("CMYK").save(path),
    "trailing.png": lambda path, grey: (
        Image.fromarray(grey).save(path),
        path.write_bytes(path.read_bytes() + b"JUNK" * 50),
    ),
}
GREY = Reading(channels="grey")


def spec_of(reading, channels=1, unit="value, 0 to 255"):
    modality = ModalitySpec(channels, (100.0,) * channels, (50.0,) * channels, unit, reading)
    return DatasetSpec("own", {"image": modality}, {}, "", "", "")


def by_every_path(path, reading, monkeypatch, channels=1, page=0, unit="value, 0 to 255"):
    """The image HW as each path reads it, by the path's name."""
    found = {"scan": list(images_of(path, reading))[page], "stack": OpenStacks(reading).read(path, page)}
    if page == 0 and len(list(images_of(path, reading))) == 1:
        found["file"] = read_image(path, reading=reading)
    for name, most in (("predicted whole", 2**28), ("predicted in parts", 0)):
        monkeypatch.setattr(pages_module, "WHOLE_BYTES", most)
        opened = OpenedFiles({"image": path}, spec_of(reading, channels, unit))
        height, width = opened.sizes[page]
        part = opened.page(page).read
        found[name] = part(0, height, 0, width)["image"]
        found[f"{name}, tiled"] = np.vstack(
            [
                np.hstack([part(y, min(y + 9, height), x, min(x + 7, width))["image"] for x in range(0, width, 7)])
                for y in range(0, height, 9)
            ]
        )
        opened.close()
    return {name: np.squeeze(image) for name, image in found.items()}


@pytest.mark.parametrize("name", ENCODINGS)
def test_one_picture_in_any_encoding_is_one_array_on_every_path(tmp_path, monkeypatch, name):
    grey, _ = picture()
    ENCODINGS[name](tmp_path / name, grey)
    # A palette TIFF of colours and formats without grey come as RGB, and are read as grey.
    for path, read in by_every_path(tmp_path / name, GREY, monkeypatch).items():
        np.testing.assert_array_equal(read, grey, err_msg=path)


@pytest.mark.parametrize("order", ["minisblack", "miniswhite"])
def test_a_stack_that_says_white_is_zero_is_the_stack_of_the_same_pictures(tmp_path, monkeypatch, order):
    grey = np.stack([picture(seed=seed)[0] for seed in range(3)])
    stored = 255 - grey if order == "miniswhite" else grey
    tiff(tmp_path / "a.tif", stored, photometric=order)
    tiff(tmp_path / "b.tif", stored, photometric=order, compression="lzw")
    for name in ("a.tif", "b.tif"):
        for page in range(3):
            for path, read in by_every_path(tmp_path / name, GREY, monkeypatch, page=page).items():
                np.testing.assert_array_equal(read, grey[page], err_msg=path)


@pytest.mark.parametrize(("bits", "dtype"), [(16, np.uint16), (1, bool)])
def test_white_is_zero_at_other_depths(tmp_path, bits, dtype):
    grey = (picture()[0] > 99) if bits == 1 else picture()[0].astype(np.uint16) * 200
    stored = ~grey if bits == 1 else 2**bits - 1 - grey
    tiff(tmp_path / "a.tif", stored, photometric="miniswhite")
    read = read_image(tmp_path / "a.tif")[..., 0]
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, grey)


def test_masks_of_white_as_zero_are_the_masks_of_black_as_zero(tmp_path):
    # Older ones read no fax.
    pytest.importorskip("imagecodecs", minversion="2026.1")
    _, inside = picture()
    mask = inside.astype(np.uint8) * 255
    tiff(tmp_path / "black.tif", mask)
    tiff(tmp_path / "white.tif", 255 - mask, photometric="miniswhite")
    Image.fromarray(mask).convert("1").save(tmp_path / "fax.tif", compression="group4")
    Image.fromarray(mask).save(tmp_path / "a.gif")
    Image.fromarray(mask).save(tmp_path / "a.jp2", irreversible=False)
    for name in ("black.tif", "white.tif", "fax.tif", "a.gif", "a.jp2"):
        for found in (read_mask(tmp_path / name), *masks_of(tmp_path / name)):
            assert found.kind == "ids"
            np.testing.assert_array_equal(found.codes_HW > 0, inside, err_msg=name)
    Image.fromarray(mask).save(tmp_path / "lossy.jp2", irreversible=True)
    Image.fromarray(mask).save(tmp_path / "lossy.webp", quality=80)
    for name in ("lossy.jp2", "lossy.webp"):
        with pytest.raises(SegbenchError, match=r"is a lossy .*whose compression changes"):
            read_mask(tmp_path / name)


def test_colours_of_another_model_are_converted_or_refused(tmp_path):
    rng = np.random.default_rng(0)
    rgb = cv2.resize(rng.integers(0, 256, (4, 5, 3)).astype(np.uint8), (40, 30))
    for mode, tolerance in (("YCbCr", 2), ("CMYK", 0)):
        other = Image.fromarray(rgb).convert(mode)
        other.save(tmp_path / f"{mode}.tif")
        expected = np.asarray(other.convert("RGB")).astype(int)
        assert np.abs(read_image(tmp_path / f"{mode}.tif") - expected).max() <= tolerance
    tifffile.imwrite(tmp_path / "lab.tif", rgb, photometric="cielab")
    with pytest.raises(SegbenchError, match=r"lab\.tif holds CIELab\n.*\n.*convert it to RGB"):
        read_image(tmp_path / "lab.tif")
    tifffile.imwrite(tmp_path / "float.tif", rgb[..., 0].astype(np.float32), photometric="miniswhite")
    with pytest.raises(SegbenchError, match=r"float\.tif holds 0 as white with values of type float32"):
        read_image(tmp_path / "float.tif")


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_turned_photograph_lies_as_the_viewer_shows_it_on_every_path(tmp_path, monkeypatch, turn):
    grey, _ = picture()
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(grey).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(grey).save(tmp_path / "a.jpg", exif=exif, quality=100)
    tiff(tmp_path / "a.tif", grey, extratags=[(274, "H", 1, turn, False)])
    for name in ("a.png", "a.jpg", "a.tif"):
        expected = np.asarray(Image.fromarray(grey) if turn == 1 else Image.fromarray(grey).transpose(_TURNS[turn]))
        stored = read_image(tmp_path / name)[..., 0]
        assert stored.shape == grey.shape
        with open_images(tmp_path / name) as images:
            assert images.stated_turn(0) == turn
        for path, read in by_every_path(tmp_path / name, Reading(exif="turn"), monkeypatch).items():
            loss = 3 if name == "a.jpg" else 0
            np.testing.assert_allclose(read.astype(int), expected, atol=loss, err_msg=f"{name} {path}")


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@pytest.mark.parametrize(
    ("axes", "options"),
    [
        ("CYX", {}),
        ("CYX", {"metadata": None}),
        ("CYX", {"compression": "zlib"}),
        ("YXC", {}),
        ("YXC", {"compression": "zlib"}),
        ("YXC", {"metadata": {"axes": "YXC"}}),
        ("YCX", {}),
    ],
)
def test_channels_lie_where_the_axes_say(tmp_path, monkeypatch, axes, options):
    image_YXC = np.random.default_rng(0).integers(0, 256, (22, 31, 5)).astype(np.uint8)
    stored = image_YXC.transpose(["YXC".index(axis) for axis in axes])
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack", **options)
    reading = Reading(axes=None if options.get("metadata") else axes)
    for path, read in by_every_path(tmp_path / "a.tif", reading, monkeypatch, channels=5).items():
        np.testing.assert_array_equal(read, image_YXC, err_msg=path)


def test_axes_of_a_stack_of_several_channels(tmp_path, monkeypatch):
    stack_TYXC = np.random.default_rng(0).integers(0, 256, (3, 22, 31, 2)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stack_TYXC.transpose(0, 3, 1, 2), photometric="minisblack")
    tifffile.imwrite(tmp_path / "b.tif", stack_TYXC, photometric="minisblack")
    for name, axes in (("a.tif", "TCYX"), ("b.tif", "TYXC")):
        for page in range(3):
            paths = by_every_path(tmp_path / name, Reading(axes=axes), monkeypatch, channels=2, page=page)
            for path, read in paths.items():
                np.testing.assert_array_equal(read, stack_TYXC[page], err_msg=f"{name} {path}")


SMALL = (
    "experiment=image_folder",
    "name=own",
    "model.width=4",
    "model.depth=2",
    "data.tile=32",
    "data.batch_size=2",
    "trainer=cpu",
    "trainer.max_steps=2",
    "trainer.val_check_interval=2",
    "trainer.precision=32-true",
    "threads=1",
)
GEO = [
    (33550, "d", 3, (0.5, 0.5, 0.0), False),
    (33922, "d", 6, (0.0, 0.0, 0.0, 500000.0, 4600000.0, 0.0), False),
    (34735, "H", 8, (1, 1, 0, 1, 1024, 0, 1, 1), False),
]
NODATA = (42113, "s", 0, "-9999", False)


def written(folder, image=None, mask=None, count=5):
    """Pairs under `folder`, written by functions of (path without suffix, grey, inside, number)."""
    image = image or (lambda path, grey, inside, k: Image.fromarray(grey).save(f"{path}.png"))
    mask = mask or (lambda path, grey, inside, k: Image.fromarray(inside.astype(np.uint8) * 255).save(f"{path}.png"))
    for name, write in (("images", image), ("masks", mask)):
        (folder / name).mkdir(parents=True)
        for k in range(count):
            write(folder / name / f"im{k}", *picture(36, 44, seed=k), k)
    return f"data.images={folder / 'images'}", f"data.masks={folder / 'masks'}"


@pytest.fixture(scope="module")
def run_on(compose, tmp_path_factory):
    """`run_on(name, image=..., mask=..., overrides=())`: folder and run directory of a short training, once each."""
    made = {}

    def run(name, *overrides, **how):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
                train(compose(*SMALL, *written(folder, **how), *overrides), folder / "run", [])
            made[name] = folder
        return made[name], made[name] / "run"

    return run


def predicted(compose, run, source, output, *more):
    given = f"run={run}", f"input={source}", f"output={output}", "trainer=cpu", *more
    return predict(compose(*given, config="predict"))


def indices(run, path):
    return load(run, device="cpu").predict(path).mask


GREYS, COLOURS = {0: 0, 1: 255}, {0: 0x000000, 1: 0xFF8000}


def coloured(path, grey, inside, k):
    Image.fromarray(np.where(inside[..., None], (255, 128, 0), (0, 0, 0)).astype(np.uint8)).save(f"{path}.png")


def with_palette(path, grey, inside, k):
    image = Image.fromarray(inside.astype(np.uint8) * 40)
    image.putpalette([(7 * value) % 256 for value in range(768)])
    image.save(f"{path}.png")


def wide(path, grey, inside, k):
    tifffile.imwrite(f"{path}.tif", np.where(inside, 3000, 7).astype(np.uint16))


def negative(path, grey, inside, k):
    tifffile.imwrite(f"{path}.tif", np.where(inside, -1, 0).astype(np.int16))


MASKS = {
    "greys": (None, "ids", {0: 0, 1: 255}, np.uint8, ".png"),
    "colours": (coloured, "colours", {0: 0, 1: 0xFF8000}, np.uint8, ".png"),
    "palette": (with_palette, "palette", {0: 0, 1: 40}, np.uint8, ".png"),
    "wide": (wide, "ids", {0: 7, 1: 3000}, np.uint16, ".png"),
    "negative": (negative, "ids", {0: -1, 1: 0}, np.int16, ".tif"),
}


@pytest.mark.parametrize("name", MASKS)
def test_predicted_masks_hold_the_users_own_values(compose, run_on, tmp_path, monkeypatch, name):
    mask, kind, values, dtype, suffix = MASKS[name]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder, run = run_on(name, mask=mask)
    for store in ("png", "tiff", "zarr"):
        output = tmp_path / store
        paths = predicted(
            compose, run, folder / "images", output, "format=masks", *[f"store={store}"][: store != "png"]
        )
        assert {path.suffix for path in paths} == {{"png": suffix, "tiff": ".tif", "zarr": ".zarr"}[store]}
        for path in paths:
            index = indices(run, folder / "images" / f"{path.stem}.png")
            expected = np.vectorize(values.get)(index)
            if store == "zarr":
                with open_images(path, 3 if kind == "colours" else 1) as images:
                    found = images.read(0)
                code = found.astype(int) @ (65536, 256, 1) if kind == "colours" else found[..., 0]
            elif store == "tiff" and kind == "palette":
                code = tifffile.imread(path)
            else:
                read = read_mask(path)
                assert read.kind == kind
                code = read.codes_HW
            np.testing.assert_array_equal(code, expected, err_msg=str(path))
            if store == "tiff" and kind == "ids":
                assert code.dtype == dtype
        table = json.loads((output / "classes.json").read_text())["semantic"]
        assert [row["index"] for row in table["classes"]] == [0, 1] and table["values"] == kind
        if store == "tiff":
            with tifffile.TiffFile(paths[0]) as file:
                assert json.loads(file.pages[0].description) == {"segbench": table}
        if store == "png" and kind == "palette":
            with Image.open(paths[0]) as made, Image.open(folder / "masks" / "im0.png") as given:
                palettes = [np.array(image.getpalette()[: 3 * 41]).reshape(-1, 3) for image in (made, given)]
            for value in values.values():
                np.testing.assert_array_equal(palettes[0][value], palettes[1][value])


def test_a_check_of_predictions_finds_the_classes_of_the_masks(compose, run_on, call, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder, run = run_on("greys")
    for source, target in ((folder / "masks", tmp_path / "given"), (None, tmp_path / "made")):
        target.mkdir()
        if source is None:
            predicted(compose, run, folder / "images", target)
            # Two steps may have learned one class: the other one is written into a corner.
            first = cv2.imread(str(target / "im0.png"), cv2.IMREAD_UNCHANGED)
            first[:2, :2] = 0, 255
            cv2.imwrite(str(target / "im0.png"), first)
        else:
            for path in source.glob("*.png"):
                (target / path.name).write_bytes(path.read_bytes())
        code, out, _ = call("data", "check", "image_folder", f"data.images={folder / 'images'}", f"data.masks={target}")
        # The values 0 and 255.
        assert code == 0 and "│ background │" in out and "│ foreground │" in out and "│ 255" not in out


def test_indices_on_request_and_where_an_earlier_version_began(compose, run_on, tmp_path, capsys):
    folder, run = run_on("greys")
    [path] = predicted(compose, run, folder / "images" / "im0.png", tmp_path / "index", "values=index")
    with Image.open(path) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), indices(run, folder / "images" / "im0.png"))
    # A folder of 0.1.0 records nothing of values.
    record = tmp_path / "index" / "predictions.jsonl"
    first, *rest = record.read_text().splitlines()
    entry = json.loads(first)
    del entry["made_by"]["values"]
    record.write_text("\n".join([json.dumps(entry), *rest, ""]))
    capsys.readouterr()
    [path] = predicted(compose, run, folder / "images" / "im1.png", tmp_path / "index")
    with Image.open(path) as image:
        assert image.mode == "P" and np.asarray(image).max() <= 1
    assert "masks hold class indices, as" in capsys.readouterr().err
    with pytest.raises(SegbenchError, match=r"values index, now own"):
        predicted(compose, run, folder / "images" / "im2.png", tmp_path / "index", "values=own")


def test_a_run_that_recorded_no_values_writes_indices_and_says_so(compose, run_on, tmp_path, capsys):
    import shutil

    folder, run = run_on("greys")
    shutil.copytree(run, tmp_path / "run")
    described = json.loads((run / "dataset.json").read_text())
    for modality in described["modalities"].values():
        del modality["reading"]
    for head in described["heads"].values():
        del head["coding"]
    (tmp_path / "run" / "dataset.json").write_text(json.dumps(described))
    [path] = predicted(compose, tmp_path / "run", folder / "images" / "im0.png", tmp_path / "out")
    with Image.open(path) as image:
        assert image.mode == "P" and np.asarray(image).max() <= 1
    assert capsys.readouterr().err.count("recorded no values of its masks: masks hold class indices") == 1


def float_with_gap(path, grey, inside, k):
    image = grey.astype(np.float32) / 255
    image[:4] = -9999
    tiff(f"{path}.tif", image, extratags=[NODATA])


@pytest.mark.parametrize("how", ["tag", "nan", "key", "integers"])
def test_pixels_without_data_count_nowhere(tmp_path, monkeypatch, how):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    value = np.nan if how == "nan" else 0 if how == "integers" else -9999
    stored, options = {}, {"extratags": [NODATA]} if how == "tag" else {}

    def image(path, grey, inside, k):
        stored[k] = (grey if how == "integers" else grey / 255).astype(np.uint8 if how == "integers" else np.float32)
        gap = stored[k].copy()
        gap[:4] = value
        tiff(f"{path}.tif", gap, **options)

    written(tmp_path, image=image)
    key = {"nodata": float(value)} if how in ("key", "integers") else {}
    dataset = ImageFolder(str(tmp_path / "images"), str(tmp_path / "masks"), **key)
    train_ids = [int(name[2:]) for name in dataset.split("train").ids]
    kept = np.concatenate([stored[k][4:].ravel() for k in train_ids]).astype(float)
    modality = dataset.spec.modalities["image"]
    np.testing.assert_allclose([modality.mean[0], modality.std[0]], [kept.mean(), kept.std()], rtol=1e-6)
    raw = dataset.split("train").read(0)
    assert (raw.labels["semantic"][:4] == 255).all() and (raw.labels["semantic"][4:] != 255).all()
    np.testing.assert_array_equal(raw.images["image"][4:], stored[train_ids[0]][4:])
    assert np.abs(raw.images["image"][:4].astype(float) - kept.mean()).max() <= (0.5 if how == "integers" else 1e-6)
    # The same array where it is predicted.
    spec = DatasetSpec("own", {"image": modality}, {}, "", "", "")
    for most in (2**28, 0):
        monkeypatch.setattr(pages_module, "WHOLE_BYTES", most)
        opened = OpenedFiles({"image": tmp_path / "images" / f"im{train_ids[0]}.tif"}, spec)
        page = opened.page(0)
        np.testing.assert_array_equal(page.read(0, 36, 0, 44)["image"], raw.images["image"])
        empty_HW = page.empty(0, 36, 0, 44)
        assert empty_HW[:4].all() and not empty_HW[4:].any() and page.empty(4, 36, 0, 44) is None
        opened.close()
    # So it is where a split is predicted, and with the mean that published weights bring.
    empty_HW = OpenedSource(dataset.split("train"), [0]).page(0).empty(2, 36, 0, 44)
    assert empty_HW[:2].all() and not empty_HW[2:].any()
    other = Rescaled(dataset, replace(dataset.spec, modalities={"image": replace(modality, mean=(99.0,))}))
    refilled = other.split("train").read(0)
    assert (refilled.images["image"][:4] == 99).all()
    np.testing.assert_array_equal(refilled.images["image"][4:], raw.images["image"][4:])


@pytest.mark.parametrize("size", ["whole", "tiles", "larger than memory"])
def test_a_geotiff_gives_geotiffs(compose, run_on, tmp_path, monkeypatch, capsys, size):
    from segbench.prediction import files as files_module

    _, run = run_on("geo", image=float_with_gap)
    grey, _ = picture(70, 90)
    image = grey.astype(np.float32) / 255
    image[:5] = -9999
    tiff(tmp_path / "a.tif", image, extratags=[*GEO, NODATA])
    more = ("tile=32",) if size != "whole" else ()
    if size == "larger than memory":
        monkeypatch.setattr(pages_module, "WHOLE_BYTES", 0)
        monkeypatch.setattr(files_module, "CANVAS_BYTES", 0)
        monkeypatch.setattr(files_module, "TILED_PIXELS", 0)
    for kind in ("masks", "probabilities"):
        for store in ("", "store=tiff"):
            output = tmp_path / f"{kind}{len(store)}"
            paths = predicted(compose, run, tmp_path / "a.tif", output, f"format={kind}", *more, *filter(None, [store]))
            assert [path.suffix for path in paths] == [".tif"]
            with tifffile.TiffFile(paths[0]) as file:
                tags = file.pages[0].tags
                for code, _, _, value, _ in GEO:
                    np.testing.assert_array_equal(tags[code].value, value)
                made = file.asarray()
                assert tags[42113].value.strip("\0") == ("nan" if kind == "probabilities" else "254")
            lacking = np.isnan(made) if kind == "probabilities" else made == 254
            assert lacking[:5].all() and not lacking[5:].any()
    assert "no data in 450 pixels of 1 inputs" in capsys.readouterr().err


def test_store_tiff_does_what_it_says(compose, run_on, tmp_path):
    folder, run = run_on("greys")
    paths = predicted(compose, run, folder / "images" / "im0.png", tmp_path / "out", "store=tiff")
    assert [path.suffix for path in paths] == [".tif"]
    np.testing.assert_array_equal(tifffile.imread(paths[0]) // 255, indices(run, folder / "images" / "im0.png"))


def test_overlays_lie_as_the_viewer_shows_the_photograph(compose, run_on, tmp_path, capsys):
    _, run = run_on("greys")
    grey, _ = picture(36, 44, seed=9)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(grey).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(grey).save(tmp_path / "plain.png")
    for name in ("a", "plain"):
        predicted(compose, run, tmp_path / f"{name}.png", tmp_path / name, "format=[masks,overlays]")
    assert capsys.readouterr().err.count("with an EXIF turn, read as stored (data.exif=ignore): 1 of the inputs") == 1
    turned, plain = (np.asarray(Image.open(tmp_path / name / "overlays" / f"{name}.png")) for name in ("a", "plain"))
    np.testing.assert_array_equal(turned, np.rot90(plain, -1))
    masks = [cv2.imread(str(tmp_path / name / "masks" / f"{name}.png"), -1) for name in ("a", "plain")]
    np.testing.assert_array_equal(*masks)
    predicted(compose, run, tmp_path / "a.png", tmp_path / "t", "data.exif=turn")
    assert cv2.imread(str(tmp_path / "t" / "a.png"), -1).shape == (44, 36)


def test_grey_and_coloured_images_in_one_folder(compose, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kinds = ("a.png", "rgb.png", "rgba.png", "la.png", "a.webp")

    def image(path, grey, inside, k):
        name = kinds[k % len(kinds)]
        target = path.with_name(f"{path.name}.{name.split('.')[1]}")
        ENCODINGS[name](target, grey)

    written(tmp_path, image=image, count=5)
    given = str(tmp_path / "images"), str(tmp_path / "masks")
    with caplog.at_level("INFO"):
        dataset = ImageFolder(*given)
    modality = dataset.spec.modalities["image"]
    assert modality.channels == 1 and modality.reading.channels == "grey"
    assert "of 5 images, 2 RGB and 2 RGBA are read as grey (data.channels)" in caplog.text.replace(" and 1 ", " and 1 ")
    for split in ("train", "val", "test"):
        source = dataset.split(split)
        for index, name in enumerate(source.ids):
            np.testing.assert_array_equal(source.read(index).images["image"], picture(36, 44, int(name[2:]))[0])
    red = np.dstack([picture(36, 44, 0)[0], *[np.zeros((36, 44), np.uint8)] * 2])
    Image.fromarray(red).save(tmp_path / "images" / "im0.png")
    dataset = ImageFolder(*given)
    assert dataset.spec.modalities["image"].channels == 3
    forced = ImageFolder(*given, channels="grey")
    assert forced.spec.modalities["image"].channels == 1
    where = next(s for s in map(forced.split, ("train", "val", "test")) if "im0" in s.ids)
    luma = where.read(where.ids.index("im0")).images["image"]
    np.testing.assert_array_equal(luma, cv2.cvtColor(red, cv2.COLOR_RGB2GRAY))
