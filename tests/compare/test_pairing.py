from dataclasses import replace

import numpy as np
import pytest

from segbench.compare.counts import pool
from segbench.compare.pairing import check_same_images
from segbench.compare.per_image import read_counts
from segbench.compare.reading import read_run
from segbench.errors import SegbenchError


@pytest.fixture
def counts(make_run):
    """`counts(name, **of make_run)`: counts of a new run, in the order of its ids."""
    return lambda name, **options: read_counts(read_run(make_run(name, **options))).in_order()


def test_runs_on_the_same_labelled_images_are_paired(counts):
    check_same_images(counts("a", accuracy=0.7), counts("b", accuracy=0.9))


def test_other_ids_are_refused_and_named(counts):
    names = [f"image-{number:03d}" for number in range(40)]
    first, second = counts("a"), counts("b", ids=[*names[:37], "x", "y", "z"])
    with pytest.raises(SegbenchError) as raised:
        check_same_images(first, second)
    assert "not scored on the same images (37 in common" in raised.value.found
    assert "a: image-037, image-038, image-039" in raised.value.found
    assert "b: x, y, z" in raised.value.found
    assert raised.value.expected == "the same image ids in both"


def test_many_other_ids_are_counted(counts):
    with pytest.raises(SegbenchError, match=r"0 in common.*image-007 and 32 more"):
        check_same_images(counts("a"), counts("b", ids=[f"other-{number}" for number in range(40)]))


def test_a_part_of_the_images_is_another_set(counts):
    with pytest.raises(SegbenchError, match=r"30 in common; only in .*a: image-030.* and 2 more\)"):
        check_same_images(counts("a"), counts("b", images=30))


def test_other_splits_are_refused(counts):
    with pytest.raises(SegbenchError, match=r"were scored on test and on val\n.*\n.*split=SPLIT"):
        check_same_images(counts("a"), counts("b", split="val"))


def test_other_data_is_refused(counts):
    from dataclasses import replace

    with pytest.raises(SegbenchError, match="were scored on drawn and on other"):
        check_same_images(counts("a"), replace(counts("b"), data="other"))


def test_other_labels_under_the_same_names_are_refused(counts):
    with pytest.raises(
        SegbenchError, match=r"have different labels for images of the same name: image-000, .*\n.*\n.*data.root"
    ):
        check_same_images(counts("a"), counts("b", labels_seed=1))


def test_folds_are_pooled(counts):
    names = [f"image-{number:03d}" for number in range(40)]
    folds = [counts("a", images=20, ids=names[:20]), counts("b", images=20, ids=names[20:], labels_seed=1)]
    pooled = pool(folds, "both")
    assert pooled.ids == tuple(names)
    (key,) = pooled.counts
    hit, labelled, predicted = (
        np.sum([fold.counts[key][name].sum(0) for fold in folds], axis=0) for name in ("hit", "labelled", "predicted")
    )
    iu = hit / (labelled + predicted - hit)
    assert pooled.of_all()["test/mean_iu"] == pytest.approx(iu.mean(), abs=1e-15)


def test_what_only_later_versions_count_is_left_out_of_pooled_folds(counts):
    names = [f"n{number}" for number in range(4)]
    old, new = counts("a", images=2, ids=names[:2]), counts("b", images=2, ids=names[2:], labels_seed=1)
    (key,) = new.counts
    new = replace(new, counts={key: {**new.counts[key], "further": np.ones(2)}})
    for folds in ([old, new], [new, old]):
        assert pool(folds, "both").counts[key].keys() == old.counts[key].keys()


def test_folds_that_share_images_are_refused(counts):
    with pytest.raises(
        SegbenchError, match=r"folds that share images \(image-000, .*\n.*each image in only one of them"
    ):
        pool([counts("a"), counts("b", accuracy=0.9)], "both")


def test_folds_of_other_splits_are_refused(counts):
    names = [f"val-{number}" for number in range(40)]
    with pytest.raises(SegbenchError, match="scored by different metrics or on different splits"):
        pool([counts("a"), counts("b", split="val", ids=names)], "both")
