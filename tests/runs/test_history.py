import pytest

from segbench.errors import SegbenchError
from segbench.runs.history import Leg, continuations, effective, read_legs

CONFIG = {"seed": 1, "trainer": {"max_steps": 4, "devices": 1}}
BEGAN = Leg(0, settled={"threads": 2})
LONGER = Leg(4, {"trainer.max_steps": 60})


def test_a_leg_comes_back_and_half_a_line_is_none():
    text = BEGAN.line() + LONGER.line()
    assert read_legs(text + LONGER.line()[:-5]) == [BEGAN, LONGER]
    with pytest.raises(SegbenchError, match="line 1, is damaged: step"):
        read_legs('{"changes": {}}\n')


def test_what_holds_at_the_end_is_what_the_last_continuation_said():
    assert effective(CONFIG, [BEGAN]) == CONFIG
    assert effective(CONFIG, [BEGAN, LONGER, Leg(60, {"trainer.max_steps": 70, "trainer.devices": 2})]) == {
        "seed": 1,
        "trainer": {"max_steps": 70, "devices": 2},
    }
    assert CONFIG["trainer"]["max_steps"] == 4
    # Cut off before its first leg was written, it begins with what the next command says.
    assert effective(CONFIG, [Leg(0, {"trainer.max_steps": 6})])["trainer"]["max_steps"] == 6


def test_each_continuation_is_a_sentence_and_one_that_changed_nothing_is_none():
    legs = [BEGAN, Leg(2), LONGER, Leg(60, {"trainer.max_steps": 70})]
    assert continuations(CONFIG, legs) == [
        "at step 4: trainer.max_steps 4 -> 60",
        "at step 60: trainer.max_steps 60 -> 70",
    ]
    assert continuations(CONFIG, [BEGAN, Leg(2)]) == []


def test_a_run_without_history_that_did_more_than_it_was_asked_for_was_continued():
    assert effective(CONFIG, [], 60.0)["trainer"]["max_steps"] == 60
    assert continuations(CONFIG, [], 60.0) == ["trainer.max_steps 4 -> 60, at an unknown step"]
    assert effective(CONFIG, [], 3.0) == CONFIG
    assert continuations(CONFIG, [], 4.0) == []
