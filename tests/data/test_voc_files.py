import pytest

from segbench.data.id_lists import shipped
from segbench.data.voc_files import VocFiles
from segbench.errors import SegbenchError


def test_no_data_says_how_to_get_it(tmp_path):
    with pytest.raises(SegbenchError, match="run segbench data prepare pascal_voc root="):
        VocFiles(tmp_path / "none")
    with pytest.raises(SegbenchError, match=r"(?s)no SBD in .*parts=sbd"):
        VocFiles(tmp_path).sbd()
    with pytest.raises(SegbenchError, match=r"(?s)no VOC2012 in .*parts=voc2012"):
        VocFiles(tmp_path).ids("voc2012_train", "data.train")


def test_2011_comes_first_and_2012_serves_where_it_is_alone(voc, tmp_path):
    assert (VocFiles(voc).year, VocFiles(voc, 2012).year) == (2011, 2012)
    (tmp_path / "VOC2012").mkdir()
    assert VocFiles(tmp_path).year == 2012
    with pytest.raises(SegbenchError, match=r"data\.year=2010"):
        VocFiles(voc, 2010)


def test_ids_of_every_kind_of_list(voc, tmp_path):
    files = VocFiles(voc)
    assert files.ids("seg11valid", "data.test") == shipped("pascal_seg11valid")
    assert files.ids("sbd_train", "data.train") == tuple(f"2008_00000{k}" for k in range(1, 5))
    assert files.ids("voc2012_train", "data.train") == tuple(f"2012_00000{k}" for k in range(1, 5))
    (tmp_path / "own.txt").write_text("2008_000001 label\n")
    assert files.ids(str(tmp_path / "own.txt"), "data.test") == ("2008_000001",)
    for name, message in (
        ("sbd", r"data\.train=sbd\n.*expected: seg11valid, sbd_train"),
        ("nowhere.txt", r"no file nowhere\.txt \(data\.train\)"),
        ("voc2011_trainval", r"no file .*trainval\.txt"),
    ):
        with pytest.raises(SegbenchError, match=message):
            files.ids(name, "data.train")


def test_a_list_brings_the_labels_of_its_own_release(voc):
    files = VocFiles(voc)
    name = shipped("pascal_seg11valid")[0]
    assert files.labels("sbd_train")["2008_000001"].suffix == ".mat"
    assert files.labels("seg11valid")[name].suffix == ".png" and "2008_000001" not in files.labels("seg11valid")
    own = files.labels("own.txt")
    assert (own["2008_000001"].suffix, own[name].suffix) == (".mat", ".png")
    assert {"2008_000001", name} <= files.images("own.txt").keys()


def test_trainaug_is_sbd_and_voc_train_without_voc_val(voc):
    files = VocFiles(voc)
    sbd = voc / "benchmark_RELEASE" / "dataset"
    valid = shipped("pascal_seg11valid")[:4]
    # SBD val holds an image of VOC 2012 val, SBD train one of VOC 2012 train.
    with (sbd / "train.txt").open("a") as file:
        file.write("2012_000002\n")
    expected = [*(f"2008_00000{k}" for k in range(1, 5)), *(f"2012_00000{k}" for k in range(1, 5))]
    assert list(files.ids("trainaug", "data.train")) == expected
    assert valid[0] in files.ids("sbd_val", "data.train")
    (sbd / "cls" / "2012_000002.mat").write_bytes(b"never read")
    labels = files.labels("trainaug")
    assert [labels[name].suffix for name in expected] == [".mat"] * 4 + [".png"] * 4
    assert all(labels[name].parent.parent.name == "VOC2012" for name in expected[4:])
    assert set(expected) <= files.images("trainaug").keys()


def test_trainaug_needs_both_archives(voc):
    (voc / "benchmark_RELEASE").rename(voc / "elsewhere")
    with pytest.raises(SegbenchError, match=r"(?s)no SBD in .*parts=sbd"):
        VocFiles(voc).ids("trainaug", "data.train")
