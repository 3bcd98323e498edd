import numpy as np
import pytest
from tests.fixtures.numbered import NumberedData

from segbench.config.no_effect import counting
from segbench.errors import SegbenchError
from segbench.experiment.axes import make_loss
from segbench.experiment.build import refuse_misfits_of
from segbench.experiment.settled_by_data import asks_data, settle_by_data

TWO = ("experiment=quickstart", "name=x", "threads=1", "trainer=cpu", "trainer.precision=32-true")


def test_nothing_is_left_to_the_data_unless_asked(compose):
    config = compose(*TWO)
    assert not asks_data(config)
    assert settle_by_data(config, NumberedData())[0] == config


def test_every_auto_gets_its_value(compose):
    config = compose(*TWO, "augment=auto", "data.tile=auto", "data.balance=auto", "loss.class_weights=auto")
    refuse_misfits_of(config)
    settled, sentences = settle_by_data(config, NumberedData())
    refuse_misfits_of(settled)
    # 601 and 599 pixels of 1200 in the first image, 600 and 600 in the others.
    low, high = 2401 / 4800, 2399 / 4800
    assert settled.flat["loss.class_weights.low"] == pytest.approx((low + high) / 2 / low, abs=1e-6)
    assert settled.data.balance == {"low": 0.5, "high": 0.5}

    assert isinstance(settled.data.tile, int)
    assert settled.augment.pick == "flips" and len(settled.augment.arguments["transforms"]) == 1
    assert [sentence.split(":")[0] for sentence in sentences] == [
        *("data.tile", "augment", "loss.class_weights", "data.balance")
    ]
    assert settle_by_data(settled, NumberedData()) == (settled, [])


def test_labels_are_counted_once(compose, monkeypatch):
    from segbench.experiment import settled_by_data

    real, counted = settled_by_data.class_counts, []
    monkeypatch.setattr(settled_by_data, "class_counts", lambda *given: counted.append(given[1]) or real(*given))
    weights = ("loss.terms.cross_entropy.class_weights=auto", "loss.terms.dice.class_weights=auto")
    settle_by_data(compose(*TWO, "loss=cross_entropy_dice", *weights, "data.balance=auto"), NumberedData())
    assert counted == ["semantic"]


def test_terms_of_a_sum_are_weighted_alone_or_together(compose):
    alone = compose(*TWO, "loss=cross_entropy_dice", "loss.terms.cross_entropy.class_weights=auto")
    settled, _ = settle_by_data(alone, NumberedData())
    assert set(settled.flat) >= {"loss.terms.cross_entropy.class_weights.high"}
    head = NumberedData.spec.heads["semantic"]
    loss = make_loss(settled.loss_of("semantic"), head, "")
    terms = dict(loss._losses())
    assert terms["cross_entropy"].class_weights.shape == (2,) and terms["dice"].class_weights is None
    together = compose(*TWO, "loss=cross_entropy_dice", "loss.class_weights={high: 3}")
    terms = dict(make_loss(together.loss_of("semantic"), head, "")._losses())
    assert all(term.class_weights.tolist() == [1, 3] for term in terms.values())


def test_a_name_that_is_no_class_and_a_loss_without_weights_are_refused(compose):
    head = NumberedData.spec.heads["semantic"]
    with pytest.raises(SegbenchError, match=r"loss\.class_weights names car\n.*low, high\n"):
        make_loss(compose(*TWO, "loss=focal", "loss.class_weights={car: 3}").loss_of("semantic"), head, "")
    foreign = compose(*TWO, "loss._target_=torch.nn.CrossEntropyLoss", "loss.class_weights={high: 3}")
    with pytest.raises(SegbenchError, match=r"torch\.nn\.CrossEntropyLoss, which does not take them\n"):
        make_loss(foreign.loss_of("semantic"), head, "")


def test_transforms_that_are_given_win(compose):
    config = compose(*TWO, "augment=auto", "augment.transforms=[{_target_: albumentations.Transpose}]")
    settled, sentences = settle_by_data(config, NumberedData())
    assert settled.augment.pick is None and not sentences
    assert settled.augment.arguments["transforms"] == [{"_target_": "albumentations.Transpose"}]


def test_classes_without_a_pixel_are_told(compose, monkeypatch):
    monkeypatch.setattr("segbench.experiment.settled_by_data.class_counts", lambda *_: np.array([[5, 0]] * 4))
    config = compose(*TWO, "data.balance=auto", "loss.class_weights=auto")
    settled, sentences = settle_by_data(config, NumberedData())
    assert settled.flat["loss.class_weights.high"] == 1 and settled.data.balance == {"low": 1}
    assert sum("no training image shows high" in sentence for sentence in sentences) == 2


def test_runs_of_before_are_runs_of_the_same_settings(compose):
    flat = compose(*TWO).flat
    assert {"loss.class_weights", "data.balance"} <= set(flat)
    assert not {"loss.class_weights", "data.balance", "augment.pick"} & set(counting(flat))
    weighted = compose(*TWO, "loss.class_weights={high: 3}", "data.balance=auto").flat
    assert {"loss.class_weights.high", "data.balance"} <= set(counting(weighted))
