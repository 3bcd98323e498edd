import io

import cv2
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from PIL import Image

from segbench.data.files.labelled import (
    LabelMap,
    paired,
    read_depth,
    read_grey,
    read_indices,
    read_mat,
    read_rgb,
    write_indices,
)
from segbench.errors import SegbenchError

NOISE = np.random.default_rng(0).integers(0, 256, (12, 16, 3)).astype(np.uint8)


def png(array):
    return cv2.imencode(".png", array)[1].tobytes()


def jpeg():
    return cv2.imencode(".jpg", NOISE)[1].tobytes()


def test_colours_are_r_g_b_and_grey_gets_three_channels(tmp_path):
    (tmp_path / "a.png").write_bytes(png(NOISE))
    (tmp_path / "b.png").write_bytes(png(NOISE[..., 0]))
    np.testing.assert_array_equal(read_rgb(tmp_path / "a.png", "a"), NOISE[..., ::-1])
    np.testing.assert_array_equal(read_rgb(tmp_path / "b.png", "b"), NOISE[..., :1].repeat(3, axis=2))


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (read_rgb, jpeg()[:-40], "its end is missing"),
        (read_rgb, b"", "cannot be decoded"),
        (read_rgb, b"\xff\xd8" + bytes(300) + b"\xff\xda\xff\xd9", "no image, or damaged inside"),
        (read_depth, png(NOISE[..., 0].astype(np.uint16))[:-20], "its end is missing"),
        (read_depth, png(NOISE[..., 0]), "uint8 of shape (12, 16)\n  expected: one 16-bit channel"),
        (read_grey, png(NOISE), "uint8 of shape (12, 16, 3)\n  expected: one 8-bit or 16-bit channel"),
        (read_indices, png(NOISE[..., 0])[:-30], "cannot be decoded"),
        (read_indices, b"no picture", "cannot be decoded"),
        (read_indices, png(NOISE), "uint8 of shape (12, 16, 3)\n  expected: an 8-bit palette or grey PNG"),
        (read_indices, None, "cannot be read: No such file"),
        (read_rgb, None, "cannot be read: No such file"),
    ],
)
def test_bad_files_are_named_with_their_image(tmp_path, read, content, message):
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SegbenchError) as caught:
        read(path, "x")
    assert caught.value.found.startswith(f"{path}, of image x, ") and message in str(caught.value)


def test_ids_keep_their_values_and_depth(tmp_path):
    ids = np.array([[0, 1, 300]], np.uint16)
    cv2.imwrite(str(tmp_path / "a.tif"), ids)
    np.testing.assert_array_equal(read_grey(tmp_path / "a.tif", "a"), ids)
    cv2.imwrite(str(tmp_path / "a.png"), ids)
    np.testing.assert_array_equal(read_depth(tmp_path / "a.png", "a"), ids)


def test_indices_come_back_and_are_drawn_in_their_colours(tmp_path):
    label = np.array([[0, 1], [2, 0]], np.uint8)
    write_indices(tmp_path / "new" / "a.png", label, ((0, 0, 0), (128, 0, 0), (0, 128, 0)))
    np.testing.assert_array_equal(read_indices(tmp_path / "new" / "a.png", "a"), label)
    with Image.open(tmp_path / "new" / "a.png") as image:
        colours = np.asarray(image.convert("RGB")).reshape(-1, 3).tolist()
    assert colours == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [0, 0, 0]]


