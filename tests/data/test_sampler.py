from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbench.data.sampler import Balance, Draw, EvaluationSampler, TrainSampler
from segbench.errors import SegbenchError

small = st.integers(1, 5)


def batched(draws, size):
    return [draws[start : start + size] for start in range(0, len(draws), size)]


def epoch(sampler, number=0):
    sampler.set_epoch(number)
    return list(sampler)


@given(
    count=st.integers(1, 30), batch=small, repeats=small, world=small, seed=st.integers(0, 99), number=st.integers(0, 9)
)
def test_k_ranks_of_b_take_in_each_step_what_one_rank_of_kb_takes(count, batch, repeats, world, seed, number):
    if count * repeats < batch * world:
        return
    alone = batched(epoch(TrainSampler(count, batch * world, seed, repeats), number), batch * world)
    ranks = [
        batched(epoch(TrainSampler(count, batch, seed, repeats, rank, world), number), batch) for rank in range(world)
    ]
    together = [sorted(draw.draw for part in step for draw in part) for step in zip(*ranks, strict=True)]
    assert together == [sorted(draw.draw for draw in step) for step in alone]


@given(count=st.integers(1, 30), batch=small, repeats=small, world=small)
def test_ranks_are_equally_long_and_never_draw_the_same(count, batch, repeats, world):
    if count * repeats < batch * world:
        return
    ranks = [TrainSampler(count, batch, 0, repeats, rank, world) for rank in range(world)]
    draws = [epoch(rank) for rank in ranks]
    assert {len(drawn) for drawn in draws} == {len(ranks[0])} == {count * repeats // (batch * world) * batch}
    everything = [draw for drawn in draws for draw in drawn]
    assert len(set(everything)) == len(everything)


def test_an_epoch_draws_each_image_as_often_as_asked():
    draws = epoch(TrainSampler(5, 1, seed=0, repeats=3))
    assert Counter(draw.index for draw in draws) == dict.fromkeys(range(5), 3)
    assert sorted(draw.draw for draw in draws) == [*range(15)]


def test_the_order_is_a_function_of_seed_and_epoch():
    sampler = TrainSampler(50, 1, seed=3)
    first, second = epoch(sampler, 0), epoch(sampler, 1)
    assert epoch(sampler, 0) == first == epoch(TrainSampler(50, 1, seed=3), 0)
    assert [draw.index for draw in first] != [draw.index for draw in second]
    assert [draw.index for draw in first] != [draw.index for draw in epoch(TrainSampler(50, 1, seed=4), 0)]
    assert [draw.index for draw in first] != [*range(50)]


def test_a_draw_knows_its_epoch():
    assert {draw.epoch for draw in epoch(TrainSampler(4, 2, seed=0), 7)} == {7}


def test_those_left_out_change_from_epoch_to_epoch():
    sampler = TrainSampler(5, 4, seed=0)
    left_out = {frozenset(range(5)) - {draw.index for draw in epoch(sampler, number)} for number in range(60)}
    assert len(left_out) == 5


@given(st.integers(1, 12), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.data())
def test_a_resume_draws_what_the_whole_run_would_have_drawn(count, batch, repeats, accumulate, data):
    if count * repeats < batch:
        return
    steps = -(-(count * repeats // batch) // accumulate)  # the last step of an epoch takes the batches that are left
    done = data.draw(st.integers(0, 3 * steps))
    resumed = list(TrainSampler(count, batch, 5, repeats, steps_done=lambda: done, accumulate=accumulate))
    number, entered = divmod(done, steps)
    assert resumed == epoch(TrainSampler(count, batch, 5, repeats), number)[entered * accumulate * batch :]


@given(st.integers(1, 12), st.integers(1, 3), st.integers(1, 4), st.integers(1, 12), st.integers(1, 9))
def test_limited_epochs_are_parts_of_passes(batches, batch, accumulate, limit, epochs):
    """Each holds as many batches as it may, none is met twice in a pass, and a resume within one goes on in it."""
    taken, count = min(limit, batches), batches * batch
    steps = -(-taken // accumulate)

    def sampled(done):
        return list(TrainSampler(count, batch, 5, steps_done=lambda: done, accumulate=accumulate, limit=limit))

    met = {}
    for number in range(epochs):
        draws = sampled(number * steps)
        assert len(draws) == taken * batch
        for step in range(steps):
            assert sampled(number * steps + step) == draws[step * accumulate * batch :]
        in_pass = met.setdefault(number // (batches // taken), [])
        in_pass += draws
        assert len(set(in_pass)) == len(in_pass)


def test_a_limit_that_parts_a_pass_evenly_changes_no_order():
    whole = epoch(TrainSampler(12, 2, seed=3))
    halves = [
        list(TrainSampler(12, 2, 3, steps_done=lambda done=done: done, limit=limit))
        for done, limit in ((0, 3), (3, 0.5))
    ]
    assert [*halves[0], *halves[1]] == whole


def test_fewer_draws_than_a_step_takes_are_refused():
    with pytest.raises(
        SegbenchError, match=r"3 training images drawn 1 times.*\n.*2 samples on each of 2.*\n.*repeats"
    ):
        TrainSampler(3, 2, seed=0, world_size=2)


@given(count=st.integers(1, 40), world=st.integers(1, 7))
def test_evaluation_visits_each_image_once_over_all_ranks(count, world):
    ranks = [EvaluationSampler(count, rank, world) for rank in range(world)]
    draws = [draw for rank in ranks for draw in rank]
    assert sorted(draw.index for draw in draws if not draw.padding) == [*range(count)]
    assert {len(list(rank)) for rank in ranks} == {len(ranks[0])}
    assert sum(draw.padding for draw in draws) < world


def test_five_images_on_two_ranks_by_hand():
    assert list(EvaluationSampler(5, 0, 2)) == [Draw(0), Draw(2), Draw(4)]
    assert list(EvaluationSampler(5, 1, 2)) == [Draw(1), Draw(3), Draw(0, padding=True)]


@pytest.mark.parametrize(("overfit", "batches"), [(2, 2), (0.5, 3), (99, 6)])
def test_the_same_batches_make_every_epoch(overfit, batches):
    done = 0
    sampler = TrainSampler(4, 2, 0, repeats=3, overfit=overfit, steps_done=lambda: done)
    first = list(sampler)
    assert len(sampler) == len(first) == 2 * batches
    done = batches
    assert list(sampler) == first
    done = batches + 1
    assert list(sampler) == first[2:]
    assert first == list(TrainSampler(4, 2, 0, repeats=3))[: 2 * batches]


def test_ranks_share_the_batches_that_are_overfitted():
    alone = list(TrainSampler(8, 2, 0, overfit=2))
    ranks = [list(TrainSampler(8, 1, 0, rank=rank, world_size=2, overfit=2)) for rank in range(2)]
    assert [draw for pair in zip(*ranks, strict=True) for draw in pair] == alone


SHOWN = np.array([[True, False, True], [True, True, False], [True, False, False], [False, True, False]])
"""Whether each of four images shows each of three classes."""


def test_each_class_has_its_share_of_the_draws():
    balance = Balance((0.25, 0.5, 0.0), SHOWN, seed=0)
    draws = epoch(TrainSampler(4, 2, 0, repeats=10, choice=balance), 3)
    assert Counter(draw.label for draw in draws) == {0: 10, 1: 20, None: 10}
    assert all(SHOWN[draw.index, draw.label] for draw in draws if draw.label is not None)
    assert {draw.index for draw in draws if draw.label == 1} == {1, 3}
    assert {draw.index for draw in draws if draw.label is None} == {0, 1, 2, 3}
    assert {draw.label for draw in draws if draw.draw < 10} == {0}


@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 99), st.integers(0, 30))
def test_a_balanced_order_is_that_of_any_number_of_ranks_and_of_a_resume(batch, world, seed, done):
    def sampled(batch, rank=0, world=1, **more):
        balance = Balance((0.3, 0.3, 0.4), SHOWN, seed)
        return list(TrainSampler(4, batch, seed, 9, rank, world, choice=balance, **more))

    alone = batched(sampled(batch * world), batch * world)
    ranks = [batched(sampled(batch, rank, world), batch) for rank in range(world)]
    assert [sorted(map(repr, step)) for step in alone] == [
        sorted(repr(draw) for part in step for draw in part) for step in zip(*ranks, strict=True)
    ]
    steps = 36 // batch
    number, entered = divmod(done, steps)
    whole = TrainSampler(4, batch, seed, 9, choice=Balance((0.3, 0.3, 0.4), SHOWN, seed))
    assert sampled(batch, steps_done=lambda: done) == epoch(whole, number)[entered * batch :]
