import itertools

import numpy as np
import pytest
import tifffile

from segbench.data.isbi_em import FOLDS, SLICES, IsbiEM
from segbench.errors import SegbenchError


def write(path, stack):
    tifffile.imwrite(path, stack, photometric="minisblack", metadata=None)


def numbers(source):
    return [int(id.removeprefix("train-")) for id in source.ids]


def slices(dataset):
    return {name: numbers(dataset.split(name)) for name in ("train", "val", "test")}


def test_default_trains_on_0_to_20_selects_on_21_to_23_and_reports_24_to_29(drawn_isbi):
    dataset = IsbiEM(drawn_isbi)
    assert slices(dataset) == {"train": [*range(21)], "val": [21, 22, 23], "test": [*range(24, 30)]}
    assert dataset.split("predict") is None
    assert dataset.spec.protocol.startswith("default: train 0-20, val 21-23, test 24-29")
    assert dataset.spec.dependence == "slices of one stack"


def test_all_trains_on_every_slice_and_predicts_the_test_volume(drawn_isbi):
    dataset = IsbiEM(drawn_isbi, protocol="all")
    assert numbers(dataset.split("train")) == [*range(SLICES)]
    assert dataset.split("val") is dataset.split("test") is None
    volume = dataset.split("predict")
    assert volume.ids == tuple(f"test-{number:02d}" for number in range(30))
    assert volume.read(3).labels == {}
    np.testing.assert_array_equal(volume.read(3).images["em"], tifffile.imread(drawn_isbi / "test-volume.tif")[3])
    assert "no held-out score" in dataset.spec.protocol


@pytest.mark.parametrize("fold", range(FOLDS))
def test_a_fold_shares_every_slice_out_once(drawn_isbi, fold):
    parts = slices(IsbiEM(drawn_isbi, fold=fold))
    assert [len(part) for part in parts.values()] == [21, 3, 6]
    assert sorted(itertools.chain(*parts.values())) == [*range(SLICES)]
    assert parts["test"] == [*range(6 * fold, 6 * fold + 6)]


def test_the_folds_test_every_slice_once(drawn_isbi):
    tested = [number for fold in range(FOLDS) for number in slices(IsbiEM(drawn_isbi, fold=fold))["test"]]
    assert tested == [*range(SLICES)]


@pytest.mark.parametrize(("fold", "val"), [(0, [6, 7, 8]), (3, [24, 25, 26]), (4, [0, 1, 2])])
def test_a_fold_selects_on_the_first_slices_of_the_next(drawn_isbi, fold, val):
    assert slices(IsbiEM(drawn_isbi, fold=fold))["val"] == val


def test_the_protocol_of_a_fold_is_told(drawn_isbi):
    assert IsbiEM(drawn_isbi, fold=1).spec.protocol.startswith(
        "fold 1 of 5: train 0-5 and 15-29, val 12-14, test 6-11; held-out training data"
    )


