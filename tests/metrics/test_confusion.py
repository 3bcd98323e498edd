"""Confusion matrix and mean IUs: by hand, beside torchmetrics and scikit-learn, and as docs/metrics.md prints them."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, jaccard_score
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex
from torchmetrics.segmentation import MeanIoU

from segbench.errors import SegbenchError
from segbench.metrics import ImageResult, Overlap, confusion_matrix

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
NAMES = ("sky", "building", "tree", "car", "boat")
SKY, BUILDING, TREE, CAR, _ = range(5)


def example():
    """The worked example of docs/metrics.md: two images as (label, prediction)."""
    first = [SKY] * 8 + [TREE] * 8, [SKY] * 7 + [BUILDING] + [TREE] * 8
    second = [SKY] * 2 + [CAR] * 14, [SKY] * 6 + [CAR] * 10
    return [tuple(np.array(side).reshape(4, 4) for side in pair) for pair in (first, second)]


def totals(measure, pairs):
    counts = [measure.counts(ImageResult(label, pred)) for label, pred in pairs]
    return {key: np.sum([one[key] for one in counts], axis=0) for key in counts[0]}


@pytest.fixture
def scores():
    measure = Overlap(NAMES)
    return measure.scores(totals(measure, example()))


def printed(key):
    return float(re.search(rf"^\| {re.escape(key)} \| ([0-9.]+) \|$", DOCS.read_text(), re.M)[1])


@pytest.mark.parametrize("key", ["mean_iu", "mean_iu_present", "mean_iu_all", "mean_iu_per_image"])
def test_the_worked_example(scores, key):
    assert round(float(scores[key]), 4) == printed(f"`{key}`")


def test_the_worked_example_by_hand(scores):
    sky, building, tree, car = 9 / 14, 0.0, 1.0, 10 / 14
    assert scores["mean_iu"] == pytest.approx((sky + building + tree + car) / 4)
    assert scores["mean_iu_present"] == pytest.approx((sky + tree + car) / 3)
    assert scores["mean_iu_all"] == pytest.approx((sky + building + tree + car) / 5)
    assert scores["mean_iu_per_image"] == pytest.approx(((7 / 8 + 0 + 1) / 3 + (2 / 6 + 10 / 14) / 2) / 2)
    assert scores["pixel_acc"] == pytest.approx(27 / 32)
    assert scores["mean_acc"] == pytest.approx((9 / 10 + 1 + 10 / 14) / 3)
    assert scores["fw_iu"] == pytest.approx((10 * sky + 8 * tree + 14 * car) / 32)
    assert np.isnan(scores["iu/boat"])
    assert np.isnan(scores["dice/boat"])
    assert scores["dice/sky"] == pytest.approx(2 * 9 / (10 + 13))
    assert scores["dice/building"] == 0
    assert scores["dice/car"] == pytest.approx(2 * 10 / (14 + 10))
    # Zero by zero as one, the default of segmentation-models-pytorch.
    assert printed("segmentation-models-pytorch, macro") == round((sky + building + tree + car + 1) / 5, 4)


def test_the_four_scores_without_a_class_by_hand():
    measure = Overlap(NAMES, without="tree")
    found = totals(measure, example())
    scores = measure.scores(found)
    assert [info.name for info in measure.infos()] == list(scores)
    sky, building, car = 9 / 14, 0.0, 10 / 14
    # 24 pixels are labelled otherwise than tree: 10 sky, 14 car.
    assert scores["pixel_acc_without_tree"] == pytest.approx((9 + 10) / 24)
    assert scores["mean_acc_without_tree"] == pytest.approx((9 / 10 + 10 / 14) / 2)
    assert scores["mean_iu_without_tree"] == pytest.approx((sky + building + car) / 3)
    assert scores["fw_iu_without_tree"] == pytest.approx((10 * sky + 14 * car) / 24)
    plain = Overlap(NAMES).scores(found)
    assert plain.keys() <= scores.keys() and all(np.array_equal(plain[key], scores[key], True) for key in plain)
    # What is labelled as the class still counts where another class is predicted there.
    label, pred = np.array([[2, 2, 0]]), np.array([[0, 2, 0]])
    assert measure.scores(totals(measure, [(label, pred)]))["mean_iu_without_tree"] == 0.5
    # Leaving out an excluded class too changes no mean.
    excluded = Overlap(NAMES, excluded=(2,), without="tree").scores(found)
    assert excluded["mean_iu"] == excluded["mean_iu_without_tree"] == scores["mean_iu_without_tree"]
    only_tree = measure.scores(totals(measure, [(np.array([[2]]), np.array([[2]]))]))
    assert all(np.isnan(only_tree[f"{name}_without_tree"]) for name in ("pixel_acc", "mean_acc", "mean_iu", "fw_iu"))


def test_a_class_that_is_none_is_refused():
    with pytest.raises(SegbenchError, match=r"without=road(.|\n)*sky, building(.|\n)*metrics\.confusion\.without"):
        Overlap(NAMES, without="road")


def test_the_worked_example_table():
    text = DOCS.read_text()
    matrix = totals(Overlap(NAMES), example())["matrix"]
    for k, name in enumerate(NAMES):
        labelled, predicted, right = matrix[k].sum(), matrix[:, k].sum(), matrix[k, k]
        union = labelled + predicted - right
        iu = f"{right / union:.4f}" if union else "none"
        assert f"| {name} | {labelled} | {predicted} | {right} | {iu} |" in text


def test_what_other_packages_say_of_it(scores):
    labels, preds = (np.stack(sides) for sides in zip(*example(), strict=True))
    label, pred = torch.from_numpy(labels), torch.from_numpy(preds)
    assert MulticlassJaccardIndex(5, average="macro")(pred, label) == pytest.approx(scores["mean_iu"])
    every = jaccard_score(labels.ravel(), preds.ravel(), average="macro", labels=range(5), zero_division=0)
    assert every == pytest.approx(scores["mean_iu_all"])


def test_what_torchmetrics_says_of_it_by_pairs():
    # In older versions it was another score.
    pytest.importorskip("torchmetrics", minversion="1.9")
    labels, preds = (np.stack(sides) for sides in zip(*example(), strict=True))
    label, pred = torch.from_numpy(labels), torch.from_numpy(preds)
    pairs = MeanIoU(num_classes=5, input_format="index")
    assert round(float(pairs(pred, label)), 4) == printed("torchmetrics `MeanIoU`")


def test_the_dice_of_a_class_is_the_f1_of_its_pixels(scores):
    labels, preds = (np.stack(sides) for sides in zip(*example(), strict=True))
    theirs = f1_score(labels.ravel(), preds.ravel(), average=None, labels=range(5), zero_division=np.nan)
    for name, value in zip(NAMES, theirs, strict=True):
        np.testing.assert_allclose(scores[f"dice/{name}"], value)
        iu = scores[f"iu/{name}"]
        np.testing.assert_allclose(scores[f"dice/{name}"], 2 * iu / (1 + iu))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "int64"])
@pytest.mark.parametrize(("classes", "pixels"), [(2, 0), (2, 3), (3, 9), (70, 4001)])
def test_matrix_of_any_size_and_type_beside_bincount(dtype, classes, pixels):
    rng = np.random.default_rng(pixels)
    label, pred = (rng.integers(0, classes, pixels).astype(dtype) for _ in range(2))
    void = 0 if dtype == "uint8" else -1
    label[::3] = void
    pred[::3] = 99
    kept = label != void
    theirs = np.bincount(label[kept].astype(int) * classes + pred[kept], minlength=classes**2)
    ours = confusion_matrix(label, pred, classes, ignore_index=void)
    assert ours.dtype == np.int64
    assert (ours == theirs.reshape(classes, classes)).all()


def test_matrix_beside_torchmetrics():
    rng = np.random.default_rng(0)
    label, pred = rng.integers(0, 7, (3, 20, 30)), rng.integers(0, 7, (3, 20, 30))
    label[:, :4] = 255
    theirs = MulticlassConfusionMatrix(7, ignore_index=255)(torch.from_numpy(pred), torch.from_numpy(label))
    assert (confusion_matrix(label, pred, 7) == theirs.numpy()).all()
    assert (confusion_matrix(label.astype(np.uint8), pred.astype(np.uint8), 7) == theirs.numpy()).all()


@pytest.mark.parametrize(
    ("label", "pred", "message"),
    [
        ([0, 7], [0, 0], r"label values \[0 7\] reach outside 0 to 2"),
        ([0, 0], [0, -1], r"prediction values \[-1  0\] reach outside"),
        ([0, 0, 0], [0, 0], "differ in shape"),
    ],
)
def test_values_that_are_no_class(label, pred, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(np.array(label), np.array(pred), 3)


def test_excluded_classes_enter_no_mean():
    label, pred = np.array([[0, 0, 1, 1, 2, 2]]), np.array([[0, 1, 1, 1, 2, 0]])
    with_all, without = Overlap(("a", "b", "c")), Overlap(("a", "b", "c"), excluded=(2,))
    one, two = (measure.scores(totals(measure, [(label, pred)])) for measure in (with_all, without))
    a, b, c = 1 / 3, 2 / 3, 1 / 2
    assert one["mean_iu"] == pytest.approx((a + b + c) / 3)
    for key in ("mean_iu", "mean_iu_present", "mean_iu_all", "mean_iu_per_image"):
        assert two[key] == pytest.approx((a + b) / 2)
    assert two["pixel_acc"] == one["pixel_acc"] == pytest.approx(4 / 6)


def test_an_image_of_void_alone():
    measure = Overlap(("a", "b"))
    void, other = np.full((2, 2), 255), np.array([[0, 1], [1, 1]])
    alone = measure.scores(totals(measure, [(void, other)]))
    assert all(np.isnan(value) for value in alone.values())
    beside = measure.scores(totals(measure, [(void, other), (other, other)]))
    assert beside["mean_iu_per_image"] == beside["mean_iu"] == 1.0
