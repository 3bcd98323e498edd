import os

import cv2
import numpy as np
import pytest
import scipy.io
from PIL import Image

from segbench.data.id_lists import shipped
from segbench.data.pascal_voc import CLASSES, SERVER_PATH, PascalVOC, voc_palette
from segbench.errors import SegbenchError


def opened(voc, **settings):
    return PascalVOC(voc, **({"partial": True} | settings))


def test_the_palette_is_the_official_one():
    # As printed on the challenge's page: aeroplane maroon, person light pink, tvmonitor blue, void cream.
    palette = voc_palette(256)
    assert [palette[k] for k in (0, 1, 15, 20, 255)] == [
        (0, 0, 0),
        (128, 0, 0),
        (192, 128, 128),
        (0, 64, 128),
        (224, 224, 192),
    ]
    assert CLASSES[1] == "aeroplane" and CLASSES[15] == "person" and CLASSES[20] == "tvmonitor"


def test_the_papers_protocol(voc):
    dataset = opened(voc)
    assert dataset.split("train").ids == ("2008_000001", "2008_000002", "2008_000003", "2008_000004")
    assert dataset.split("test").ids == shipped("pascal_seg11valid")[:4]
    assert dataset.split("val") is None and dataset.split("predict") is None
    protocol = dataset.spec.protocol
    assert protocol == "seg11valid: train sbd_train 4, test seg11valid 4 of 736 (data.partial); VOC 2011"
    rgb = dataset.spec.modalities["rgb"]
    assert (rgb.mean, rgb.std) == ((122.67892, 116.66877, 104.00699), (1, 1, 1))
    assert dataset.spec.heads["semantic"].num_classes == 21


def test_seg11valid_whole(tmp_path, voc):
    # 736 names of one picture.
    folder = voc / "VOCdevkit" / "VOC2012"
    for place, suffix in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
        first = folder / place / f"{shipped('pascal_seg11valid')[0]}.{suffix}"
        for name in shipped("pascal_seg11valid")[4:]:
            os.link(first, folder / place / f"{name}.{suffix}")
    dataset = PascalVOC(voc, year=2012)
    assert len(dataset.split("test")) == 736
    assert dataset.spec.protocol == "seg11valid: train sbd_train 4, test seg11valid 736; VOC 2012"


def test_images_are_rgb_and_labels_are_indices(voc):
    name = shipped("pascal_seg11valid")[0]
    folder = voc / "TrainVal" / "VOCdevkit" / "VOC2011"
    red = np.zeros((12, 16, 3), np.uint8)
    red[..., 2] = 250  # OpenCV writes B, G, R
    cv2.imwrite(str(folder / "JPEGImages" / f"{name}.jpg"), red)
    label = np.arange(192, dtype=np.uint8).reshape(12, 16) % 21
    label[3] = 255
    from segbench.data.files.labelled import write_indices

    write_indices(folder / "SegmentationClass" / f"{name}.png", label, voc_palette(256))
    raw = opened(voc).split("test").read(0)
    assert raw.id == name
    assert raw.images["rgb"].shape == (12, 16, 3)
    assert abs(raw.images["rgb"].astype(int) - [250, 0, 0]).max() <= 4
    np.testing.assert_array_equal(raw.labels["semantic"], label)


def test_sbd_labels_come_from_their_mat(voc):
    raw = opened(voc).split("train").read(1)
    expected = scipy.io.loadmat(voc / "benchmark_RELEASE/dataset/cls/2008_000002.mat")["GTcls"]["Segmentation"][0, 0]
    np.testing.assert_array_equal(raw.labels["semantic"], expected)
    assert raw.labels["semantic"].dtype == np.uint8


@pytest.mark.parametrize("year", [2011, 2012])
def test_the_plain_protocols(voc, year):
    dataset = PascalVOC(voc, protocol=f"voc{year}")
    assert dataset.split("train").ids == tuple(f"{year}_00000{n}" for n in range(1, 5))
    assert dataset.spec.protocol == f"voc{year}: train voc{year}_train 4, test voc{year}_val 4; VOC {year}"
    sizes = {dataset.split("train").read(index).images["rgb"].shape for index in range(4)}
    assert sizes == {(12, 16, 3), (15, 16, 3)}