def test_a_slice_is_read_with_membrane_0_and_cell_1(drawn_isbi):
    raw = IsbiEM(drawn_isbi).split("test").read(2)
    assert raw.id == "train-26"
    np.testing.assert_array_equal(raw.images["em"], tifffile.imread(drawn_isbi / "train-volume.tif")[26])
    np.testing.assert_array_equal(raw.labels["semantic"], tifffile.imread(drawn_isbi / "train-labels.tif")[26] // 255)
    assert raw.images["em"].dtype == raw.labels["semantic"].dtype == np.uint8


def test_labels_0_and_1_are_as_good_as_0_and_255(isbi):
    labels = tifffile.imread(isbi / "train-labels.tif") // 255
    write(isbi / "train-labels.tif", labels)
    np.testing.assert_array_equal(IsbiEM(isbi).split("train").read(5).labels["semantic"], labels[5])


def test_a_missing_root_says_what_belongs_there(tmp_path):
    with pytest.raises(
        SegbenchError,
        match=r"no folder .*nowhere \(data\.root\)\n.*train-volume\.tif, train-labels\.tif.*\n.*data\.root=",
    ):
        IsbiEM(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["train-volume.tif", "train-labels.tif"])
def test_a_missing_file_is_named(isbi, name):
    (isbi / name).unlink()
    with pytest.raises(SegbenchError, match=rf"no file .*{name}; beside it: .*\n.*a TIFF stack\n.*correct data\.root"):
        IsbiEM(isbi)


def test_under_all_a_missing_test_volume_is_told_before_training(isbi):
    (isbi / "test-volume.tif").unlink()
    IsbiEM(isbi)
    with pytest.raises(SegbenchError, match=r"no file .*test-volume\.tif"):
        IsbiEM(isbi, protocol="all")


@pytest.mark.parametrize("name", ["train-volume.tif", "train-labels.tif"])
def test_a_truncated_file_is_refused(isbi, name):
    whole = (isbi / name).read_bytes()
    (isbi / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SegbenchError, match=rf"{name} .*cannot be read as TIFF.*\n.*whole TIFF stack\n.*fetch"):
        IsbiEM(isbi)


def test_a_file_that_is_no_tiff_is_refused(isbi):
    (isbi / "train-labels.tif").write_text("<html>404</html>")
    with pytest.raises(SegbenchError, match=r"train-labels\.tif \(16 bytes\) cannot be read as TIFF"):
        IsbiEM(isbi)


@pytest.mark.parametrize("shape", [(29, 64, 64), (30, 64, 32)], ids=["length", "size"])
def test_labels_of_another_shape_are_refused(isbi, shape):
    write(isbi / "train-labels.tif", tifffile.imread(isbi / "train-labels.tif")[: shape[0], :, : shape[2]])
    found = rf"train-labels\.tif is \({', '.join(map(str, shape))}\), .*train-volume\.tif is \(30, 64, 64\)"
    with pytest.raises(SegbenchError, match=rf"{found}\n.*same height and width.*\n.*one release"):
        IsbiEM(isbi)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([0, 127, 255], "3 label values: 0, 127, 255"),
        ([0], "1 label value: 0"),
        ([128, 255], "2 label values: 128, 255"),
    ],
)
def test_labels_of_other_than_two_values_are_refused(isbi, values, found):
    labels = np.resize(np.array(values, np.uint8), (30, 64, 64))
    write(isbi / "train-labels.tif", labels)
    with pytest.raises(SegbenchError, match=rf"has {found}\n.*two, 0 = membrane.*\n.*challenge's label file"):
        IsbiEM(isbi)


def test_an_instance_map_is_refused_with_some_of_its_values(isbi):
    write(isbi / "train-labels.tif", np.resize(np.arange(20, dtype=np.uint8), (30, 64, 64)))
    with pytest.raises(SegbenchError, match=r"20 label values: 0, 1, 2, 3, 4, 5, 6, 7 \.\.\."):
        IsbiEM(isbi)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_other_than_8_bit_is_refused(isbi, dtype):
    write(isbi / "train-volume.tif", tifffile.imread(isbi / "train-volume.tif").astype(dtype))
    with pytest.raises(SegbenchError, match=rf"train-volume\.tif is {np.dtype(dtype)} .*\n.*8-bit grey.*\n.*own file"):
        IsbiEM(isbi)


def test_a_colour_volume_is_refused(isbi):
    tifffile.imwrite(isbi / "train-volume.tif", np.zeros((30, 64, 64, 3), np.uint8), photometric="rgb")
    with pytest.raises(SegbenchError, match=r"of shape \(30, 64, 64, 3\)\n.*8-bit grey"):
        IsbiEM(isbi)


def test_a_part_of_the_volume_only_serves_to_train_on_all(isbi):
    for name in ("train-volume.tif", "train-labels.tif"):
        write(isbi / name, tifffile.imread(isbi / name)[:20])
    with pytest.raises(SegbenchError, match=r"with 20 slices\n.*30 slices\n.*data\.protocol=all"):
        IsbiEM(isbi)
    assert len(IsbiEM(isbi, protocol="all").split("train")) == 20


def test_an_unknown_protocol_is_refused(drawn_isbi):
    with pytest.raises(SegbenchError, match=r"data\.protocol=paper\n.*default or all\n.*data\.fold=0\.\.4"):
        IsbiEM(drawn_isbi, protocol="paper")


@pytest.mark.parametrize(("fold", "protocol"), [(5, "default"), (-1, "default"), (0, "all")])
def test_a_fold_outside_0_to_4_or_beside_all_is_refused(drawn_isbi, fold, protocol):
    with pytest.raises(
        SegbenchError, match=rf"data\.fold={fold} with data\.protocol={protocol}\n.*0 to 4.*\n.*data\.fold"
    ):
        IsbiEM(drawn_isbi, protocol, fold)