def test_bad_mat_files_are_named_with_their_image(tmp_path):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"S": np.eye(30)}, do_compression=True)
    np.testing.assert_array_equal(read_mat(path, "a", "S"), np.eye(30))
    good = path.read_bytes()
    with pytest.raises(SegbenchError, match=r"a\.mat, of image a, has no variable GTcls"):
        read_mat(path, "a", "GTcls")
    for content in (good[: len(good) // 2], b"MATLAB", b"", bytes(500)):
        path.write_bytes(content)
        with pytest.raises(SegbenchError, match=r"a\.mat, of image a, (cannot|has no)"):
            read_mat(path, "a", "S")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
def test_ids_become_classes_and_void(tmp_path, dtype):
    to_classes = LabelMap(classes=3, first=1, void=(0, 9))
    assert to_classes(np.array([[0, 1, 3, 9]], dtype), tmp_path, "x").tolist() == [[255, 0, 2, 255]]
    with pytest.raises(SegbenchError, match=r"of image x, has label ids 4\n.*class ids 1 to 3, void 0 or 9"):
        to_classes(np.array([[1, 4]], dtype), tmp_path, "x")


def test_labels_of_another_kind_are_refused(tmp_path):
    to_classes = LabelMap(classes=3, void=(-1,))
    assert to_classes(np.array([[-1, 2]]), tmp_path, "x").tolist() == [[255, 2]]
    for label, message in (
        (np.zeros((2, 2, 3), np.uint8), r"a label of shape \(2, 2, 3\)"),
        (np.array([["a"]]), "type <U1"),
        (np.array([[0.5]]), r"label ids 0\.5"),
        (np.array([[-2, 256]]), "label ids -2, 256"),
    ):
        with pytest.raises(SegbenchError, match=message):
            to_classes(label, tmp_path, "x")


def test_a_label_without_change_is_not_copied(tmp_path):
    label = np.array([[0, 20, 255]], np.uint8)
    assert LabelMap(classes=21)(label, tmp_path, "x") is label
    with pytest.raises(SegbenchError, match="label ids 21, 254"):
        LabelMap(classes=21)(np.array([[21, 254]], np.uint8), tmp_path, "x")


def test_an_image_and_labels_of_different_size_are_refused():
    with pytest.raises(SegbenchError, match="image x differs in size: rgb 12 x 16, semantic 16 x 12"):
        paired({"rgb": NOISE}, {"semantic": np.zeros((16, 12), np.uint8)}, "x")


def test_structures_and_cells_of_matlab_come_whole(tmp_path):
    parts = np.array([np.eye(2), np.zeros((0, 0))], object)
    truth = {"Segmentation": np.eye(5, dtype=np.uint8), "Boundaries": parts, "Name": "a"}
    for packed in (False, True):
        scipy.io.savemat(tmp_path / "a.mat", {"S": np.eye(3), "GTcls": truth, "z": 1 + 2j}, do_compression=packed)
        read = read_mat(tmp_path / "a.mat", "a", "GTcls")
        np.testing.assert_array_equal(read["Segmentation"][0, 0], np.eye(5))
        np.testing.assert_array_equal(read["Boundaries"][0, 0][0, 0], np.eye(2))
    scipy.io.savemat(tmp_path / "a.mat", {"S": np.eye(3), "t": "text"}, format="4")
    np.testing.assert_array_equal(read_mat(tmp_path / "a.mat", "a", "S"), np.eye(3))


@pytest.mark.parametrize("version", ["4", "5"])
@pytest.mark.parametrize("sparse", [False, True])
def test_a_mat_file_with_anything_inside_is_read_or_named(tmp_path, version, sparse):
    path, file = tmp_path / "a.mat", io.BytesIO()
    pixels = np.arange(12.0).reshape(3, 4)
    content = {"S": scipy.sparse.csc_matrix(pixels) if sparse else pixels, "t": "text"}
    scipy.io.savemat(file, content if version == "4" else content | {"s": {"a": np.eye(2)}}, format=version)
    rng = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(file.getvalue())
        place = 4 * int(rng.integers(0 if version == "4" else 30, len(damaged) // 4))
        damaged[place : place + 4] = int(rng.choice([0, 1, 15, 127, 2**31, 2**32 - 1])).to_bytes(4, "little")
        path.write_bytes(damaged)
        try:
            read_mat(path, "a", "S")
        except SegbenchError as error:
            assert "a.mat, of image a" in error.found


def test_a_mat_file_that_inflates_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("segbench.data.files.mat.FREE", 2**18)
    monkeypatch.setenv("SEGBENCH_LARGEST_FILE", str(2**18))
    scipy.io.savemat(tmp_path / "a.mat", {"S": np.zeros(2**17)}, do_compression=True)
    with pytest.raises(SegbenchError, match=r"a\.mat declares 262,145 bytes"):
        read_mat(tmp_path / "a.mat", "a", "S")
