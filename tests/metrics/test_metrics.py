"""The examples in the docstrings run, every name of the package loads, and loading it is cheap."""

import doctest
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import segbench.metrics

# Not states: it wraps torchmetrics and is tested with the framework.
MODULES = sorted(
    path.stem for path in Path(segbench.metrics.__file__).parent.glob("*.py") if path.stem not in ("__init__", "states")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    assert doctest.testmod(import_module(f"segbench.metrics.{name}")).failed == 0


@pytest.mark.parametrize("name", segbench.metrics.__all__)
def test_every_name_loads(name):
    assert getattr(segbench.metrics, name) is not None
    assert name not in MODULES  # a module of that name would hide it


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'rand_score'"):
        segbench.metrics.rand_score  # noqa: B018


def test_the_package_alone_loads_nothing_heavy():
    code = "import sys, segbench.metrics; print(*{'numba', 'cv2', 'torch', 'numpy'} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == []


def test_metrics_load_neither_torch_nor_scikit_image():
    names = ", ".join(f"segbench.metrics.{name}" for name in MODULES)
    code = (
        f"import sys, {names}; print(*{{'torch', 'lightning', 'skimage', 'hydra', 'torchmetrics'}} & set(sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == []
