import math

import pytest
import torch

from segbench.errors import SegbenchError
from segbench.losses import CrossEntropy, Dice, Sum, WeightedCrossEntropy

ONE = {"a": 1.0}


def test_it_is_the_weighted_sum_and_says_its_terms(batch):
    logits, target, weight = batch()
    parts = {"cross_entropy": CrossEntropy(), "dice": Dice()}
    loss = Sum(parts, {"cross_entropy": 0.5, "dice": 2.0})
    plain = {name: part(logits, target, weight).item() for name, part in parts.items()}
    assert loss(logits, target, weight).item() == pytest.approx(0.5 * plain["cross_entropy"] + 2 * plain["dice"])
    terms = loss.terms(loss.sums(logits, target, weight))
    assert {name: term.item() for name, term in terms.items()} == pytest.approx(plain)


def test_void_is_void_in_all_terms_also_of_an_inner_sum():
    inner = Sum({"a": Dice()}, ONE)
    loss = Sum({"a": CrossEntropy(), "b": inner}, {"a": 1, "b": 1}, ignore_index=7)
    assert [module.ignore_index for module in loss.modules() if hasattr(module, "ignore_index")] == [7] * 4


def test_a_term_may_be_left_out(batch):
    logits, target, _ = batch()
    loss = Sum({"a": CrossEntropy(), "b": None}, {"a": 1, "b": 1})
    assert loss(logits, target).item() == CrossEntropy()(logits, target).item()
    assert list(loss.terms(loss.sums(logits, target))) == ["a"]


def test_a_weight_map_is_asked_for_where_a_term_asks():
    assert Sum({"a": WeightedCrossEntropy()}, ONE).needs_weight
    assert not Sum({"a": CrossEntropy()}, ONE).needs_weight


@pytest.mark.parametrize(
    ("terms", "weights", "told"),
    [
        ({}, {}, r"loss\.terms=\{\}\n.*losses by name"),
        ({"a": None}, ONE, r"loss\.terms=\{'a': None\}"),
        ({"a": Dice()}, {}, r"loss\.terms of a and loss\.weights of none\n.*a factor for each.*\n.*loss\.terms\.a"),
        ({"a": Dice()}, {"a": 1, "b": 2}, r"loss\.weights of a, b\n.*\n.*loss\.weights\.b"),
        ({"a": Dice()}, {"a": -1}, r"loss\.weights\.a=-1\n.*0 or more\n.*loss\.weights\.a=1"),
        ({"a": Dice()}, {"a": math.nan}, r"loss\.weights\.a=nan"),
    ],
)
def test_terms_and_weights_that_do_not_fit_are_refused(terms, weights, told):
    with pytest.raises(SegbenchError, match=told):
        Sum(terms, weights)


def test_class_weights_are_those_of_terms_without_their_own(batch):
    logits, target, weight = batch()
    terms = {"a": CrossEntropy(class_weights=(1, 0, 1)), "b": Dice()}
    both = Sum(terms, dict(a=1, b=2), class_weights=(1, 2, 3))(logits, target, weight)
    alone = CrossEntropy(class_weights=(1, 0, 1))(logits, target, weight)
    torch.testing.assert_close(both, alone + 2 * Dice(class_weights=(1, 2, 3))(logits, target, weight))
