import numpy as np
import scipy.io

from segbench.data.id_lists import shipped
from segbench.data.pascal_voc import PascalVOC
from segbench.data.prepare.check import SplitReport, _rare, check
from segbench.data.prepare.downloads import Record
from segbench.data.raw import RawImage
from segbench.data.sift_flow import LABELS, SiftFlow
from segbench.spec import DatasetSpec, HeadSpec, ModalitySpec


class Arrays:
    """A split out of arrays."""

    def __init__(self, images):
        self._images = images
        self.ids = tuple(images)

    def __len__(self):
        return len(self.ids)

    def read(self, index):
        image, label = self._images[self.ids[index]]
        return RawImage({"rgb": image}, {"semantic": label}, self.ids[index])


class TwoSplits:
    def __init__(self, train, test):
        self._splits = {"train": Arrays(train), "test": Arrays(test)}
        self.spec = DatasetSpec(
            "two",
            {"rgb": ModalitySpec(3, (0, 0, 0), (1, 1, 1), "")},
            {"semantic": HeadSpec(("a", "b", "c"), ((0, 0, 0),) * 3)},
            "",
            "",
            "",
        )

    def split(self, name):
        return self._splits.get(name)


def image(value, height=2, width=3):
    return np.full((height, width, 3), value, np.uint8)


LABEL = np.array([[0, 0, 1], [1, 1, 255]], np.uint8)


def test_counts_of_a_split_by_hand():
    report = check(TwoSplits({"x": (image(1), LABEL), "y": (image(9), LABEL)}, {"z": (image(3), LABEL)}))
    train = report.splits["train"]
    assert train.pixels["semantic"].tolist() == [4, 6, 0, 2]
    assert train.images_with["semantic"].tolist() == [2, 2, 0]
    assert train.void_share("semantic") == 2 / 12
    assert train.channels == {"rgb": (1, 9)}
    assert train.sizes == {(2, 3): 2}
    assert report.faults == []
    assert report.notes == ["train: no image shows c (semantic)"]


def test_digests_tell_ids_and_labels_apart():
    a = check(TwoSplits({"x": (image(1), LABEL)}, {})).splits["train"]
    b = check(TwoSplits({"y": (image(1), LABEL)}, {})).splits["train"]
    c = check(TwoSplits({"x": (image(1), LABEL[::-1])}, {})).splits["train"]
    assert a.ids_digest != b.ids_digest and a.labels_digest == b.labels_digest
    assert a.ids_digest == c.ids_digest and a.labels_digest != c.labels_digest


def test_overlap_is_a_fault_and_the_same_picture_a_note():
    report = check(TwoSplits({"x": (image(1), LABEL), "y": (image(2), LABEL)}, {"x": (image(1), LABEL)}))
    assert report.faults == ["train and test share 1 images, first x"]
    report = check(TwoSplits({"x": (image(1), LABEL)}, {"y": (image(1), LABEL)}))
    assert report.faults == []
    assert "x and y are the same image in two splits" in report.notes


def test_sizes_and_ids_out_of_range():
    report = check(TwoSplits({"x": (image(1, 3, 2), LABEL), "y": (image(2), LABEL + 2)}, {}))
    assert report.faults == [
        "train: image x differs in size: rgb 3 x 2, semantic 2 x 3",
        "train: image y has label ids 3 in semantic",
    ]


def test_a_limit_is_spread_evenly():
    images = {str(k): (image(k), LABEL) for k in range(11)}
    report = check(TwoSplits(images, {}), limit=3).splits["train"]
    assert (report.listed, report.read, report.channels["rgb"]) == (11, 3, (0, 10))
    assert report.notes == [], "of some images nothing is said about all"


def test_damaged_files_are_faults_and_the_rest_is_read(voc):
    name = shipped("pascal_seg11valid")[2]
    path = voc / "TrainVal/VOCdevkit/VOC2011/JPEGImages" / f"{name}.jpg"
    path.write_bytes(path.read_bytes()[:-30])
    seen = []
    report = check(PascalVOC(voc, partial=True), progress=lambda *said: seen.append(said))
    assert report.splits["test"].read == 3
    [fault] = report.faults
    assert fault.startswith("test: ") and name in fault and "its end is missing" in fault
    assert seen[-1] == ("test", 4, 4)


def test_two_heads(sift):
    report = check(SiftFlow(sift, partial=True))
    assert report.faults == []
    test = report.splits["test"]
    assert test.pixels["geometric"].sum() == test.pixels["semantic"].sum() == 512
    label = [scipy.io.loadmat(sift / LABELS["geometric"] / f"{name}.mat")["S"] for name in shipped("siftflow_test")[:2]]
    assert test.pixels["geometric"].tolist() == [int((np.array(label) == k).sum()) for k in (1, 2, 3)] + [
        int((np.array(label) <= 0).sum())
    ]


def test_archives_are_compared_with_their_record(tmp_path):
    folder = tmp_path / "downloads"
    folder.mkdir()
    (folder / "a").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    Record(folder).update("a", sha256=empty, published=None)
    Record(folder).update("gone", sha256=empty, published="md5:1")
    report = check(TwoSplits({"x": (image(1), LABEL)}, {}), tmp_path)
    assert [line.split(":")[0] for line in report.archives] == ["a", "gone"] and not report.faults
    (folder / "a").write_bytes(b"x")
    assert "no longer has sha256" in check(TwoSplits({"x": (image(1), LABEL)}, {}), tmp_path).faults[0]


def test_a_rare_class_is_named_with_the_keys_that_help():
    spec = HeadSpec(("a", "b", "c"), ((0, 0, 0),) * 3)
    report = SplitReport("train", 1, "", pixels={"semantic": np.array([985, 15, 0, 4000])})
    (note,) = _rare("semantic", spec, report)
    assert note == (
        "rare in semantic: b 1.50% of the labelled pixels; loss.class_weights=auto weighs them, data.balance=auto "
        "draws tiles that show them"
    )
    assert not _rare("semantic", HeadSpec(("a", "b", "c"), ((0, 0, 0),) * 3, excluded=(1,)), report)
