import subprocess
import sys
from pathlib import Path

import pytest

from segbench.config.explain import explained
from segbench.errors import SegbenchError
from segbench.runtime.torchvision import refuse_broken_torchvision

BROKEN = "raise RuntimeError('operator torchvision::nms does not exist')\n"


@pytest.fixture
def broken(tmp_path):
    """A folder with a torchvision that fails as one of another build does, and its distribution."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(BROKEN)
    (tmp_path / "torchvision-0.99.dist-info").mkdir()
    (tmp_path / "torchvision-0.99.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: torchvision\nVersion: 0.99\n"
    )
    return tmp_path


def test_it_is_told_in_three_parts(broken, monkeypatch):
    monkeypatch.syspath_prepend(str(broken))
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    with pytest.raises(SegbenchError, match=r"torchvision 0\.99 cannot be imported beside torch") as caught:
        refuse_broken_torchvision()
    assert "pip uninstall torchvision" in caught.value.action


def test_one_that_is_missing_or_works_is_no_matter(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refuse_broken_torchvision()
    assert explained(RuntimeError("operator aten::nms does not exist")) is None


def test_a_command_explains_it_wherever_it_is_raised():
    told = explained(RuntimeError("operator torchvision::nms does not exist"))
    assert told is not None and "torchmetrics and lightning import it" in told.found


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["-m", "segbench", "train"], marks=pytest.mark.slow),
        ["-c", "import segbench; segbench.compose()"],
    ],
)
def test_a_command_and_python_tell_it_at_the_start(command, broken, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{broken}:{Path(__file__).parents[2] / 'src'}")
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert "torchvision 0.99 cannot be imported beside torch" in done.stderr
