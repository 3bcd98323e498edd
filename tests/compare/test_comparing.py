import doctest
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

import segbench.compare
from segbench.compare import comparing
from segbench.compare.comparison import Settings
from segbench.compare.grouping import group_runs
from segbench.compare.pairwise import compare_groups
from segbench.compare.reading import read_runs
from segbench.errors import SegbenchError


@pytest.fixture
def four(make_run, tmp_path):
    """Two seeds of two configurations, the second better."""
    for seed in range(2):
        make_run(f"narrow/{seed}", seed=seed, accuracy=0.7, optimizer={"lr": 1})
        make_run(f"wide/{seed}", seed=seed, accuracy=0.9, optimizer={"lr": 2})
    return [str(tmp_path / "narrow"), str(tmp_path / "wide")]


def test_the_example_of_the_documentation(make_run, tmp_path, monkeypatch, capsys):
    for seed in range(2):
        make_run(f"outputs/narrow/{seed}", seed=seed, accuracy=0.7, optimizer={"lr": 1})
        make_run(f"outputs/wide/{seed}", seed=seed, accuracy=0.9, optimizer={"lr": 2})
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[2] / "docs" / "tutorials" / "compare.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    exec(example, {})
    printed = capsys.readouterr().out
    assert "B is better than A in mean_iu" in printed
    assert "With 80 % power, A and B with 2 and 2 runs on 40 images" in printed


def test_a_record_of_each_pair(four):
    found = segbench.compare.compare(four, metric="mean_iu", plan=0.01)
    (pair,) = found.pairs
    (d,) = pair.differences
    low, high = d.interval
    assert low < d.difference == d.scores[1] - d.scores[0] < high
    assert 0 < d.p == d.p_adjusted < 0.05
    assert pair.sentences[0].startswith("B is better than A in mean_iu")
    assert found.method[1].startswith("Several runs: p and interval by Student's t")
    assert pair.plan.difference == 0.01
    with pytest.raises(FrozenInstanceError):
        d.p = 1.0


def test_it_is_what_its_steps_are(four):
    by_steps = compare_groups(group_runs(*read_runs(four)), Settings(("mean_iu",), baseline="B", draws=500))
    found = segbench.compare.compare(four, metric=["mean_iu"], baseline="B", draws=500)
    assert found.pairs == by_steps.pairs
    assert (found.pairs[0].first, found.pairs[0].second) == ("B", "A")


def test_the_other_settings_reach_it(four):
    found = segbench.compare.compare(Path(four[0]), seeds_apart=True, ignore=["trainer.devices"], draws=500, images=2)
    assert [group.label for group in found.table.groups] == ["seed=0", "seed=1"]
    assert len(found.pairs[0].changed) == 2


@pytest.mark.parametrize(
    ("setting", "said"), [({"plan": 0.0}, "plan=0\n"), ({"metric": "iou"}, "metric=iou\n"), ({"draws": 1}, "draws=1\n")]
)
def test_bad_values_are_refused(four, setting, said):
    with pytest.raises(SegbenchError, match=said):
        segbench.compare.compare(four, **setting)


def test_nothing_to_compare(make_run, tmp_path):
    make_run("a", state="failed")
    with pytest.raises(SegbenchError, match=r"no run with results among 1 .*\n.*runs that were scored\n.*evaluate"):
        segbench.compare.compare([str(tmp_path)])


def test_examples():
    assert doctest.testmod(comparing).failed == 0


def test_importing_the_package_is_cheap():
    code = (
        "import sys, segbench.compare as c; loaded = {'numpy', 'scipy', 'yaml', 'torch'} & set(sys.modules)\n"
        "assert not loaded, loaded\nc.compare\nassert not {'torch', 'lightning', 'scipy'} & set(sys.modules)\n"
        "try:\n    c.other\nexcept AttributeError as error:\n    assert 'other' in str(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
