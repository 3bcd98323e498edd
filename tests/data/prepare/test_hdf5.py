import hashlib
import tarfile

import cv2
import h5py
import numpy as np
import pytest
import scipy.io
import tifffile

from segbench.data.prepare.downloads import Listener
from segbench.data.prepare.hdf5 import convert_isbi, convert_nyudv2
from segbench.data.prepare.recipes import PARTS
from segbench.errors import SegbenchError


def official(path, count=2):
    """nyu_depth_v2_labeled.mat: MATLAB's axes reversed, depth in metres."""
    rng = np.random.default_rng(0)
    images = np.zeros((count, 3, 640, 480), np.uint8)
    images[:, 0, 50:, 60:] = 200  # red but for a frame
    images[-1, 2] = 77
    depths = np.full((count, 640, 480), 2.5504, np.float32)
    raw = depths.copy()
    raw[:, 100, 50] = 0
    labels = rng.integers(0, 895, (count, 640, 480)).astype(np.uint16)
    with h5py.File(path, "w") as file:
        file["images"], file["depths"], file["rawDepths"], file["labels"] = images, depths, raw, labels
        file["names"] = np.zeros((1, 894), np.uint64)
    return images, depths, raw, labels


def mapping(path):
    classes = np.random.default_rng(1).integers(1, 41, (1, 894)).astype(np.uint8)
    scipy.io.savemat(path, {"mapClass": classes})
    return classes.ravel()


def converted(name, part, *paths, root):
    """A part's files laid out in a root by its recipe."""
    PARTS[name][part].convert(paths, root, Listener())
    assert PARTS[name][part].is_ready(root)


def test_nyud_official(tmp_path):
    from segbench.data.nyudv2 import NYUDv2

    images, _, raw_metres, labels = official(tmp_path / "labeled.mat")
    classes = mapping(tmp_path / "map.mat")
    root = tmp_path / "new"
    converted("nyudv2", "official", tmp_path / "labeled.mat", tmp_path / "map.mat", root=root)
    dataset = NYUDv2(root, modalities=["rgb", "depth"], depth="rawdepth", partial=True)
    # 5001 and 5002 are test images; the crop of Gupta et al. starts at row 45 and column 40.
    raw = dataset.split("test").read(dataset.split("test").ids.index("5002"))
    np.testing.assert_array_equal(raw.images["rgb"], images[1].transpose(2, 1, 0)[45:470, 40:600])
    label = labels[1].T[45:470, 40:600]
    expected = np.where(label == 0, 255, classes[label.astype(int) - 1].astype(int) - 1)
    np.testing.assert_array_equal(raw.labels["semantic"], expected)
    millimetres = np.rint(raw_metres[1].T[45:470, 40:600] * 1000)
    assert millimetres[50 - 45, 100 - 40] == 0 and raw.images["depth"][5, 60] == np.float32(7.844)
    np.testing.assert_allclose(raw.images["depth"][6:], np.log(2550), rtol=1e-6)
    with pytest.raises(SegbenchError, match=r"modality hha reads"):
        NYUDv2(root, modalities=["hha"], partial=True)


def test_nyud_official_bad_input(tmp_path):
    official(tmp_path / "labeled.mat", 1)
    mapping(tmp_path / "map.mat")
    (tmp_path / "cut.mat").write_bytes((tmp_path / "labeled.mat").read_bytes()[:5000])
    with pytest.raises(SegbenchError, match=r"cut\.mat \(5000 bytes\) cannot be read as HDF5"):
        convert_nyudv2(tmp_path / "cut.mat", tmp_path / "map.mat", tmp_path)
    with h5py.File(tmp_path / "other.mat", "w") as file:
        file["images"] = np.zeros((1, 3, 4))
    with pytest.raises(SegbenchError, match=r"images is \(1, 3, 4\); at the top level are images"):
        convert_nyudv2(tmp_path / "other.mat", tmp_path / "map.mat", tmp_path)
    scipy.io.savemat(tmp_path / "map.mat", {"mapClass": np.ones((1, 9), np.uint8)})
    with pytest.raises(SegbenchError, match="labels to 9"):
        convert_nyudv2(tmp_path / "labeled.mat", tmp_path / "map.mat", tmp_path / "root")
    assert not (tmp_path / "root" / "data").exists(), "nothing half made is left where a data set is looked for"
    (tmp_path / "root" / "data").mkdir()
    with pytest.raises(SegbenchError, match="exists"):
        convert_nyudv2(tmp_path / "labeled.mat", tmp_path / "map.mat", tmp_path / "root")


def test_the_crop_and_the_map_on_the_real_first_image(shared_data):
    meta, layout = shared_data("nyudv2", "meta"), shared_data("nyudv2", "fcn_layout")
    with tarfile.open(meta / "nyuv2_test_class40.tgz") as archive:
        content = archive.extractfile("new_nyu_class40_0001.png").read()
    whole = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    released = cv2.imread(str(layout / "segmentation_png/img_5001.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(whole[45:470, 40:600], released)
    digest = hashlib.sha256((meta / "classMapping40.mat").read_bytes()).hexdigest()
    assert PARTS["nyudv2"]["official"].remotes[1].digest == f"sha256:{digest}"


@pytest.mark.parametrize("cell", [0, 1], ids=["membranes are 1", "membranes are 0"])
def test_isbi_from_its_mirror(tmp_path, drawn_isbi, cell):
    from segbench.data.isbi_em import IsbiEM

    volume = tifffile.imread(drawn_isbi / "train-volume.tif")
    labels = tifffile.imread(drawn_isbi / "train-labels.tif")
    with h5py.File(tmp_path / "isbi.h5", "w") as file:
        file["raw"] = volume
        file["labels/membranes"] = (labels > 0) == cell
        file["labels/gt_segmentation"] = labels.astype(np.uint32)
    converted("isbi_em", "train", tmp_path / "isbi.h5", root=tmp_path / "new")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "new" / "train-labels.tif"), labels)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "new" / "train-volume.tif"), volume)
    assert len(IsbiEM(tmp_path / "new").split("test")) == 6


def test_isbi_labels_that_are_no_membranes(tmp_path):
    with h5py.File(tmp_path / "isbi.h5", "w") as file:
        file["raw"] = (100 + 50 * np.eye(4, dtype=np.uint8))[np.newaxis]
        file["labels/membranes"] = np.eye(4, dtype=np.uint8)[np.newaxis]
    with pytest.raises(SegbenchError, match=r"label 0 covers 75% and is darker"):
        convert_isbi(tmp_path / "isbi.h5", tmp_path)