def official_lists(voc):
    """Lists of the published lengths that share images as the published ones do, of images that are not there."""
    ids = [f"2009_{k:06}" for k in range(12_031)]
    # 11,355 of SBD, 345 of VOC train beside them, and without 1,118 of VOC val: 10,582. 331 of VOC val are not in SBD.
    sbd, train_alone, val_alone = ids[:11_355], ids[11_355:11_700], ids[11_700:12_031]
    val = [*sbd[:1118], *val_alone]
    train = [*sbd[1118 : 1118 + 1464 - 345], *train_alone]
    for folder, lists in (
        (voc / "benchmark_RELEASE/dataset", {"train": sbd[:8498], "val": sbd[8498:]}),
        (voc / "VOCdevkit/VOC2012/ImageSets/Segmentation", {"train": train, "val": val}),
    ):
        for name, listed in lists.items():
            (folder / f"{name}.txt").write_text("".join(f"{each}\n" for each in listed))
    return {"train": train, "val": val, "sbd": sbd}


def test_trainaug_has_its_official_number_of_images(voc):
    lists = official_lists(voc)
    assert [len(lists[name]) for name in ("train", "val", "sbd")] == [1464, 1449, 11_355]
    with pytest.raises(SegbenchError, match=r"train trainaug in .*: 10582 of 10582 images lack their files"):
        PascalVOC(voc, protocol="trainaug")
    path = voc / "benchmark_RELEASE/dataset/val.txt"
    path.write_text(path.read_text().split("\n", 1)[1])
    with pytest.raises(SegbenchError, match=r"trainaug has 10581 images by the lists(.|\n)*expected: 10582: SBD train"):
        PascalVOC(voc, protocol="trainaug")


def test_trainaug_reads_the_labels_of_both_in_their_formats(voc):
    with (voc / "benchmark_RELEASE/dataset/train.txt").open("a") as file:
        file.write("2012_000002\n")
    dataset = opened(voc, protocol="trainaug")
    assert dataset.spec.protocol == (
        "trainaug: train trainaug 8, test voc2012_val 4; VOC 2012; trainaug has VOC's labels for 4 images and SBD's "
        "for 4, of lists with 8 images instead of 10582"
    )
    train = dataset.split("train")
    for index, name in enumerate(train.ids):
        raw = train.read(index)
        sbd = voc / "benchmark_RELEASE/dataset/cls" / f"{name}.mat"
        # In both lists: VOC's label.
        if name.startswith("2012"):
            with Image.open(voc / f"VOCdevkit/VOC2012/SegmentationClass/{name}.png") as image:
                expected = np.asarray(image)
            assert (raw.labels["semantic"] == 255).any()
        else:
            expected = scipy.io.loadmat(sbd)["GTcls"]["Segmentation"][0, 0]
        np.testing.assert_array_equal(raw.labels["semantic"], expected)
    with pytest.raises(SegbenchError, match=r"data\.train=trainaug and data\.test=seg11valid share \d+ of 736"):
        (voc / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").write_text("2012_000009\n")
        opened(voc, train="trainaug")


def test_a_leak_is_refused_with_its_number(voc):
    valid = shipped("pascal_seg11valid")
    (voc / "benchmark_RELEASE/dataset/train.txt").write_text("\n".join(("2008_000001", *valid[:3])))
    with pytest.raises(SegbenchError, match=r"data\.train=sbd_train and data\.test=seg11valid share 3 of 736 images"):
        opened(voc)
    with pytest.raises(SegbenchError, match=r"sbd_train and data\.test=voc2012_val share 3 of 4 images"):
        opened(voc, test="voc2012_val")


def test_a_list_of_ones_own(voc, tmp_path):
    names = (*shipped("pascal_seg11valid")[:2], "2008_000001")
    own = tmp_path / "own.txt"
    # Two columns, as lists of file pairs have them.
    own.write_text("".join(f"{name} label/{name}.png\n" for name in names))
    dataset = PascalVOC(voc, protocol="voc2012", test=str(own))
    assert [raw.id for raw in map(dataset.split("test").read, range(3))] == list(names)


def test_held_out_images_are_not_trained_on(voc):
    dataset = opened(voc, hold_out=1)
    train, val = dataset.split("train").ids, dataset.split("val").ids
    assert len(train) == 3 and len(val) == 1 and not set(train) & set(val)
    assert "1 of train held out for selection" in dataset.spec.protocol
    with pytest.raises(SegbenchError, match=r"data\.hold_out=4 of 4 training images"):
        opened(voc, hold_out=4)


def test_images_to_predict_have_no_label(voc):
    lists = voc / "TrainVal/VOCdevkit/VOC2011/ImageSets/Segmentation"
    (lists / "test.txt").write_text("2011_000001\n")
    raw = opened(voc).split("predict").read(0)
    assert raw.id == "2011_000001" and not raw.labels


def test_the_servers_archive_layout():
    # VOC 2012 development kit: results/VOC2012/Segmentation/comp6_test_cls/2008_000001.png
    said = SERVER_PATH.format(year=2012, competition="comp6", id="2008_000001")
    assert said == "results/VOC2012/Segmentation/comp6_test_cls/2008_000001.png"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"protocol": "voc2010"}, r"data\.protocol=voc2010"),
        ({"test": "nowhere.txt"}, r"no file nowhere\.txt \(data\.test\)"),
        (
            {"partial": False},
            r"seg11valid in .*: 732 of 736 images lack their files, first 2007_\d+.*data\.partial=true",
        ),
    ],
)
def test_bad_settings(voc, settings, message):
    with pytest.raises(SegbenchError, match=f"(?s){message}"):
        opened(voc, **settings)


