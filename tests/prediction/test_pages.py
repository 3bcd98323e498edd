import cv2
import numpy as np
import pytest
import tifffile

from segbench.errors import SegbenchError
from segbench.prediction import pages
from segbench.prediction.pages import OpenedFiles


@pytest.fixture(params=["whole", "in parts"])
def large(request, monkeypatch):
    """Whether pages count as large."""
    if request.param == "in parts":
        monkeypatch.setattr(pages, "WHOLE_BYTES", 0)
    return request.param == "in parts"


def write(path, image, **options):
    tifffile.imwrite(path, image, photometric="minisblack", metadata=None, **options)
    return {"em": path}


def test_parts_are_those_of_the_page(large, tmp_path, spec):
    stack = np.random.default_rng(0).integers(0, 256, (3, 40, 50), dtype=np.uint8)
    opened = OpenedFiles(write(tmp_path / "a.tif", stack), spec())
    assert opened.sizes == ((40, 50),) * 3
    page = opened.page(2)
    np.testing.assert_array_equal(page.read(3, 17, 5, 50)["em"], stack[2, 3:17, 5:50])
    opened.close()


def test_modalities_come_in_the_units_of_the_run(tmp_path, spec):
    colours = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "c.png"), colours)
    cv2.imwrite(str(tmp_path / "d.png"), np.full((8, 9), 1000, np.uint16))
    opened = OpenedFiles({"rgb": tmp_path / "c.png", "depth": tmp_path / "d.png"}, spec("rgb", "depth"))
    part = opened.page(0).read(2, 4, 0, 3)
    np.testing.assert_array_equal(part["rgb"], colours[2:4, 0:3, ::-1])
    np.testing.assert_allclose(part["depth"], np.log(1000), rtol=1e-6)


def test_unequal_sizes_and_page_counts_are_told(tmp_path, spec):
    cv2.imwrite(str(tmp_path / "c.png"), np.zeros((8, 9, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "d.png"), np.zeros((9, 8), np.uint16))
    with pytest.raises(SegbenchError, match=r"c\.png is 8 x 9; .*d\.png is 9 x 8\n.*for all modalities\n"):
        OpenedFiles({"rgb": tmp_path / "c.png", "depth": tmp_path / "d.png"}, spec("rgb", "depth"))
    tifffile.imwrite(tmp_path / "d.tif", np.zeros((2, 8, 9), np.uint16))
    with pytest.raises(SegbenchError, match=r"c\.png has 1 pages; .*d\.tif has 2 pages\n"):
        OpenedFiles({"rgb": tmp_path / "c.png", "depth": tmp_path / "d.tif"}, spec("rgb", "depth"))


def test_fractions_are_refused_in_a_large_image_too(large, tmp_path, spec):
    opened = OpenedFiles(write(tmp_path / "a.tif", np.random.default_rng(0).random((90, 90), np.float32)), spec())
    with pytest.raises(SegbenchError, match=r"a\.tif holds values from [\de.-]+ to 0\.\d+ \(float32\)\n"):
        opened.page(0)
    opened.close()


def test_a_value_beyond_the_range_is_found_where_it_is_read(tmp_path, spec, monkeypatch):
    monkeypatch.setattr(pages, "WHOLE_BYTES", 0)
    image = np.full((2000, 2000), 100, np.uint16)
    image[400, 400] = 300
    opened = OpenedFiles(write(tmp_path / "a.tif", image), spec())
    page = opened.page(0)
    page.read(0, 256, 0, 256)
    with pytest.raises(SegbenchError, match=r"values from 100 to 300"):
        page.read(256, 512, 256, 512)
    opened.close()


def test_a_page_of_another_kind_among_good_ones_is_told(tmp_path, spec):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(np.zeros((6, 7), np.uint8), metadata=None)
        writer.write(np.zeros((6, 7, 3), np.uint8), metadata=None, photometric="rgb")
    with pytest.raises(SegbenchError, match=r"a\.tif has 3 channels\n"):
        OpenedFiles({"em": tmp_path / "a.tif"}, spec())
