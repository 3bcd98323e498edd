"""Histogram matching: by hand, beside ranks and scikit-image, in strips, and what is refused."""

import numpy as np
import pytest
import tifffile
from scipy.stats import rankdata
from skimage.exposure import match_histograms

from segbench.errors import SegbenchError
from segbench.prediction import histogram
from segbench.prediction.histogram import matched, read_reference
from segbench.prediction.pages import Page


def page_of(image, empty_HW=None, name="em"):
    return Page(
        image.shape[:2],
        lambda y0, y1, x0, x1: {name: image[y0:y1, x0:x1]},
        lambda y0, y1, x0, x1: None if empty_HW is None else empty_HW[y0:y1, x0:x1],
    )


def whole(page):
    return next(iter(page.read(0, page.size[0], 0, page.size[1]).values()))


@pytest.fixture
def reference(tmp_path, spec):
    """`reference(*images, of=...)`: that of a folder of images."""

    def read(*images, of="em", **options):
        folder = tmp_path / "trained"
        folder.mkdir()
        for number, image in enumerate(images):
            tifffile.imwrite(folder / f"{number}.tif", image, metadata=None, **options)
        return read_reference(folder, spec(of))

    return read


def drawn(dtype, low, high, shape=(40, 50), seed=0):
    values = np.random.default_rng(seed).beta(2, 5, shape) * (high - low) + low
    return values.astype(dtype)


def test_four_pixels_by_hand(reference):
    # Shares of 1, 2, 4: 1/4, 5/8, 7/8; of 10, 20: 1/4, 3/4. Linear between: 5/8 lies at three quarters of the way.
    image = np.array([[1, 1], [2, 4]], np.uint8)
    found = whole(matched(page_of(image), reference(np.array([[10, 20]], np.uint8))))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[10, 10], [17.5, 20]])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_an_image_that_was_shifted_and_scaled_is_had_back(reference, dtype):
    original = drawn(np.uint8, 0, 100)
    found = whole(matched(page_of((original * 2.0 + 30).astype(dtype)), reference(original)))
    np.testing.assert_allclose(found, original, atol=1e-4)


def test_it_is_monotonic_and_inverts_with_the_images(reference, tmp_path, spec):
    image, wanted = drawn(np.uint8, 20, 90), drawn(np.uint8, 0, 255, seed=1)
    found = whole(matched(page_of(image), reference(wanted)))
    order = np.argsort(image, axis=None, kind="stable")
    assert (np.diff(found.reshape(-1)[order]) >= 0).all()
    tifffile.imwrite(tmp_path / "inverted.tif", 255 - wanted)
    inverted = read_reference(tmp_path / "inverted.tif", spec())
    np.testing.assert_allclose(whole(matched(page_of(255 - image), inverted)), 255 - found, atol=1e-4)


def test_shares_are_average_ranks(reference):
    image, wanted = drawn(np.uint8, 20, 90), drawn(np.uint8, 0, 255, (30, 20), seed=1)
    shares = (rankdata(image, axis=None) - 0.5) / image.size
    order = np.argsort(wanted, axis=None)
    ranks = (rankdata(wanted, axis=None)[order] - 0.5) / wanted.size
    distinct = np.unique(ranks, return_index=True)[1]
    expected = np.interp(shares, ranks[distinct], wanted.reshape(-1)[order][distinct])
    found = whole(matched(page_of(image), reference(wanted)))
    np.testing.assert_allclose(found.reshape(-1), expected, atol=1e-4)


def test_many_levels_are_matched_as_by_scikit_image(reference):
    # It counts all pixels at a value where half of them count here: of little weight where each value is rare.
    image, wanted = drawn(np.uint16, 500, 60000, (200, 200)), drawn(np.uint8, 0, 255, (200, 200), seed=1)
    found = whole(matched(page_of(image), reference(wanted)))
    np.testing.assert_allclose(found, match_histograms(image, wanted), atol=1.5)


