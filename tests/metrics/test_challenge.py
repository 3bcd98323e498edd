"""Agreement with the challenge's own program, on every case and at every threshold.

Integers are equal; fractions agree to 1e-9. Where a fraction is 0/0 the plugin says NaN or 1, as its sums happen to
round; there ours says NaN and only the F-score is held to the plugin's.
"""

import numpy as np
import pytest

from segbench.metrics import (
    challenge_scores,
    contingency,
    pixel_error,
    rand_error,
    thin,
    v_info,
    v_rand,
    warp,
    warping_error,
)


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


def check_counts(score, rows, case):
    for key in ("tp", "fp", "fn"):
        theirs = case.column(rows, key)
        # The plugin's counts are NaN where the label holds no cell; its sums of squares carry float noise below 1e-3.
        assert getattr(score, key).dtype == np.int64
        assert (getattr(score, key) == np.round(np.nan_to_num(theirs))).all(), key
    close(score.precision, case.column(rows, "precision"))
    close(score.recall, case.column(rows, "recall"))


@pytest.mark.parametrize(
    ("score", "group"),
    [
        (pixel_error, "pixel"),
        (rand_error, "rand_fgr"),
        (lambda prob, label: rand_error(prob, label, pairs=True), "rand_fgr_2014_pairs"),
    ],
)
def test_errors_from_pooled_counts(case, score, group):
    ours, rows = score(case.prob_NHW, case.label_NHW), case.values[group]["per_threshold"]
    check_counts(ours, rows, case)
    close(ours.per_threshold, case.column(rows, "fscore"))
    close(1 - ours.value, case.values[group]["max_fscore"])


def test_best_thresholds(case):
    assert pixel_error(case.prob_NHW, case.label_NHW).threshold == case.summary["pixel_best_threshold"]
    assert rand_error(case.prob_NHW, case.label_NHW).threshold == case.summary["rand_best_threshold"]
    assert warping_error(case.prob_NHW, case.label_NHW).threshold == case.summary["warping_best_threshold"]


def test_v_rand(case):
    ours = v_rand(case.prob_NHW, case.label_NHW)
    check_counts(ours, case.values["vrand_thin"]["per_threshold_pooled"], case)
    close(ours.per_threshold, case.column(case.values["vrand_thin"]["per_threshold_slice_mean"], "fscore"))
    close(ours.value, case.summary["v_rand_thin"])
    close(ours.pooled, case.summary["v_rand_thin_pooled"])


@pytest.mark.parametrize(("thinned", "group"), [(True, "vinfo_thin"), (False, "vinfo_fgr")])
def test_v_info(case, thinned, group):
    ours, theirs = v_info(case.prob_NHW, case.label_NHW, thinned=thinned), case.values[group]
    close(ours.per_threshold, theirs["fscore_per_threshold"])
    close(ours.value, theirs["max"])
    parts = {
        key: np.stack([case.column(slices, key) for slices in theirs["parts_per_threshold_per_slice"]], axis=1)
        for key in ("HT", "HS", "precision", "recall", "fscore")
    }
    close(ours.per_slice, parts["fscore"])
    close(ours.label_entropy, parts["HT"])
    # Without a labelled cell the plugin's H(S) is NaN, ours 0.
    close(ours.prediction_entropy, np.where(np.isnan(parts["HS"]), 0.0, parts["HS"]))
    defined = parts["HT"] > 1e-12
    close(ours.merge[defined], parts["precision"][defined])
    defined = parts["HS"] > 1e-12
    close(ours.split[defined], parts["recall"][defined])


def test_warping_error(case):
    ours, theirs = warping_error(case.prob_NHW, case.label_NHW), case.values["warping"]
    for kind in ("merge", "split", "hole_addition", "hole_deletion", "object_addition", "object_deletion"):
        assert (getattr(ours, f"{kind}s") == case.column(theirs["by_type_radius20"], kind)).all(), kind
    close(ours.value, case.summary["warping_error"])
    close(ours.mismatches / ours.pixels, theirs["classic_total_per_threshold"])
    best = int(ours.per_threshold.argmin())
    assert ours.merges[best] + ours.splits[best] == case.summary["warping_split_merge_pixels"]


def test_warped_label_and_mismatches_pixel_by_pixel(case):
    for label_HW, prob_HW, warped_HW, mismatch_HW in zip(
        case.label_NHW, case.prob_NHW, case.warped_NHW, case.mismatch_NHW, strict=True
    ):
        ours = warp(label_HW, prob_HW, 0.5)
        assert (ours.label_HW == (warped_HW > 0)).all()
        assert (ours.mismatch_HW == mismatch_HW).all()


def test_thinned_regions_pixel_by_pixel(case):
    for prob_HW, thin_HW in zip(case.prob_NHW, case.thin_NHW, strict=True):
        ours = thin(prob_HW > 0.5)
        assert ((ours == 0) == (thin_HW == 0)).all()
        pairs = contingency(ours, thin_HW)
        # Equal up to the numbering: each region meets exactly one of the plugin's.
        assert len(np.unique(pairs.rows)) == len(np.unique(pairs.columns)) == len(pairs.rows)


def test_all_metrics_in_one_walk(case):
    ours = challenge_scores(case.prob_NHW, case.label_NHW).values()
    theirs = {
        "v_rand": "v_rand_thin",
        "v_rand_pooled": "v_rand_thin_pooled",
        "v_info": "v_info_thin",
        "rand_error_pairs": "rand_error_2014_pairs",
    }
    for name, value in ours.items():
        close(value, case.summary[theirs.get(name, name)])
