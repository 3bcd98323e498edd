"""What classes take is read from their source as Python itself would tell it."""

import inspect
import subprocess
import sys

import pytest

from segbench.config.instances import located
from segbench.config.outlines import arguments, names
from segbench.config.trust import packaged_targets

OTHERS = (
    *("torch.optim.RAdam", "torch.optim.lr_scheduler.OneCycleLR", "torch.nn.CrossEntropyLoss"),
    *("lightning.pytorch.callbacks.EarlyStopping", "albumentations.GaussNoise"),
    "torchmetrics.classification.MulticlassCalibrationError",
)


@pytest.mark.parametrize("target", [*sorted(packaged_targets()), *OTHERS])
def test_the_arguments_are_those_of_the_signature(target):
    known = arguments(target)
    signature = inspect.signature(located(target)).parameters.values()
    named = [each.name for each in signature if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)]
    # Further ones go to a base class.
    assert [name for name in known if name in named] == named
    assert known == named or any(each.kind == each.VAR_KEYWORD for each in signature)


def test_nothing_is_imported():
    code = (
        "import sys; from segbench.config.outlines import arguments, names; "
        "assert 'lr' in arguments('torch.optim.RAdam'); assert names('lightning.pytorch.callbacks.Ea'); "
        "sys.exit(bool({'torch', 'lightning', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_module_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("from .parts import *\nfrom .parts import Net as Other\n")
    (tmp_path / "mine" / "parts.py").write_text(
        "from dataclasses import dataclass\nfrom torch import nn\n\nif True:\n"
        "    class Base:\n        def __init__(self, width, *, depth=2): ...\n\n"
        "class Net(Base):\n    def __init__(self, extra, **rest): ...\n\n"
        "class Same(Base):\n    pass\n\n@dataclass\nclass Pair:\n    a: int\n    b: int = 2\n\n"
        "class Loss(nn.CrossEntropyLoss): ...\n\ndef make(a, /, b, *, c): ...\n\ndef _private(): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert arguments("mine.Net") == arguments("mine.Other") == ["extra", "width", "depth"]
    assert arguments("mine.Same") == ["width", "depth"]
    assert arguments("mine.parts.Pair") == ["a", "b"]
    assert arguments("mine.make") == ["a", "b", "c"]
    assert "label_smoothing" in arguments("mine.Loss")
    assert names("mine.") == [
        f"mine.{name}" for name in ("Base", "Loss", "Net", "Other", "Pair", "Same", "make", "parts.")
    ]
    assert names("min") == ["mine."] or "mine." in names("min")
    assert names("mine.nothing.") == arguments("mine.Nothing") == arguments("nowhere.Net") == []


def test_a_file_that_is_no_python_has_no_names(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("class Net(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert names("broken.") == arguments("broken.Net") == []