def test_each_channel_gets_its_own(reference):
    image = np.stack([drawn(np.uint8, 10 * c, 100 + 10 * c, seed=c) for c in range(3)], axis=-1)
    wanted = np.stack([drawn(np.uint8, 0, 250 - 50 * c, seed=9 + c) for c in range(3)], axis=-1)
    found = whole(matched(page_of(image, name="rgb"), reference(wanted, of="rgb", photometric="rgb")))
    assert found.shape == (40, 50, 3)
    for channel in range(3):
        theirs = histogram._distribution(wanted[..., channel].reshape(-1))
        ours = histogram._distribution(image[..., channel].reshape(-1))
        expected = np.interp(np.interp(image[..., channel], ours.values, ours.shares), theirs.shares, theirs.values)
        np.testing.assert_allclose(found[..., channel], expected, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_strips_and_parts_are_the_whole(reference, monkeypatch, dtype):
    image, wanted = drawn(dtype, 20, 90), reference(drawn(np.uint8, 0, 255, seed=1))
    monkeypatch.setattr(histogram, "_SAMPLE", 300)
    expected = whole(matched(page_of(image), wanted))
    monkeypatch.setattr(histogram, "_STRIP", 150)
    monkeypatch.setattr(histogram, "_HELD", 40)
    page = matched(page_of(image), wanted)
    np.testing.assert_array_equal(page.read(7, 19, 3, 41)["em"], expected[7:19, 3:41])
    np.testing.assert_array_equal(whole(page), expected)


def test_a_sample_is_bounded_and_near_the_whole(reference, monkeypatch):
    original = drawn(np.float32, 0, 100, (200, 200))
    monkeypatch.setattr(histogram, "_SAMPLE", 4000)
    wanted = reference(original)
    (channel,) = wanted.channels
    # The step 10 shares a factor with the width.
    assert channel.counts.sum() == -(-200 * 200 // 11)
    np.testing.assert_allclose(whole(matched(page_of(original * 2 + 30), wanted)), original, atol=6)


def test_pixels_without_data_neither_count_nor_change(reference):
    original = drawn(np.uint8, 0, 100)
    image, empty_HW = original * 2 + 30, np.zeros((40, 50), bool)
    image[10:, 20:], empty_HW[10:, 20:] = 77, True
    kept = np.where(empty_HW, 0, 1).astype(bool)
    found = matched(page_of(image, empty_HW), reference(original[kept][None]))
    np.testing.assert_allclose(whole(found)[kept], original[kept], atol=1e-4)
    assert (whole(found)[empty_HW] == 77).all() and found.empty(0, 40, 0, 50)[39, 49]


def test_pages_without_data_or_of_one_value(reference):
    wanted = reference(np.array([[10, 20, 30]], np.uint8))
    nothing = page_of(np.full((3, 4), 5, np.uint8), np.ones((3, 4), bool))
    assert (whole(matched(nothing, wanted)) == 5).all()
    assert (whole(matched(page_of(np.full((3, 4), 99, np.uint8)), wanted)) == 20).all()


def test_all_images_of_a_folder_and_all_pages_count_together(reference, tmp_path, spec):
    pages = drawn(np.uint8, 0, 255, (4, 20, 20))
    folder = reference(pages[:3], pages[3], photometric="minisblack")
    tifffile.imwrite(tmp_path / "all.tif", pages, photometric="minisblack", metadata=None)
    stack = read_reference(tmp_path / "all.tif", spec())
    assert folder.images == stack.images == 4 and folder.digest == stack.digest
    assert folder.channels[0].counts.sum() == 1600


def test_what_is_no_reference_is_refused(tmp_path, spec):
    def refused(path, match, of=("em",)):
        with pytest.raises(SegbenchError, match=rf"(?s)match_histogram={path}.*{match}"):
            read_reference(path, spec(*of))

    refused(tmp_path / "none.tif", "no such file\n.*trained on\n.*correct the path")
    refused(tmp_path, "no image\n.*images of em, grey level, 0 to 255\n")
    tifffile.imwrite(tmp_path / "a.tif", np.full((4, 4), 7, np.uint8))
    refused(tmp_path / "a.tif", "channel 0 is 7 everywhere\n.*at least two grey values\n")
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((4, 4, 3), np.uint8), photometric="rgb")
    refused(tmp_path / "b.tif", "b.tif has 3 channels\n.*1 \\(em, grey level")
    tifffile.imwrite(tmp_path / "c.tif", np.random.default_rng(0).random((4, 4), np.float32))
    refused(tmp_path / "c.tif", "c.tif holds values from")
    refused(tmp_path / "a.tif", "modalities rgb, depth\n.*one modality\n", ("rgb", "depth"))
