import numpy as np
import pytest

from segbench.errors import SegbenchError
from segbench.metrics.region_runs import region_runs


def test_an_image_whose_places_do_not_fit_32_bits_is_refused():
    # A view of one pixel: nothing of that size is in memory.
    with pytest.raises(SegbenchError, match="100000 x 100000 pixels"):
        region_runs(np.broadcast_to(np.True_, (100_000, 100_000)))
