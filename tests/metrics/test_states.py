from dataclasses import dataclass
from itertools import permutations

import numpy as np
import pytest
import torch

from segbench.metrics.confusion import Overlap
from segbench.metrics.measure import ImageResult
from segbench.metrics.states import MeasureState
from segbench.spec import ScoreInfo

IMAGES = 5


@dataclass(frozen=True)
class Sums:
    """Float counts that round differently in another order, and an integer vector."""

    name: str = "sums"
    version: str = "1"
    needs_prob: bool = True
    needs_raw: bool = False
    test_only: bool = False

    def infos(self):
        return (ScoreInfo("mean_prob", (0.0, 1.0), True, self.version),)

    def counts(self, image):
        return {"sum": np.asarray(image.prob_KHW.sum(dtype=np.float64) / 3), "shape": np.array(image.prob_KHW.shape)}

    def scores(self, totals):
        return {"mean_prob": np.asarray(totals["sum"])}


def image(index):
    rng = np.random.default_rng(index)
    prob = rng.random((2, 4 + index, 5), dtype=np.float32)
    return ImageResult(rng.choice([0, 1, 255], (4 + index, 5)), prob.argmax(0), prob)


def states(indices):
    made = [MeasureState(Sums()), MeasureState(Overlap(("a", "b")))]
    for index in indices:
        for state in made:
            # Padding repeats the first image.
            state.update(state.row(index, image(max(index, 0))))
    return made


def flat(made):
    return [(state.per_image()[0].tolist(), {k: v.tolist() for k, v in state.per_image()[1].items()}) for state in made]


def test_streaming_equals_one_matrix_over_the_split():
    overlap = states(range(IMAGES))[1]
    label = np.concatenate([image(index).label_HW.ravel() for index in range(IMAGES)])
    pred = np.concatenate([image(index).pred_HW.ravel() for index in range(IMAGES)])
    at_once = Overlap(("a", "b")).scores(Overlap(("a", "b")).counts(ImageResult(label, pred)))
    scores = overlap.scores()
    assert scores["mean_iu"] == at_once["mean_iu"]
    assert scores["pixel_acc"] == at_once["pixel_acc"]


def test_counts_are_kept_an_image_with_their_shapes_and_types():
    sums, overlap = states(range(IMAGES))
    indices, counts = sums.per_image()
    assert indices.tolist() == [*range(IMAGES)]
    assert (counts["sum"].dtype, counts["shape"].dtype) == (np.float64, np.int64)
    assert counts["shape"].tolist() == [[2, 4 + index, 5] for index in range(IMAGES)]
    assert overlap.per_image()[1]["matrix"].shape == (IMAGES, 2, 2)


def test_floats_lose_no_bit():
    _, counts = states([3])[0].per_image()
    assert counts["sum"].tolist() == [float(image(3).prob_KHW.sum(dtype=np.float64) / 3)]


def test_no_order_changes_a_bit():
    expected = [flat(states(range(3))), states(range(3))[0].scores()]
    for order in permutations(range(3)):
        assert [flat(states(order)), states(order)[0].scores()] == expected


def test_padding_is_dropped():
    assert flat(states([0, 1, -1, 2, -1])) == flat(states([0, 1, 2]))


def test_only_padding_counts_nothing():
    indices, counts = states([-1])[1].per_image()
    assert indices.tolist() == []
    assert counts["matrix"].shape == (0, 2, 2)


def test_a_reset_forgets():
    state = states(range(IMAGES))[1]
    state.reset()
    state.update(state.row(2, image(2)))
    assert state.per_image()[0].tolist() == [2]


def test_scores_follow_further_images():
    state = states([0])[1]
    before = state.scores()
    state.update(state.row(1, image(1)))
    assert state.scores() != before
    assert state.scores() == states([0, 1])[1].scores()


def test_the_same_image_twice_counts_once_and_is_known():
    assert flat(states([0, 1, 1])) == flat(states([0, 1]))
    assert states([0, 1, 1, -1])[1].counted().visits.tolist() == [1, 2]


def test_labelled_pixels_are_those_that_are_not_void():
    expected = sum(int((image(index).label_HW != 255).sum()) for index in range(2))
    assert states([0, 1, 1, -1])[1].counted().labelled == expected


def test_the_same_image_with_two_results_is_refused():
    state = states([0])[1]
    state.update(state.row(0, image(1)))
    with pytest.raises(RuntimeError, match="confusion: an image was evaluated twice with different counts"):
        state.per_image()


def _rank(rank, folder, shares):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.set_num_threads(1)
    made = states(shares[rank])
    torch.save((flat(made), [state.scores() for state in made]), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_count_what_one_counts(tmp_path):
    # Forked, as data workers are: new interpreters would import for 20 s.
    shares = [[0, 2, 4], [1, 3, -1]]
    torch.multiprocessing.start_processes(_rank, (str(tmp_path), shares), nprocs=2, start_method="fork")
    alone = states(range(IMAGES))
    expected = (flat(alone), [state.scores() for state in alone])
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt", weights_only=True) == expected