def test_bad_files_are_named_with_their_image(voc):
    folder = voc / "TrainVal" / "VOCdevkit" / "VOC2011"
    name = shipped("pascal_seg11valid")[0]
    png = folder / "SegmentationClass" / f"{name}.png"
    test = opened(voc).split("test")
    for label, message in (
        (np.full((15, 16), 21, np.uint8), rf"{name}\.png, of image {name}, has label ids 21"),
        (np.zeros((16, 15), np.uint8), rf"image {name} differs in size: rgb 15 x 16, semantic 16 x 15"),
    ):
        cv2.imwrite(str(png), label)
        with pytest.raises(SegbenchError, match=message):
            test.read(0)


def test_mat_files_of_another_layout_are_refused(voc):
    path = voc / "benchmark_RELEASE/dataset/cls/2008_000001.mat"
    train = opened(voc).split("train")
    for content, message in (
        ({"GTinst": {"Segmentation": np.zeros((12, 16), np.uint8)}}, "has no variable GTcls"),
        ({"GTcls": {"Other": 1}}, "GTcls has no field Segmentation"),
        ({"GTcls": {"Segmentation": np.full((12, 16), 33, np.uint8)}}, "has label ids 33"),
    ):
        scipy.io.savemat(path, content)
        with pytest.raises(SegbenchError, match=message):
            train.read(0)


def test_real_sample(shared_data):
    root = shared_data("voc2012")
    dataset = PascalVOC(root, protocol="voc2012", test="seg11valid", partial=True)
    assert (len(dataset.split("train")), len(dataset.split("test"))) == (40, 229)
    for index in range(0, 229, 40):
        raw = dataset.split("test").read(index)
        with Image.open(root / "VOCdevkit/VOC2012/JPEGImages" / f"{raw.id}.jpg") as image:
            # Two decoders, one picture.
            assert abs(np.asarray(image).astype(int) - raw.images["rgb"]).max() <= 4
        with Image.open(root / "VOCdevkit/VOC2012/SegmentationClass" / f"{raw.id}.png") as image:
            np.testing.assert_array_equal(np.asarray(image), raw.labels["semantic"])
            assert tuple(image.getpalette()[: 3 * 21]) == tuple(np.array(voc_palette()).ravel())
