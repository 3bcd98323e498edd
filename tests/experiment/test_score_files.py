import cv2
import numpy as np
import pytest
import tifffile

from segbench.errors import SegbenchError
from segbench.experiment.score_files import read_slices, score_files
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
    np.testing.assert_array_equal(read_slices(tmp_path, "labels"), labels[::-1])


def test_a_folder_without_images_is_told(tmp_path):
    with pytest.raises(
        SegbenchError, match=r"no image in .*\(labels\)\n.*files ending in \.png, .*\n.*correct labels="
    ):
        read_slices(tmp_path, "labels")


def test_images_of_several_sizes_are_told(tmp_path):
    for name, size in (("a.png", 8), ("b.png", 9)):
        cv2.imwrite(str(tmp_path / name), np.zeros((size, size), np.uint8))
    with pytest.raises(SegbenchError, match=r"images of sizes \[\(8, 8\), \(9, 9\)\]"):
        read_slices(tmp_path, "labels")


def test_a_damaged_image_is_told(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(SegbenchError, match=r"a\.png cannot be decoded\n.*a whole image"):
        read_slices(tmp_path, "predictions")


def test_a_missing_file_names_its_key(tmp_path):
    with pytest.raises(SegbenchError, match=r"no file .*p\.tif\n.*\n.*set predictions to"):
        read_slices(tmp_path / "p.tif", "predictions")
