import json
import logging
import re

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from segbench.data.augment import Augmentation
from segbench.data.image_folder import ImageFolder
from segbench.data.prepare.check import check
from segbench.data.sampler import Draw
from segbench.data.tiles import TrainTiles
from segbench.errors import SegbenchError
from segbench.spec import DatasetSpec, collate


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def noise(*shape, dtype=np.uint8, seed=0):
    high = {np.uint8: 256, bool: 2}.get(dtype, 60000)
    return np.random.default_rng(seed).integers(0, high, shape).astype(dtype)


def halves(height=12, width=16, values=(0, 255)):
    mask = np.full((height, width), values[0], np.uint8)
    mask[:, width // 2 :] = values[1]
    return mask


@pytest.fixture
def folder(tmp_path):
    """`folder(count, image, mask)`: pairs 00, 01 ... written by functions of (path without suffix, number)."""

    def make(
        count=6,
        image=lambda path, k: cv2.imwrite(f"{path}.png", noise(12, 16, 3, seed=k)),
        mask=lambda path, k: cv2.imwrite(f"{path}.png", halves()),
    ):
        for name, write in (("images", image), ("masks", mask)):
            (tmp_path / name).mkdir(exist_ok=True)
            for k in range(count):
                write(tmp_path / name / f"{k:02d}", k)
        return {"images": str(tmp_path / "images"), "masks": str(tmp_path / "masks")}

    return make


def pages_of(dataset):
    sources = [source for name in ("train", "val", "test") if (source := dataset.split(name)) is not None]
    return {source.ids[k]: source.read(k) for source in sources for k in range(len(source))}


IMAGES = {
    "grey png": (lambda k: noise(12, 16, seed=k), "png", "value, 0 to 255"),
    "rgb png": (lambda k: noise(12, 16, 3, seed=k), "png", "value, 0 to 255"),
    "rgba png": (lambda k: noise(12, 16, 4, seed=k), "png", "value, 0 to 255"),
    "16-bit png": (lambda k: noise(12, 16, dtype=np.uint16, seed=k), "png", "value, 0 to 65535"),
    "16-bit tiff": (lambda k: noise(12, 16, dtype=np.uint16, seed=k), "tif", "value, 0 to 65535"),
    "16-bit rgb tiff": (lambda k: noise(12, 16, 3, dtype=np.uint16, seed=k), "tif", "value, 0 to 65535"),
    "seven channels": (lambda k: noise(12, 16, 7, seed=k), "tif", "value, 0 to 255"),
    "float": (lambda k: noise(12, 16, seed=k).astype(np.float32) / 7 - 9, "tif", "value, float32"),
    "double": (lambda k: noise(12, 16, seed=k).astype(np.float64) / 7 - 9, "tif", "value, float64"),
    "signed": (lambda k: noise(12, 16, dtype=np.int16, seed=k) // 4 - 99, "tif", "value, -32768 to 32767"),
    "one bit": (lambda k: noise(12, 16, dtype=bool, seed=k), "tif", "value, 0 or 1"),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_images_of_every_kind(folder, kind):
    make, suffix, unit = IMAGES[kind]

    def write(path, k):
        if suffix == "png":
            Image.fromarray(make(k)).save(f"{path}.png")
        else:
            photometric = "rgb" if kind == "16-bit rgb tiff" else "minisblack"
            tifffile.imwrite(f"{path}.tif", make(k), photometric=photometric, planarconfig="contig")

    dataset = ImageFolder(**folder(6, write))
    modality = dataset.spec.modalities["image"]
    images = {f"{k:02d}": np.asarray(make(k)).reshape(12, 16, -1) for k in range(6)}
    assert (modality.channels, modality.unit) == (images["00"].shape[2], unit)
    training = np.stack([images[name] for name in dataset.split("train").ids]).astype(np.float64)
    assert modality.mean == pytest.approx(training.mean((0, 1, 2)), rel=1e-12)
    assert modality.std == pytest.approx(training.std((0, 1, 2)), rel=1e-12)
    for name, raw in pages_of(dataset).items():
        read = raw.images["image"]
        assert read.dtype in (np.uint8, np.uint16, np.float32)
        np.testing.assert_array_equal(read.reshape(12, 16, -1), images[name].astype(read.dtype))
        np.testing.assert_array_equal(raw.labels["semantic"], halves() // 255)


@pytest.mark.parametrize("kind", IMAGES)
def test_every_kind_goes_through_augmentation_in_tiles_larger_and_smaller(folder, kind):
    import albumentations

    make, _, _ = IMAGES[kind]
    write = lambda path, k: tifffile.imwrite(  # noqa: E731
        f"{path}.tif", make(k), photometric="minisblack", planarconfig="contig"
    )
    dataset = ImageFolder(**folder(6, write))
    flips = Augmentation([albumentations.D4(p=1.0)])
    for tile in (8, 32):
        tiles = TrainTiles(dataset.split("train"), dataset.spec, flips, seed=0, tile=tile)
        sample = tiles[Draw(0)]
        modality = dataset.spec.modalities["image"]
        scale = torch.tensor(modality.mean)[:, None, None], torch.tensor(modality.std)[:, None, None]
        image = collate([sample]).normalised({"image": scale}).images["image"][0]
        assert image.shape == (modality.channels, tile, tile)
        assert image.dtype == torch.float32 and image.isfinite().all() and image.abs().max() < 40
        assert set(sample.targets["semantic"].unique().tolist()) <= {0, 1}


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_images(folder, tmp_path, mode):
    paths = folder(6, lambda path, k: Image.fromarray(noise(12, 16, 3, seed=k)).convert(mode).save(f"{path}.jpg"))
    raw = pages_of(ImageFolder(**paths))["03"].images["image"]
    with Image.open(tmp_path / "images" / "03.jpg") as reference:
        assert np.abs(raw.astype(int) - np.asarray(reference)).max() <= 3


PALETTE = [(0, 0, 0), (200, 0, 0), (0, 200, 0)]
IDS = np.array([[0, 1, 2], [2, 1, 0]], np.uint8).repeat(6, 0).repeat(5, 1)


def write_palette(path, k):
    image = Image.fromarray(IDS)
    image.putpalette([value for colour in PALETTE for value in colour])
    image.save(f"{path}.png")


MASKS = {
    "ids": lambda path, k: cv2.imwrite(f"{path}.png", IDS),
    "16-bit tiff": lambda path, k: tifffile.imwrite(f"{path}.tif", IDS.astype(np.uint16)),
    "float tiff": lambda path, k: tifffile.imwrite(f"{path}.tif", IDS.astype(np.float32)),
    "palette": write_palette,
    "colours": lambda path, k: Image.fromarray(np.array(PALETTE, np.uint8)[IDS]).save(f"{path}.png"),
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks_of_every_kind_give_the_same_labels(folder, kind):
    dataset = ImageFolder(**folder(4, lambda path, k: cv2.imwrite(f"{path}.png", noise(12, 15)), MASKS[kind]))
    head = dataset.spec.heads["semantic"]
    # As numbers, green (0x00c800) comes before red (0xc80000).
    order = [0, 2, 1] if kind == "colours" else [0, 1, 2]
    for raw in pages_of(dataset).values():
        np.testing.assert_array_equal(np.array(order)[raw.labels["semantic"]], IDS)
    if kind in ("palette", "colours"):
        assert head.palette == tuple(PALETTE[k] for k in order)
    assert head.class_names == (("black", "#00c800", "#c80000") if kind == "colours" else ("0", "1", "2"))


def test_void(folder):
    def mask(path, k):
        values = halves(values=(3, 9))
        values[0] = 7
        cv2.imwrite(f"{path}.png", values)

    dataset = ImageFolder(**folder(4, mask=mask), ignore_index=7)
    assert dataset.spec.heads["semantic"].class_names == ("3", "9")
    label = pages_of(dataset)["00"].labels["semantic"]
    assert (label[0] == 255).all() and set(np.unique(label[1:])) == {0, 1}


def test_stacks_page_by_page_with_files_whole(folder):
    def image(path, k):
        tifffile.imwrite(f"{path}.tif", noise(3, 12, 16, seed=k), photometric="minisblack", metadata=None)

    def mask(path, k):
        tifffile.imwrite(f"{path}.tif", np.stack([halves()] * 2 + [255 - halves()]), photometric="minisblack")

    dataset = ImageFolder(**folder(5, image, mask))
    pages = pages_of(dataset)
    assert sorted(pages) == [f"{k:02d}-{page:04d}" for k in range(5) for page in range(3)]
    np.testing.assert_array_equal(pages["03-0002"].images["image"], noise(3, 12, 16, seed=3)[2])
    assert pages["03-0002"].labels["semantic"][0, 0] == 1 and pages["03-0001"].labels["semantic"][0, 0] == 0
    of_split = [{name[:2] for name in dataset.split(split).ids} for split in ("train", "val", "test")]
    assert sum(map(len, of_split)) == 5


def test_one_stack_in_blocks(tmp_path):
    tifffile.imwrite(tmp_path / "volume.tif", noise(10, 12, 16), photometric="minisblack")
    tifffile.imwrite(tmp_path / "labels.tif", np.stack([halves()] * 10), photometric="minisblack")
    dataset = ImageFolder(str(tmp_path / "volume.tif"), str(tmp_path / "labels.tif"), val=0.1, test=0.2)
    assert dataset.split("test").ids == ("volume-0008", "volume-0009")
    assert dataset.split("val").ids == ("volume-0007",)
    assert "by contiguous blocks of pages" in dataset.spec.protocol


def test_sizes_may_differ(folder):
    dataset = ImageFolder(
        **folder(
            4,
            lambda path, k: cv2.imwrite(f"{path}.png", noise(10 + k, 16)),
            lambda path, k: cv2.imwrite(f"{path}.png", halves(10 + k)),
        )
    )
    assert sorted(raw.images["image"].shape[0] for raw in pages_of(dataset).values()) == [10, 11, 12, 13]


def test_a_constant_channel_is_left_at_zero(folder):
    dataset = ImageFolder(**folder(4, lambda path, k: cv2.imwrite(f"{path}.png", np.full((12, 16), 200, np.uint8))))
    assert dataset.spec.modalities["image"].mean == (200.0,)
    assert dataset.spec.modalities["image"].std == (1.0,)


def test_no_test_split_and_lists(folder, tmp_path):
    paths = folder(6)
    dataset = ImageFolder(**paths, val=0, test=0)
    assert dataset.split("test") is None and dataset.split("predict") is None and len(dataset.split("train")) == 6
    (tmp_path / "train.txt").write_text("00\n01\n")
    (tmp_path / "test.txt").write_text("05.png\n")
    dataset = ImageFolder(**paths, lists=str(tmp_path))
    assert (dataset.split("train").ids, dataset.split("val"), dataset.split("test").ids) == (
        ("00", "01"),
        None,
        ("05",),
    )


def test_the_description_survives_json_and_tells_the_split(folder):
    spec = ImageFolder(**folder(6)).spec
    assert DatasetSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert spec.protocol.startswith("images of one's own, split by whole files, data.seed=0: train 4 (ids ")
    other = ImageFolder(**folder(6), seed=1).spec
    assert other.protocol != spec.protocol


def test_what_was_found_is_shown(folder, caplog):
    paths = folder(6)
    with caplog.at_level(logging.INFO):
        ImageFolder(**paths)
    shown = caplog.text
    assert "6 images (6 of 12 x 16), 3 channels of uint8" in shown
    assert "training images: mean 1" in shown
    assert "class  share of pixels  images" in shown
    assert "255            50.000%       6" in shown
    assert "scanned 12 files; the findings are kept in" in shown
    caplog.clear()
    with caplog.at_level(logging.INFO):
        ImageFolder(**paths)
    assert "all 12 files are unchanged since they were scanned, according to " in caplog.text
    name, pixels = paths["images"] + "/03.png", np.zeros((12, 16, 3), np.uint8)
    cv2.imwrite(name, pixels)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        ImageFolder(**paths)
    assert "scanned 1 file, 11 were known; the findings are kept in" in caplog.text


def test_the_check_reads_every_file(folder):
    report = check(ImageFolder(**folder(6)))
    assert report.faults == [] and sum(split.read for split in report.splits.values()) == 6


# Bad input


def test_unreadable_files_are_all_named(folder, tmp_path):
    paths = folder(6)
    (tmp_path / "images" / "01.png").write_bytes(b"")
    whole = (tmp_path / "masks" / "04.png").read_bytes()
    (tmp_path / "masks" / "04.png").write_bytes(whole[:50])
    with pytest.raises(SegbenchError, match=r"2 files cannot be used:\n.*01\.png .*0 bytes(.|\n)*04\.png.*50 bytes"):
        ImageFolder(**paths)
    cv2.imwrite(str(tmp_path / "images" / "01.png"), noise(12, 16, 3))
    (tmp_path / "masks" / "04.png").write_bytes(whole)
    assert len(pages_of(ImageFolder(**paths))) == 6


def test_an_image_and_its_mask_of_one_name_are_both_named(folder, tmp_path):
    paths = folder(4)
    for name in ("images", "masks"):
        (tmp_path / name / "01.png").write_bytes(b"")
    with pytest.raises(SegbenchError, match=r"2 files cannot be used:\n.*images/01\.png(.|\n)*masks/01\.png"):
        ImageFolder(**paths)


def test_masks_as_jpeg_are_refused_with_what_to_do(folder):
    paths = folder(4, mask=lambda path, k: cv2.imwrite(f"{path}.jpg", halves()))
    found = r"4 files cannot be used:\n.*00\.jpg is a JPEG(.|\n)*PNG or TIFF\n.*again as PNG"
    with pytest.raises(SegbenchError, match=found):
        ImageFolder(**paths)


def test_masks_of_another_size_are_listed(folder, tmp_path):
    paths = folder(6)
    cv2.imwrite(str(tmp_path / "masks" / "02.png"), halves(12, 15))
    with pytest.raises(
        SegbenchError, match=r"1 masks differ from .*\n    02: image 12 x 16, mask 12 x 15\n(.|\n)*pairs$"
    ):
        ImageFolder(**paths)
    cv2.imwrite(str(tmp_path / "masks" / "03.png"), halves(16, 12))
    with pytest.raises(SegbenchError, match=r"03: .*mask 16 x 12; rotated by 90 degrees\n(.|\n)*EXIF rotation"):
        ImageFolder(**paths)


def test_a_photograph_in_place_of_masks(folder):
    paths = folder(6, mask=lambda path, k: cv2.imwrite(f"{path}.png", noise(12, 16)))
    with pytest.raises(SegbenchError, match=r"masks/\d\d\.png has .*probably photographs"):
        ImageFolder(**paths)
    assert ImageFolder(**paths, classes={"background": 0, "object": "rest"}).spec.heads["semantic"].num_classes == 2


def test_one_class_only(folder):
    with pytest.raises(SegbenchError, match="one class only, 0"):
        ImageFolder(**folder(6, mask=lambda path, k: cv2.imwrite(f"{path}.png", halves(values=(0, 0)))))


def test_files_that_change_while_a_run_works_are_told(folder, tmp_path):
    dataset = ImageFolder(**folder(6))
    source = dataset.split("train")
    name = source.ids[0]
    cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), noise(12, 16))
    with pytest.raises(SegbenchError, match=rf"{name}\.png is uint8 of 1 channels\n.*uint8 of 3, as when"):
        source.read(0)
    cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), noise(12, 16, 3))
    cv2.imwrite(str(tmp_path / "masks" / f"{name}.png"), halves(values=(0, 9)))
    with pytest.raises(SegbenchError, match=f"the mask of {name} has values that no mask had"):
        source.read(0)


# Real images


def test_voc_as_a_folder_gives_voc(shared_data, tmp_path):
    from segbench.data.pascal_voc import voc_palette

    root = shared_data("voc2012", "VOCdevkit", "VOC2012")
    for name in ("JPEGImages", "SegmentationClass"):
        (tmp_path / name).mkdir()
    chosen = sorted((root / "JPEGImages").glob("2007_*.jpg"))[:20]
    for path in chosen:
        (tmp_path / "JPEGImages" / path.name).symlink_to(path)
        (tmp_path / "SegmentationClass" / f"{path.stem}.png").symlink_to(
            root / "SegmentationClass" / f"{path.stem}.png"
        )
    dataset = ImageFolder(str(tmp_path / "JPEGImages"), str(tmp_path / "SegmentationClass"), ignore_index=255)
    head = dataset.spec.heads["semantic"]
    assert head.palette == tuple(voc_palette()[int(name)] for name in head.class_names)
    ids = np.array([*map(int, head.class_names), *[255] * (256 - head.num_classes)])
    for name, raw in pages_of(dataset).items():
        with Image.open(root / "SegmentationClass" / f"{name}.png") as label:
            np.testing.assert_array_equal(ids[raw.labels["semantic"]], np.asarray(label))


def test_real_frames_and_instance_masks(shared_data, tmp_path):
    hela = shared_data("cell_tracking_challenge", "DIC-C2DH-HeLa")
    for name, folder, prefix in (("images", hela / "01", "t"), ("masks", hela / "01_ST" / "SEG", "man_seg")):
        (tmp_path / name).mkdir()
        for path in sorted(folder.glob("*.tif"))[:12]:
            (tmp_path / name / f"{path.stem.removeprefix(prefix)}.tif").symlink_to(path)
    given = {"background": 0, "cell": "rest"}
    dataset = ImageFolder(str(tmp_path / "images"), str(tmp_path / "masks"), classes=given)
    for name, raw in pages_of(dataset).items():
        cells = tifffile.imread(hela / "01_ST" / "SEG" / f"man_seg{name}.tif") > 0
        np.testing.assert_array_equal(raw.labels["semantic"], cells)


def objects(path, k):
    ids = np.zeros((12, 16), np.uint16)
    ids[2:6, 2:5], ids[2:6, 5:9], ids[8:10, 3:9] = 300, 7, 1 + k % 3
    ids[9, 14] = 40 if k % 2 else 0
    tifffile.imwrite(f"{path}.tif", ids)


def test_masks_of_objects_are_recognised_and_read_as_such(folder, caplog):
    with caplog.at_level(logging.INFO, "segbench"):
        plain = ImageFolder(**folder(mask=objects))
    assert "each value seems to be one object" in caplog.text and "experiment=image_objects" in plain.notes[-1]
    caplog.clear()
    with caplog.at_level(logging.INFO, "segbench"):
        dataset = ImageFolder(**folder(mask=objects), objects=True, border=1)
    head = dataset.spec.heads["semantic"]
    assert head.class_names == ("background", "object", "border") and len(head.palette) == 3
    shown = sum(np.bincount(raw.labels["semantic"].ravel(), minlength=3) for raw in pages_of(dataset).values())
    table = [line.split() for line in caplog.messages if line.startswith(("background ", "object ", "border "))]
    assert [row[1] for row in table] == [f"{share:.3%}" for share in shown / shown.sum()]
    assert dataset.split("train").class_counts().sum(0)[2] > 0
    assert not any("object" in note for note in dataset.notes)
    raw = pages_of(dataset)["00"]
    # Where two objects touch, one pixel of each is border.
    assert raw.labels["semantic"][3, 1:10].tolist() == [0, 1, 1, 2, 2, 1, 1, 1, 0]
    assert raw.instances[3, 1:10].tolist() == [0, 3, 3, 3, 2, 2, 2, 2, 0] and raw.instances.dtype == np.int32


def test_folds_and_groups_of_a_folder(folder):
    paths = folder(6)
    folds = [ImageFolder(**paths, folds=3, fold=k, test=0) for k in range(3)]
    assert sorted(name for each in folds for name in each.split("val").ids) == [f"{k:02d}" for k in range(6)]
    assert "fold 1 of 3 by whole files" in folds[1].spec.protocol
    for wrong in ({"fold": 1}, {"folds": 2, "fold": 0, "split": "folders"}, {"group": "0", "split": "folders"}):
        with pytest.raises(SegbenchError, match="leave one out"):
            ImageFolder(**paths, **wrong)


def test_folders_are_the_split_where_that_is_automatic(folder, tmp_path):
    folder(4)
    for kind in ("images", "masks"):
        for name, place in (("00", "train"), ("01", "train"), ("02", "val"), ("03", "test")):
            (tmp_path / kind / place).mkdir(exist_ok=True)
            (tmp_path / kind / f"{name}.png").rename(tmp_path / kind / place / f"{name}.png")
    paths = folder(0)
    dataset = ImageFolder(**paths, split="auto")
    assert {name: dataset.split(name).ids for name in ("train", "val", "test")} == {
        "train": ("train/00", "train/01"),
        "val": ("val/02",),
        "test": ("test/03",),
    }
    assert "by whole files" in ImageFolder(**paths).spec.protocol


def test_a_guessed_pairing_is_logged_and_in_the_protocol(folder, caplog):
    paths = folder(4, mask=lambda path, k: cv2.imwrite(f"{path}_label.png", halves()))
    with caplog.at_level(logging.INFO, "segbench"):
        dataset = ImageFolder(**paths)
    assert "masks are paired by * -> *_label (00.png with 00_label.png) as the names suggest" in caplog.text
    assert "; paired * -> *_label: train" in dataset.spec.protocol


def declaring(nodata, dtype=np.uint8, lacking=None, values=(1, 2)):
    """Writes masks of `values`, `lacking` in the first two rows, that declare `nodata`."""

    def write(path, k):
        mask = halves(values=values).astype(dtype)
        mask[:2] = float(nodata) if lacking is None else lacking
        tifffile.imwrite(f"{path}.tif", mask, extratags=[(42113, "s", 0, nodata, False)])

    return write


@pytest.mark.parametrize(
    ("nodata", "dtype"),
    [
        *[("255", np.uint8), ("0", np.uint8), ("-9999", np.int16), ("-9999", np.float32), ("nan", np.float32)],
        ("-3.4028234663852886e+38", np.float32),
    ],
)
def test_what_a_mask_declares_as_no_data_is_void(folder, nodata, dtype):
    dataset = ImageFolder(**folder(mask=declaring(nodata, dtype)))
    assert dataset.spec.heads["semantic"].class_names == ("1", "2")
    for raw in pages_of(dataset).values():
        assert (raw.labels["semantic"][:2] == 255).all() and raw.labels["semantic"][2:].max() == 1
    assert any("6 masks declare" in note and "void there, 192 pixels" in note for note in dataset.notes)
    assert dataset.split("train").class_counts()[0].tolist() == [80, 80]


def test_no_data_that_a_class_names_is_that_class(folder):
    paths = folder(mask=declaring("0", values=(0, 2)))
    with pytest.raises(SegbenchError, match="one class only, 2") as refused:
        ImageFolder(**paths)
    assert "masks declare 0 as no data" in str(refused.value)
    dataset = ImageFolder(**paths, classes={"ground": 0, "house": 2})
    assert np.unique(pages_of(dataset)["00"].labels["semantic"]).tolist() == [0, 1]
    assert any("data.classes names it, so it is a class" in note for note in dataset.notes)


def test_no_data_counts_only_in_the_files_that_declare_it(folder):
    def write(path, k):
        (declaring("1") if k % 2 else lambda path, k: tifffile.imwrite(f"{path}.tif", halves(values=(1, 2))))(path, k)

    raws = pages_of(ImageFolder(**folder(mask=write)))
    assert np.unique(raws["00"].labels["semantic"]).tolist() == [0, 1]
    assert np.unique(raws["01"].labels["semantic"]).tolist() == [1, 255]


def lacking(path, k):
    """An image whose first three rows, in every other file, have no data."""
    image = noise(12, 16, dtype=np.float32, seed=k)
    if k % 2:
        image[:3] = -9999
    tifffile.imwrite(f"{path}.tif", image, extratags=[(42113, "s", 0, "-9999", False)], metadata=None)


@pytest.mark.parametrize(
    "given", [{}, {"objects": True}, {"objects": True, "border": 0}, {"classes": {"a": 0, "b": "rest"}}]
)
def test_the_table_counts_what_a_training_gets(folder, caplog, given):
    paths = folder(image=lacking)
    for _ in range(2):
        # The second time from the cache.
        with caplog.at_level(logging.INFO, "segbench"):
            dataset = ImageFolder(**paths, **given)
        for name in ("train", "val", "test"):
            split = dataset.split(name)
            labels = [split.read(k).labels["semantic"] for k in range(len(split))]
            known = [np.bincount(label.ravel(), minlength=256)[: split.class_counts().shape[1]] for label in labels]
            assert split.class_counts().tolist() == np.array(known).tolist()
    assert re.search(r"^void +12\.500% +3$", "\n".join(caplog.messages), re.M)


def test_pixels_without_data_are_counted_again_when_the_image_changes(folder, tmp_path):
    paths = folder(image=lacking)
    assert sum(ImageFolder(**paths).split(name).class_counts().sum() for name in ("train", "val", "test")) == 1008
    tifffile.imwrite(tmp_path / "images" / "01.tif", noise(12, 16, dtype=np.float32))
    assert sum(ImageFolder(**paths).split(name).class_counts().sum() for name in ("train", "val", "test")) == 1056


def test_a_split_whose_images_lack_all_data_is_noted(folder, tmp_path):
    def empty(path, k):
        tifffile.imwrite(f"{path}.tif", np.full((12, 16), np.nan if k == 5 else k, np.float32))

    for name, ids in (("train", range(5)), ("val", [5])):
        (tmp_path / f"{name}.txt").write_text("".join(f"{k:02d}\n" for k in ids))
    dataset = ImageFolder(**folder(image=empty), lists=str(tmp_path))
    assert any("val has no labelled pixel" in note for note in dataset.notes)


def test_masks_that_fit_stored_photographs_are_not_to_be_turned(folder):
    from PIL import Image

    def turned(path, k):
        exif = Image.Exif()
        exif[274] = 6
        Image.fromarray(noise(12, 16, 3, seed=k)).save(f"{path}.jpg", exif=exif)

    paths = folder(image=turned)
    assert ImageFolder(**paths).split("train").sizes() == {(12, 16)}
    with pytest.raises(SegbenchError, match="rotated by 90 degrees") as refused:
        ImageFolder(**paths, exif="turn")
    assert "as they are stored with data.exif=ignore" in str(refused.value)
