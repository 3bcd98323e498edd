import numpy as np
import pytest
import tifffile
from speed import large_image

from segbench.data.files.image_files import read_image


def test_the_drawn_image_is_a_tiled_8_bit_tiff(tmp_path):
    large_image._write_image(tmp_path / "a.tif", 700)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.pages[0].is_tiled
    image = read_image(tmp_path / "a.tif")
    assert (image.shape, image.dtype) == ((700, 700, 1), np.uint8)
    assert image.std() > 10


def rows_for(monkeypatch, figures):
    monkeypatch.setattr(large_image, "_measured", lambda side: figures[side])
    return large_image.large_image()


def figures(seconds_a_megapixel, gib):
    return {
        side: {"seconds": side**2 / 1e6 * s, "cpu_seconds": side**2 / 1e6, "peak_bytes": gib * 2**30}
        for side, s in zip(large_image.SIDES, seconds_a_megapixel, strict=True)
    }


def test_a_constant_rate_under_the_bound_is_met(monkeypatch):
    rows = rows_for(monkeypatch, figures((0.5, 0.52, 0.54), 2))
    assert [row.met for row in rows] == [True] * 3
    assert rows[2].ratio == pytest.approx(0.5 / 0.54)
    assert "1.852 Mpixel/s" in rows[2].note


@pytest.mark.parametrize(("seconds", "gib"), [((0.5, 0.5, 0.6), 2), ((0.5, 0.5, 0.5), 7)])
def test_a_falling_rate_and_too_much_memory_are_missed(monkeypatch, seconds, gib):
    assert not any(row.met for row in rows_for(monkeypatch, figures(seconds, gib)))


@pytest.mark.slow
def test_the_peak_is_that_of_a_tile(monkeypatch):
    peaks = [large_image._measured(side)["peak_bytes"] for side in (2000, 6000)]
    # A page of up to 512 MiB is laid out in memory; 36 million probabilities are 137 MiB, the image is 34.
    assert peaks[1] - peaks[0] < 300 * 2**20
    assert peaks[1] < 2 * 2**30
