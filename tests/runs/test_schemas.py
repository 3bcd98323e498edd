"""results.json of a stranger: whatever stands in it, a report and a comparison say what is wrong with it."""

import json
import shutil

import pytest

from segbench.compare.reading import read_run
from segbench.compare.records import LeftOut
from segbench.errors import SegbenchError
from segbench.report.run_page import run_sections
from segbench.runs.directory import Run

EVERY = {
    "protocol": (
        *("dataset", "split", "checkpoint", "checkpoint_chosen_by", "precision", "tta", "tta_scales", "input_scale"),
        *(
            "tile",
            "threads",
            "calibration",
            "median",
            "match_histogram",
            "ensemble",
            "paper",
            "debug",
            "ended_by",
            "continued",
            "versions",
        ),
    ),
    "provenance": (
        *("command", "started", "python", "platform", "processor", "device", "precision", "run", "git", "versions"),
        *("own_code", "legs", "resumed", "processes", "threads", "device_memory_gib"),
    ),
}
_BESIDE = shutil.ignore_patterns("checkpoints", "panels", "extremes", "csv", "*.npz", "metrics.csv")
ODD = (5, "x", True, None, [1], {"a": 1}, {"a": {}}, [[]], {}, [])


@pytest.fixture
def foreign(tiny_run, tmp_path):
    """`foreign(section, key, value)`: the tiny run, whose results say something else."""
    shutil.copytree(tiny_run, tmp_path / "run", ignore=_BESIDE)
    whole = json.loads((tiny_run / "results.json").read_text())

    def written(section, key, value):
        changed = whole | {section: whole[section] | {key: value}}
        (tmp_path / "run" / "results.json").write_text(json.dumps(changed))
        return tmp_path / "run"

    return written


def test_what_segbench_writes_is_read(tiny_run):
    assert set(Run(tiny_run).results()["protocol"]) - {"versions"} <= set(EVERY["protocol"])


@pytest.mark.parametrize(("section", "key"), [(section, key) for section, keys in EVERY.items() for key in keys])
def test_an_odd_value_is_read_or_told(foreign, section, key):
    for value in ODD:
        run = foreign(section, key, value)
        record = read_run(run)
        if not isinstance(record, LeftOut):
            run_sections(record)
            assert Run(run).results()[section][key] == value
            continue
        assert f"{section}.{key}" in record.reason
        if key != "versions":
            with pytest.raises(SegbenchError, match=rf"{section}\.{key}"):
                Run(run).results()
