import cv2
import numpy as np
import pytest
import tifffile

from segbench.data.files.labelled import write_indices
from segbench.errors import SegbenchError
from segbench.experiment.score_files import read_labels, read_probabilities, score_files
from segbench.metrics import challenge_scores
from segbench.runs.directory import Run


@pytest.fixture
def labels():
    """Two slices of two cells each."""
    labels = np.zeros((2, 32, 32), np.uint8)
    labels[:, 4:14, 4:28] = labels[:, 18:28, 4:28] = 255
    return labels


@pytest.fixture
def score(tmp_path, labels, compose):
    """`score(prob)`: results.json of probabilities against `labels`."""

    def scored(prob):
        tifffile.imwrite(tmp_path / "labels.tif", labels, photometric="minisblack")
        tifffile.imwrite(tmp_path / "prob.tif", prob, photometric="minisblack")
        given = (f"predictions={tmp_path / 'prob.tif'}", f"labels={tmp_path / 'labels.tif'}")
        score_files(compose(*given, config="evaluate"), tmp_path / "evaluation", [])
        return Run(tmp_path / "evaluation").results()

    return scored


def test_perfect_predictions_have_no_error(score, labels):
    metrics = score((labels / 255).astype(np.float32))["metrics"]
    assert (metrics["pixel_error"], metrics["rand_error"], metrics["warping_error"]) == (0, 0, 0)


def test_the_scores_are_those_of_the_library(score, labels, capsys):
    prob = np.random.default_rng(0).random(labels.shape, np.float32) * 0.5 + labels / 510
    prob = prob.astype(np.float32)
    results = score(prob)
    assert results["metrics"] == challenge_scores(prob, labels).values()
    assert results["protocol"]["split"].startswith("2 slices of ")
    table = capsys.readouterr().out
    assert f"{results['metrics']['pixel_error']:.4f}" in table


def test_a_folder_of_images_is_read_in_the_order_of_names(tmp_path, labels):
    labels[1] = 0
    for name, page in zip(("b.png", "a.png"), labels, strict=True):
        cv2.imwrite(str(tmp_path / name), page)
    np.testing.assert_array_equal(read_labels(tmp_path), labels[::-1])


def test_a_folder_without_images_is_told(tmp_path):
    with pytest.raises(
        SegbenchError, match=r"no image in .*\(labels\)\n.*files ending in \.png, .*\n.*correct labels="
    ):
        read_labels(tmp_path)


def test_images_of_several_sizes_are_told(tmp_path):
    for name, size in (("a.png", 8), ("b.png", 9)):
        cv2.imwrite(str(tmp_path / name), np.zeros((size, size), np.uint8))
    with pytest.raises(SegbenchError, match=r"images of sizes \[\(8, 8\), \(9, 9\)\]"):
        read_labels(tmp_path)


