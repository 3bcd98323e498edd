import math

import pytest

from segbench.errors import SegbenchError
from segbench.runs.curves import rows, validation_of


def test_the_validation_of_a_checkpoint_is_the_last_one_before_it(tmp_path):
    (tmp_path / "metrics.csv").write_text(
        "step,train/loss,val/mean_iu,test/mean_iu\n"
        "1,,0.5,\n"  # after step 2
        "2,0.3,,\n"
        "3,,0.7,\n"
        "5,,nan,\n"
        "6,,,0.9\n"
        "7,0.1"
    )
    assert [step for step, _ in rows(tmp_path)] == [1, 2, 3, 5, 6]
    assert validation_of(tmp_path, 2) == {"val/mean_iu": 0.5}
    assert validation_of(tmp_path, 4) == {"val/mean_iu": 0.7}
    assert validation_of(tmp_path, 1) == {}
    assert math.isnan(validation_of(tmp_path)["val/mean_iu"])


def test_no_file_has_no_rows(tmp_path):
    assert rows(tmp_path) == []


@pytest.mark.parametrize("content", [b"step,a\n1,\xff\n", b"step,a\n1,0.20.3\n", b"step,a\nx,1\n", b"step,a\n1,2,3\n"])
def test_a_damaged_table_is_told(tmp_path, content):
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(SegbenchError, match=r"metrics\.csv is damaged"):
        rows(tmp_path)
