from dataclasses import replace

import pytest

from segbench.errors import SegbenchError
from segbench.experiment.check_decoding import idle_decoding, refuse_idle_decoding, refuse_other_cores
from segbench.metrics.decoding import Decoding
from segbench.spec import HeadSpec


def head(*names):
    return {"semantic": HeadSpec(names, ((0, 0, 0),) * len(names))}


HEADS = head("background", "cell")
WITH_BORDER = head("background", "cell", "border")


def test_objects_that_nothing_can_join_do_not_grow(tiny_config):
    cores, both = head("background", "cell", "core"), head("background", "cell", "border", "core")
    for given, heads in (
        ({"grow": 4}, HEADS),
        ({"grow": [0, 4]}, HEADS),
        ({"grow": 4, "method": "cores", "core_class": -1}, cores),
    ):
        with pytest.raises(SegbenchError, match=r"decoding\.grow=.*with the classes background, cell(.|\n)*beside"):
            refuse_idle_decoding(None, given, heads)
    of_cores = tiny_config("decoding=cores").decoding
    with pytest.raises(SegbenchError, match=r"decoding\.grow=4 with the classes background, cell, core\n"):
        refuse_idle_decoding(of_cores, {"grow": 4}, cores)
    refuse_idle_decoding(of_cores, {"grow": 4}, both)
    for given, heads in (
        ({"grow": 0}, HEADS),
        ({"grow": 4}, WITH_BORDER),
        ({"grow": 4, "core_class": [None, 2]}, WITH_BORDER),
        # The second class joins objects of the first.
        ({"grow": 4, "cell_class": 0}, HEADS),
    ):
        refuse_idle_decoding(None, given, heads)


def test_a_decoding_of_a_training_that_does_nothing_is_doubtful(tiny_config):
    def said(*overrides, heads=HEADS):
        return idle_decoding(tiny_config(*overrides).decoding, heads)

    assert said("decoding=watershed") == said("decoding=watershed", "decoding.grow=2", heads=WITH_BORDER) == []
    (idle,) = said("decoding=watershed", "decoding.grow=2")
    assert idle.startswith("decoding.grow=2 with the classes background, cell does nothing: it takes a class beside")
    (idle,) = said("+decoding.depth=3")
    assert idle.startswith("decoding.depth=3 with decoding.method=components does nothing: it takes decoding.method=w")


def test_cores_belong_to_a_decoding_and_to_the_data():
    colours = ((0, 0, 0), (255, 255, 255), (230, 80, 60))
    without = {"semantic": HeadSpec(("background", "cell", "border"), colours)}
    cores = {"semantic": HeadSpec(("background", "cell", "core"), colours)}

    at_cores, deep = Decoding(method="cores", core_class=-1), Decoding(method="watershed")
    refuse_other_cores(0.5, at_cores, cores)
    refuse_other_cores(0.5, replace(deep, core_class=-1), cores)
    refuse_other_cores(None, deep, without)
    with pytest.raises(SegbenchError, match=r"data.core=0.5 with decoding.core_class=null"):
        refuse_other_cores(0.5, deep, cores)
    with pytest.raises(SegbenchError, match=r"decoding.core_class=-1 .* classes background, cell, border"):
        refuse_other_cores(None, at_cores, without)