def test_a_damaged_image_is_told(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(SegbenchError, match=r"a\.png cannot be decoded \(6 bytes\): .*\n.*a whole image file"):
        read_probabilities(tmp_path)


def test_a_missing_file_names_its_key(tmp_path):
    with pytest.raises(SegbenchError, match=r"no file .*p\.tif\n.*\n.*set predictions to"):
        read_probabilities(tmp_path / "p.tif")


PALETTE = ((0, 0, 0), (200, 0, 0), (0, 0, 200))
"""Colours whose blue, or red, is that of black."""


def writers():
    def palette(path, labels_HW):
        write_indices(path, labels_HW, PALETTE)

    def grey(path, labels_HW):
        cv2.imwrite(str(path), labels_HW)

    def three_channels(path, labels_HW):
        cv2.imwrite(str(path), np.repeat(labels_HW[..., None], 3, axis=2))

    def deep(path, labels_HW):
        cv2.imwrite(str(path), labels_HW.astype(np.uint16) * 257)

    def palette_tiff(path, labels_HW):
        colours = np.zeros((3, 256), np.uint16)
        colours[:, : len(PALETTE)] = np.array(PALETTE, np.uint16).T * 257
        tifffile.imwrite(path, labels_HW, photometric="palette", colormap=colours, metadata=None)

    def rgb_tiff(path, labels_HW):
        tifffile.imwrite(path, np.repeat(labels_HW[..., None], 3, axis=2), photometric="rgb", metadata=None)

    yield from (
        pytest.param(write, suffix, id=f"{write.__name__}{suffix}")
        for write, suffixes in (
            (palette, (".png",)),
            (grey, (".png", ".bmp", ".tif")),
            (three_channels, (".png", ".bmp", ".tif")),
            (deep, (".png", ".tif")),
            (palette_tiff, (".tif",)),
            (rgb_tiff, (".tif",)),
        )
        for suffix in suffixes
    )


@pytest.mark.parametrize("alone", [True, False], ids=["file", "folder"])
@pytest.mark.parametrize(("write", "suffix"), [*writers()])
def test_labels_of_every_coding_tell_cells_from_membrane(tmp_path, write, suffix, alone):
    labels_HW = np.array([[0, 1, 2], [2, 0, 1]], np.uint8)
    write(tmp_path / f"a{suffix}", labels_HW)
    read_NHW = read_labels(tmp_path / f"a{suffix}" if alone else tmp_path)
    np.testing.assert_array_equal(read_NHW != 0, labels_HW[None] != 0)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_colours_are_neither_labels_nor_probabilities(tmp_path, suffix):
    bgr_HW3 = np.array(PALETTE, np.uint8)[np.array([[0, 1], [2, 0]])][..., ::-1]
    cv2.imwrite(str(tmp_path / f"a{suffix}"), bgr_HW3)
    told = (
        rf"a\{suffix} \(labels\) holds colours: #000000, #0000c8, #c80000\n.*0 = membrane.*\n.*8-bit PNG of 0 and 255"
    )
    with pytest.raises(SegbenchError, match=told):
        read_labels(tmp_path)
    with pytest.raises(SegbenchError, match=r"\(predictions\) is a colour image\n.*one value per pixel.*\n.*predict"):
        read_probabilities(tmp_path)


def test_labels_that_a_compression_blurs_are_refused(tmp_path, labels):
    cv2.imwrite(str(tmp_path / "a.jpg"), labels[0])
    with pytest.raises(SegbenchError, match=r"a\.jpg is a JPEG, whose compression changes"):
        read_labels(tmp_path / "a.jpg")


def test_values_between_labels_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((4, 4), 0.5, np.float32))
    with pytest.raises(
        SegbenchError, match=r"16 values that are not integers, such as 0\.5\n.*\n.*give masks, not prob"
    ):
        read_labels(tmp_path / "a.tif")


def test_grey_predictions_of_three_channels_are_read(tmp_path):
    prob_HW = np.random.default_rng(0).random((4, 5), np.float32)
    tifffile.imwrite(tmp_path / "a.tif", np.repeat(prob_HW[..., None], 3, axis=2), photometric="rgb")
    np.testing.assert_array_equal(read_probabilities(tmp_path), prob_HW[None])


def test_a_stack_among_single_images_is_told(tmp_path, labels):
    tifffile.imwrite(tmp_path / "a.tif", labels, photometric="minisblack")
    with pytest.raises(SegbenchError, match=r"a\.tif has 2 pages\n.*one page in each file.*\n.*set labels=.*a\.tif"):
        read_labels(tmp_path)


@pytest.mark.parametrize(("nodata", "lacking"), [("255", 255), ("0", 0)])
def test_labels_without_data_are_refused_as_the_scores_know_no_void(tmp_path, labels, nodata, lacking):
    declared = labels.copy()
    declared[0, :2] = lacking
    tags = [(42113, "s", 0, nodata, False)]
    tifffile.imwrite(tmp_path / "labels.tif", declared, photometric="minisblack", extratags=tags)
    count = int((declared == lacking).sum())
    with pytest.raises(SegbenchError, match=rf"labels\.tif \(labels\) declares {count} of its pixels as no data"):
        read_labels(tmp_path / "labels.tif")
    tags = [(42113, "s", 0, "77", False)]
    tifffile.imwrite(tmp_path / "labels.tif", labels, photometric="minisblack", extratags=tags)
    np.testing.assert_array_equal(read_labels(tmp_path / "labels.tif"), labels)


@pytest.mark.parametrize(
    "idle", ["tta=d4", "threads=2", "data.root=X", "trainer=cpu", "+x=1", "split=val", "logger=wandb"]
)
def test_what_does_nothing_where_files_are_scored_is_refused(call, tmp_path, monkeypatch, idle):
    monkeypatch.chdir(tmp_path)
    code, _, said = call("evaluate", "predictions=p.tif", "labels=l.tif", "hydra.run.dir=scored", idle)
    assert code == 1
    assert f"{idle} with predictions=p.tif" in said
