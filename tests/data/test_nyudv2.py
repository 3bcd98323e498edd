import shutil

import cv2
import numpy as np
import pytest
import scipy.io

from segbench.data.id_lists import shipped
from segbench.data.nyudv2 import CLASSES, LOG_DEPTH_MEAN, NYUDv2, log_depth, nyud_palette
from segbench.errors import SegbenchError


def opened(nyud, **settings):
    return NYUDv2(nyud, **({"partial": True} | settings))


def test_log_depth():
    # ln 1 = 0; ln 2550 = 7.844 to three digits, which is why the release's depth is in millimetres.
    logs = log_depth(np.array([[0, 1, 2550, 65535]], np.uint16))
    np.testing.assert_allclose(logs, [[LOG_DEPTH_MEAN, 0, np.log(2550), np.log(65535)]], rtol=1e-6)
    assert abs(logs[0, 2] - LOG_DEPTH_MEAN) < 1e-3 and logs.dtype == np.float32


def test_classes_and_palette():
    assert len(CLASSES) == 40 and CLASSES[0] == "wall" and CLASSES[39] == "otherprop"
    assert len(set(nyud_palette())) == 40


def test_trainval_and_its_two_halves(nyud):
    whole = opened(nyud)
    assert whole.split("train").ids == (*shipped("nyud_train")[:2], *shipped("nyud_val")[:2])
    assert whole.split("val") is None and len(whole.split("test")) == 2
    assert whole.spec.protocol == "trainval: train 4 of 795 (data.partial), test 2 of 654 (data.partial); rgb"
    halves = opened(nyud, protocol="train_val")
    assert [halves.split(name).ids for name in ("train", "val", "test")] == [
        shipped(f"nyud_{name}")[:2] for name in ("train", "val", "test")
    ]
    assert len(opened(nyud, hold_out=1).split("val")) == 1


def test_arrays_of_every_modality(nyud):
    dataset = opened(nyud, modalities=["rgb", "depth", "hha"])
    raw = dataset.split("test").read(1)
    name = shipped("nyud_test")[1]
    assert raw.id == name and list(raw.images) == ["rgb", "depth", "hha"]
    bgr = cv2.imread(str(nyud / "data/images" / f"img_{name}.png"))
    np.testing.assert_array_equal(raw.images["rgb"], bgr[..., ::-1])
    hha = cv2.imread(str(nyud / "data/hha" / f"img_{name}.png"))
    np.testing.assert_array_equal(raw.images["hha"], hha[..., ::-1])
    depth = cv2.imread(str(nyud / "data/depth" / f"img_{name}.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_allclose(raw.images["depth"], np.log(depth), rtol=1e-6)
    label = scipy.io.loadmat(nyud / "segmentation" / f"img_{name}.mat")["segmentation"].astype(int)
    np.testing.assert_array_equal(raw.labels["semantic"], np.where(label == 0, 255, label - 1))
    assert raw.labels["semantic"][0, :3].tolist() == [255, 0, 39]


def test_raw_depth_has_its_holes_at_the_mean(nyud):
    dataset = opened(nyud, modalities=["depth"], depth="rawdepth")
    depth = dataset.split("train").read(0).images["depth"]
    assert (depth[0] == np.float32(LOG_DEPTH_MEAN)).all() and np.isfinite(depth).all()
    assert dataset.spec.protocol.endswith("depth; depth from data/rawdepth")


def test_means_of_the_release(nyud):
    modalities = opened(nyud, modalities=["hha", "rgb", "depth"]).spec.modalities
    # nyud_layers.py: BGR (116.190, 97.203, 92.318), HHA as stored, ln depth 7.844.
    assert list(modalities) == ["hha", "rgb", "depth"]
    assert modalities["rgb"].mean == (92.318, 97.203, 116.190)
    assert modalities["hha"].mean == (132.431, 94.076, 118.477)
    assert modalities["depth"].mean == (7.844,)


def test_a_folder_above_is_good_too(nyud):
    assert len(opened(nyud.parent).split("test")) == 2


def test_png_labels(nyud):
    for path in list((nyud / "segmentation").glob("*.mat")):
        label = scipy.io.loadmat(path)["segmentation"]
        path.unlink()
        cv2.imwrite(str(path.with_suffix(".png")), label)
    assert opened(nyud).split("test").read(0).labels["semantic"][0, :3].tolist() == [255, 0, 39]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modalities": ["rgb", "flow"]}, r"data\.modalities=\['rgb', 'flow'\]"),
        ({"modalities": []}, r"data\.modalities=\[\]"),
        ({"modalities": ["rgb", "rgb"]}, "each once"),
        ({"protocol": "all"}, r"data\.protocol=all"),
        ({"depth": "filled"}, r"data\.depth=filled"),
        ({"protocol": "train_val", "hold_out": 1}, r"data\.hold_out=1 with data\.protocol=train_val"),
        ({"partial": False}, r"791 of 795 images lack their files"),
    ],
)
def test_bad_settings(nyud, settings, message):
    with pytest.raises(SegbenchError, match=message):
        opened(nyud, **settings)


def test_a_missing_modality_is_told(nyud, tmp_path):
    shutil.rmtree(nyud / "data" / "hha")
    assert opened(nyud, modalities=["rgb", "depth"])
    with pytest.raises(SegbenchError, match=r"(?s)no img_\*\.png in .*hha.*remove hha from data\.modalities"):
        opened(nyud, modalities=["rgb", "hha"])
    with pytest.raises(SegbenchError, match="run segbench data prepare nyudv2"):
        NYUDv2(tmp_path / "none")


def test_bad_files_are_named_with_their_image(nyud):
    dataset = opened(nyud, modalities=["rgb", "depth"])
    name = shipped("nyud_test")[0]

    def refuses(message):
        with pytest.raises(SegbenchError, match=message) as caught:
            dataset.split("test").read(0)
        assert name in caught.value.found

    path = nyud / "segmentation" / f"img_{name}.mat"
    good = path.read_bytes()
    scipy.io.savemat(path, {"segmentation": np.full((12, 16), 41, np.uint8)})
    refuses("label ids 41")
    scipy.io.savemat(path, {"segmentation": np.full((12, 16), 0.5)})
    refuses(r"label ids 0\.5")
    scipy.io.savemat(path, {"segmentation": np.zeros((12, 16, 3), np.uint8)})
    refuses(r"label of shape \(12, 16, 3\)")
    scipy.io.savemat(path, {"segmentation": np.zeros((16, 12), np.uint8)})
    refuses("rgb 12 x 16, depth 12 x 16, semantic 16 x 12")
    path.write_bytes(good)
    depth = nyud / "data/depth" / f"img_{name}.png"
    cv2.imwrite(str(depth), np.zeros((12, 16), np.uint8))
    refuses("one 16-bit channel")
    depth.write_bytes(depth.read_bytes()[:-20])
    refuses("its end is missing")


def test_real_sample(shared_data, tmp_path):
    layout = shared_data("nyudv2", "fcn_layout")
    (tmp_path / "data").symlink_to(layout / "data")
    (tmp_path / "segmentation").symlink_to(layout / "segmentation_png")
    dataset = opened(tmp_path, modalities=["rgb", "depth", "hha"])
    raw = dataset.split("test").read(0)
    assert dataset.split("train") is None and raw.id == "5001"
    assert {array.shape[:2] for array in (*raw.images.values(), *raw.labels.values())} == {(425, 560)}
    # 1.8 to 3.6 metres.
    np.testing.assert_allclose(np.exp([raw.images["depth"].min(), raw.images["depth"].max()]), [1800, 3616], rtol=1e-4)
    assert 0 < (raw.labels["semantic"] == 255).mean() < 0.1
