"""Values of the challenge's own program: small synthetic cases from oracle/, the large ones from beside the clone."""

import gzip
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent / "oracle"
BESIDE = Path(__file__).parents[3] / "shared" / "oracle" / "isbi_metrics"
SMALL = sorted(path.stem for path in HERE.glob("*.npz"))
LARGE = ["p_real512", "p_real_stack3_256", "p_vor512_a", "p_vor512_b"]


class Case:
    """One case: a stack with the plugin's images at threshold 0.5 and its values at every threshold."""

    def __init__(self, arrays, values):
        self.label_NHW, self.prob_NHW = arrays["label"], arrays["prob"]
        self.warped_NHW, self.mismatch_NHW, self.thin_NHW = (
            arrays[f"{kind}_th05"] for kind in ("warped", "mismatch", "thin")
        )
        self.values = values
        self.summary = values["summary"]

    @staticmethod
    def column(rows, key):
        """One value of each row as float64; the plugin's "NaN" becomes NaN."""
        return np.array([float(row[key]) for row in rows])


@cache
def small_values():
    return json.loads(gzip.decompress((HERE / "values.json.gz").read_bytes()))


@cache
def load_case(name):
    folder = BESIDE if name in LARGE else HERE
    path = folder / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"no {path}: the large cases, some on slices that may not be copied, lie beside the clone")
    with np.load(path) as arrays:
        values = json.loads(path.with_suffix(".json").read_text()) if name in LARGE else small_values()[name]
        return Case(dict(arrays), values)


@pytest.fixture(params=SMALL + LARGE)
def case(request):
    """Every case in turn."""
    return load_case(request.param)
