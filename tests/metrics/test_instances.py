"""SEG beside py-ctcmetrics, and AP and F1 by hand and by solving the assignment."""

import numpy as np
import pytest
import tifffile
from ctc_metrics.metrics.technical.seg import seg as ctc_seg
from ctc_metrics.utils.representations import match as ctc_match
from scipy.optimize import linear_sum_assignment

from segbench.errors import SegbenchError
from segbench.metrics import Decoding, ImageResult, InstanceOverlap, Seg, seg
from segbench.metrics.instances import IOU_PERCENT, match


def drawn(seed, shape=(40, 50)):
    """Reference objects and segments that partly agree: shifted boxes, some joined, some broken, some alone."""
    rng = np.random.default_rng(seed)
    objects, segments = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for index in range(12):
        row, column = rng.integers(0, 34), rng.integers(0, 42)
        height, width = rng.integers(3, 8, 2)
        objects[row : row + height, column : column + width] = 3 * index + 1
        shift = rng.integers(-2, 3, 2)
        top, left = max(row + shift[0], 0), max(column + shift[1], 0)
        if rng.random() < 0.8:
            segments[top : top + height, left : left + width] = 5 * (index if rng.random() < 0.8 else index // 2) + 2
    return objects, segments


@pytest.mark.parametrize("seed", range(20))
def test_seg_beside_ctcmetrics(tmp_path, seed):
    pairs = [drawn(100 * seed + frame) for frame in range(3)]
    labels, ious = [], []
    for frame, (objects, segments) in enumerate(pairs):
        paths = [tmp_path / f"{name}{frame}.tif" for name in ("reference", "computed")]
        for path, ids in zip(paths, (objects, segments), strict=True):
            tifffile.imwrite(path, ids)
        found = ctc_match(*map(str, paths))
        labels.append(found[0])
        ious.append(found[4])
    ours = seg(np.stack([one for one, _ in pairs]), np.stack([two for _, two in pairs]))
    assert ours == pytest.approx(ctc_seg(labels, ious), abs=1e-12)
    assert 0.1 < ours < 0.95  # neither trivial


def test_seg_by_hand():
    objects = np.array([[1, 1, 1, 1, 0, 2, 2, 0, 3, 3]])
    segments = np.array([[4, 4, 4, 0, 0, 5, 0, 0, 6, 6]])
    # 3 of 4 covered; exactly half is no match; all.
    assert match(objects, segments).jaccard.tolist() == [0.75, 0.0, 1.0]
    assert seg(objects[None], segments[None]) == pytest.approx(1.75 / 3)


def test_one_segment_may_match_two_objects_and_spare_segments_cost_nothing():
    objects = np.array([[1, 1, 2, 2, 0, 0, 0]])
    segments = np.array([[4, 4, 4, 4, 0, 9, 9]])
    assert match(objects, segments).jaccard.tolist() == [0.5, 0.5]


def test_an_image_without_background():
    objects, segments = np.array([[1, 1, 2, 2]]), np.array([[7, 7, 7, 8]])
    found = match(objects, segments)
    assert (found.objects, found.segments) == (2, 2)
    assert found.jaccard.tolist() == [2 / 3, 0.0]


def test_nothing_to_find():
    assert np.isnan(seg(np.zeros((1, 3, 3), int), np.ones((1, 3, 3), int)))
    found = match(np.zeros((3, 3), int), np.ones((3, 3), int))
    assert (found.objects, found.segments, found.hits.tolist()) == (0, 1, [0] * 10)


@pytest.mark.parametrize("seed", range(5))
def test_hits_by_assignment(seed):
    objects, segments = drawn(seed)
    ids, others = (np.setdiff1d(np.unique(image), 0) for image in (objects, segments))

    def iou_of(one, two):
        return (one & two).sum() / (one | two).sum()

    iou = np.array([[iou_of(objects == a, segments == b) for b in others] for a in ids])
    for percent, hits in zip(IOU_PERCENT, match(objects, segments).hits, strict=True):
        above = iou > percent / 100
        rows, columns = linear_sum_assignment(-above.astype(int))
        assert hits == above[rows, columns].sum()


def result(objects, pred, label=None):
    return ImageResult(np.ones_like(pred) if label is None else label, pred, instances_HW=objects.astype(np.int32))


def test_average_precision_by_hand():
    # Two objects, three segments; IoU 1 and 2/3.
    objects = np.array([[1, 1, 0, 2, 2, 2, 0, 0, 0]])
    pred = np.array([[1, 1, 0, 1, 1, 0, 0, 1, 0]])
    measure = InstanceOverlap()
    scores = measure.scores(measure.counts(result(objects, pred)))
    assert scores["instance_ap_50"] == pytest.approx(2 / 3)
    assert scores["instance_ap_75"] == pytest.approx(1 / 4)
    assert scores["instance_f1_50"] == pytest.approx(4 / 5)
    # 0.50, 0.55, 0.60 and 0.65 are below 2/3.
    assert scores["instance_ap"] == pytest.approx((4 * 2 / 3 + 6 * 1 / 4) / 10)
    assert scores["instance_f1"] == pytest.approx((4 * 4 / 5 + 6 * 2 / 5) / 10)


def test_void_pixels_belong_to_nothing():
    objects, pred = np.array([[1, 1, 1, 1]]), np.array([[1, 1, 0, 0]])
    label = np.array([[1, 1, 255, 255]])
    for measure, key in ((Seg(), "seg"), (InstanceOverlap(), "instance_ap")):
        assert measure.scores(measure.counts(result(objects, pred, label)))[key] == 1.0


def test_bad_ids():
    with pytest.raises(SegbenchError, match=r"reference ids of type int64, from -1"):
        match(np.array([[-1]]), np.array([[1]]))
    with pytest.raises(SegbenchError, match=r"predicted ids of type float64"):
        match(np.array([[1]]), np.array([[1.0]]))
    with pytest.raises(SegbenchError, match=r"shape \(1, 1\) and segments of shape \(1, 2\)"):
        match(np.array([[1]]), np.array([[1, 1]]))


def certain(classes_HW, classes=3):
    return np.eye(classes, dtype=np.float32)[np.asarray(classes_HW)].transpose(2, 0, 1)


def test_segments_come_from_the_decoding():
    objects = np.array([[1, 1, 1, 2, 2, 2]], np.int32)
    pred = np.array([[1, 1, 2, 2, 1, 1]])
    image = ImageResult((objects > 0).astype(int), pred, certain(pred), instances_HW=objects)
    for measure, expected in ((Seg(), 2 / 3), (Seg(decoding=Decoding(grow=1)), 1.0)):
        assert measure.needs_prob == (measure.decoding is not None)
        assert measure.scores(measure.counts(image))["seg"] == pytest.approx(expected)
    overlap = InstanceOverlap(decoding=Decoding(grow=1))
    assert overlap.scores(overlap.counts(image))["instance_ap"] == 1.0
    assert InstanceOverlap().scores(InstanceOverlap().counts(image))["instance_ap_75"] == 0.0


def test_a_decoding_needs_probabilities():
    with pytest.raises(SegbenchError, match="no probabilities"):
        Seg(decoding=Decoding()).counts(result(np.array([[1]]), np.array([[1]])))


def test_a_segment_in_void_costs_where_the_challenge_counts():
    objects, pred = np.array([[1, 1, 0, 0]]), np.array([[1, 1, 1, 1]])
    label = np.array([[1, 1, 255, 255]])
    cropped, whole = Seg(), Seg(crop_void=False)
    assert cropped.scores(cropped.counts(result(objects, pred, label)))["seg"] == 1.0
    assert whole.scores(whole.counts(result(objects, pred, label)))["seg"] == 0.5
    assert cropped.version != whole.version


def test_a_further_reference_has_a_score_of_its_own_name():
    silver, gold = np.array([[1, 1, 0]], np.int32), np.array([[1, 1, 1]], np.int32)
    pred = np.array([[1, 1, 0]])
    measure = Seg(reference="gold", name="seg_gold")
    image = ImageResult(pred, pred, instances_HW=silver, references={"gold": gold})
    assert [info.name for info in measure.infos()] == ["seg_gold"]
    assert measure.scores(measure.counts(image)) == {"seg_gold": pytest.approx(2 / 3)}
    nothing = ImageResult(pred, pred, instances_HW=silver, references={"gold": np.zeros_like(gold)})
    assert np.isnan(measure.scores(measure.counts(nothing))["seg_gold"])
    with pytest.raises(SegbenchError, match="an image without gold reference objects"):
        measure.counts(result(silver, pred))


def test_counts_of_an_unannotated_image_are_of_the_kind_of_the_others():
    pred = np.array([[1, 0]])
    one, none = (Seg().counts(result(objects, pred)) for objects in (np.array([[1, 0]]), np.zeros((1, 2), int)))
    assert {key: (value.shape, value.dtype) for key, value in one.items()} == {
        key: (value.shape, value.dtype) for key, value in none.items()
    }
