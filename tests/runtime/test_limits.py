from pathlib import Path

import pytest

from segbench.errors import SegbenchError
from segbench.runtime.limits import FREE, RATIO, VARIABLE, refuse_bomb

FILE = Path("a.tif")


def test_what_every_file_may_take_is_not_even_counted():
    refuse_bomb(FILE, FREE, lambda: pytest.fail("counted"))


def test_more_needs_bytes_that_can_give_it():
    refuse_bomb(FILE, FREE + 1, FREE // RATIO + 1)
    with pytest.raises(SegbenchError, match=r"a\.tif declares .* bytes in memory, stored in 1,000\n.*4096 for each"):
        refuse_bomb(FILE, FREE + 1, 1000)


def test_no_file_may_take_more_than_the_machine_has_unless_it_is_read_in_parts():
    with pytest.raises(SegbenchError, match="this machine's"):
        refuse_bomb(FILE, 2**60, 2**60)
    refuse_bomb(FILE, 2**60, 2**60, in_parts=True)


def test_the_limit_can_be_set(monkeypatch):
    monkeypatch.setenv(VARIABLE, "100")
    with pytest.raises(SegbenchError, match=rf"at most 100 bytes.*\n.*{VARIABLE}=101"):
        refuse_bomb(FILE, 101, 0)
    monkeypatch.setenv(VARIABLE, "many")
    with pytest.raises(SegbenchError, match=rf"{VARIABLE}=many\n.*bytes"):
        refuse_bomb(FILE, 101, 0)
