import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from segbench.data.files.image_files import read_image
from segbench.data.files.tiff_images import TiffImages
from segbench.data.files.zarr_images import ZarrImages
from segbench.errors import SegbenchError
from segbench.prediction import files
from segbench.prediction.files import PngFile, TiffFile, ZarrFile

PALETTE = ((0, 0, 0), (200, 10, 20), (255, 255, 255))


def values(*shape, high=3, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, high, shape).astype(dtype)


def fill(file, pages, side=7):
    for index, page in enumerate(pages):
        height, width = page.shape[-2:] if isinstance(file, ZarrFile) else page.shape[:2]
        file.begin(index, (height, width))
        for y in range(0, height, side):
            for x in range(0, width, side):
                window = (slice(y, y + side), slice(x, x + side))
                file.put(y, x, page[(..., *window)] if isinstance(file, ZarrFile) else page[window])
        file.end()


def test_a_png_holds_indices_with_their_palette(tmp_path):
    label = values(20, 31)
    file = PngFile(tmp_path / "new" / "a.png", PALETTE)
    fill(file, [label])
    assert not (tmp_path / "new" / "a.png").exists()
    file.finish()
    with Image.open(tmp_path / "new" / "a.png") as image:
        assert image.mode == "P"
        assert tuple(image.getpalette()[:9]) == (0, 0, 0, 200, 10, 20, 255, 255, 255)
        np.testing.assert_array_equal(np.asarray(image), label)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def test_a_png_of_colours_is_rgb(tmp_path):
    picture = values(20, 31, 3, high=256)
    file = PngFile(tmp_path / "a.png", None)
    fill(file, [picture])
    file.finish()
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture)


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["float", "palette", "colours"])
def test_a_tiff_has_the_pages_of_the_input(tmp_path, monkeypatch, tiled, compressed, kind):
    if tiled:
        monkeypatch.setattr(files, "TILED_PIXELS", 100)
        monkeypatch.setattr(files, "TILE", 16)
    samples = (3,) if kind == "colours" else ()
    dtype = np.float32 if kind == "float" else np.uint8
    pages = [values(20, 31, *samples, dtype=dtype), values(9, 40, *samples, dtype=dtype)]
    sizes = [page.shape[:2] for page in pages]
    options = {"palette": PALETTE} if kind == "palette" else {"samples": 3 if kind == "colours" else 1}
    file = TiffFile(tmp_path / "a.tif", dtype, sizes, compressed=compressed, **options)
    fill(file, pages)
    file.finish()
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert [page.is_tiled for page in tiff.pages] == [tiled] * 2
        assert {page.compression.name for page in tiff.pages} == {"ADOBE_DEFLATE" if compressed else "NONE"}
        for page, expected in zip(tiff.pages, pages, strict=True):
            np.testing.assert_array_equal(page.asarray(), expected)
            if kind == "palette":
                assert (page.colormap[:, :3] >> 8).T.tolist() == [list(colour) for colour in PALETTE]
    with TiffImages(tmp_path / "a.tif") as images:
        assert len(images) == 2


def test_a_page_that_memory_does_not_hold_is_written_alike(tmp_path):
    page = values(90, 70, dtype=np.float32, high=1000)
    for name, limit in (("memory", 2**20), ("disk", 0)):
        file = TiffFile(tmp_path / f"{name}.tif", np.float32, [page.shape], limit=limit)
        fill(file, [page], side=32)
        file.finish()
        np.testing.assert_array_equal(tifffile.imread(tmp_path / f"{name}.tif"), page)


def test_a_tiff_beyond_4_gb_is_a_big_one(tmp_path):
    for sizes, big in (([(9, 9)], False), ([(20000, 20000)] * 3, True)):
        file = TiffFile(tmp_path / "a.tif", np.float32, sizes)
        fill(file, [values(9, 9, dtype=np.float32)])
        file.finish()
        with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
            assert tiff.is_bigtiff == big


@pytest.mark.parametrize("discard_at", ["start", "page", "end"])
@pytest.mark.parametrize("kind", ["png", "tiff", "zarr"])
def test_what_is_discarded_leaves_nothing(tmp_path, kind, discard_at):
    folder = tmp_path / "out"
    folder.mkdir()
    if kind == "zarr":
        pytest.importorskip("zarr", reason="zarr, of the extra of that name, is not installed")
    file = {
        "png": lambda: PngFile(folder / "a.png", PALETTE),
        "tiff": lambda: TiffFile(folder / "a.tif", np.uint8, [(9, 9)], limit=0),
        "zarr": lambda: ZarrFile(folder / "a.zarr", np.uint8, [(9, 9)]),
    }[kind]()
    if discard_at == "page":
        file.begin(0, (9, 9))
        file.put(0, 0, values(4, 4))
    elif discard_at == "end":
        fill(file, [values(9, 9)])
    file.discard()
    assert not list(folder.iterdir())


@pytest.mark.parametrize(("pages", "classes"), [(1, 1), (3, 1), (1, 3), (2, 4)])
def test_zarr_has_axes_for_what_is_several(tmp_path, pages, classes):
    zarr = pytest.importorskip("zarr", reason="zarr, of the extra of that name, is not installed")
    array = values(pages, classes, 20, 31, dtype=np.float32, high=1000)
    file = ZarrFile(tmp_path / "a.zarr", np.float32, [(20, 31)] * pages, classes, {"class_names": ["x"]})
    fill(file, array if classes > 1 else array[:, 0])
    file.finish()
    written = zarr.open(str(tmp_path / "a.zarr"), mode="r")
    names = ["page"] * (pages > 1) + ["class"] * (classes > 1) + ["y", "x"]
    assert list(written.metadata.dimension_names) == names
    assert written.attrs["class_names"] == ["x"]
    assert written.chunks == (*[1] * (len(names) - 2), 7, 7)
    np.testing.assert_array_equal(written[:], array.squeeze((0,) * (pages == 1) + (1,) * (classes == 1)))
    assert len(ZarrImages(tmp_path / "a.zarr")) == pages * classes


def test_a_zarr_array_takes_the_place_of_an_older_one(tmp_path):
    zarr = pytest.importorskip("zarr", reason="zarr, of the extra of that name, is not installed")
    for value in (1, 2):
        file = ZarrFile(tmp_path / "a.zarr", np.uint8, [(9, 9)])
        fill(file, [np.full((9, 9), value, np.uint8)], side=9)
        file.finish()
    assert (zarr.open(str(tmp_path / "a.zarr"), mode="r")[:] == 2).all()
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_zarr_tells_pages_of_different_sizes_and_where_it_is_missing(tmp_path, monkeypatch):
    pytest.importorskip("zarr", reason="zarr, of the extra of that name, is not installed")
    with pytest.raises(SegbenchError, match=r"pages of 2 sizes for .*a\.zarr\n.*\n.*store=tiff"):
        ZarrFile(tmp_path / "a.zarr", np.uint8, [(9, 9), (8, 9)])
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(SegbenchError, match=r"zarr is not installed\n.*\n.*segbench\[zarr\]"):
        ZarrFile(tmp_path / "a.zarr", np.uint8, [(9, 9)])
