"""A run directory that version 0.1.0 wrote: every command takes it, as docs/upgrade.md says.

fixtures/run_of_0_1_0 is what its `segbench train trainer.max_steps=4 trainer.val_check_interval=2 model.width=2
model.depth=2 data.train=2 data.val=1 data.test=2 data.height=64 data.width=64 data.tile=64 data.batch_size=1 threads=1
trainer.precision=32-true` left at commit 9151040, without its pictures.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segbench.compare import compare
from segbench.runs.directory import Run

WRITTEN = Path(__file__).parents[1] / "fixtures" / "run_of_0_1_0"


@pytest.fixture
def former(tmp_path, monkeypatch):
    """A copy of it, and an empty working directory around."""
    monkeypatch.chdir(tmp_path)
    return Run(shutil.copytree(WRITTEN, tmp_path / "former"))


def test_its_scores_are_the_same(former, call):
    # Older versions draw other slices.
    pytest.importorskip("numpy", minversion="2")
    code, out, err = call("evaluate", f"run={former.path}", "hydra.run.dir=again")
    assert code == 0, out + err
    then, now = former.results()["metrics"], Run(Path("again")).results()["metrics"]
    assert len(then) > 10
    assert {key: now[key] for key in then} == pytest.approx(then, abs=1e-3)


def test_masks_hold_indices_and_say_so(former, call):
    code, out, err = call("predict", f"run={former.path}", "split=test", "output=masks")
    assert code == 0, out + err
    told = json.loads(Path("masks/classes.json").read_text())["semantic"]
    assert [each["value"] for each in told["classes"]] == [0, 1]
    for name in former.splits()["test"]:
        assert set(np.unique(np.asarray(Image.open(f"masks/{name}.png")))) <= {0, 1}


def test_continued_to_more_steps_it_is_a_setting_of_its_own(former, call):
    # An older one warns of a newer one's checkpoint.
    pytest.importorskip("lightning", minversion="2.6.6")
    code, out, err = call("train", f"resume={former.path}", "trainer.max_steps=6")
    assert code == 0, out + err
    assert former.results()["protocol"]["continued"] == ["at step 4: trainer.max_steps 4 -> 6"]
    assert len(compare([str(WRITTEN), str(former.path)], metric="mean_iu").table.groups) == 2
    code, out, err = call("report", former.path)
    assert code == 0, out + err
    assert "trainer.max_steps 4 -&gt; 6" in (former.path / "report.html").read_text()


def test_its_network_is_exported(former, call):
    code, out, err = call("export", f"run={former.path}", "format=pt2", "output=network.pt2")
    assert code == 0, out + err
    assert Path("network.pt2").is_file()
