"""How many pictures a run takes; what is on them is tested with the runs that take them."""

import pytest

from segbench.errors import SegbenchError
from segbench.training.callbacks.pictures import Inspect, Panels


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda folder: Panels(folder, count=-1), r"callbacks\.panels\.count=-1"),
        (lambda folder: Panels(folder, table=-1), r"callbacks\.panels\.table=-1"),
        (lambda folder: Inspect(folder, count=-1), r"callbacks\.inspect\.count=-1"),
    ],
)
def test_fewer_than_no_pictures_are_refused(make, key, tmp_path):
    with pytest.raises(SegbenchError, match=key):
        make(tmp_path)
