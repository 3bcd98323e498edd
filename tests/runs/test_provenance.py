import json
import sys
from pathlib import Path

import segbench
from segbench.runs.provenance import provenance


def test_provenance_names_code_versions_and_machine(monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(Path(segbench.__file__).with_name("train.py")), "model.names=[a, b]"])
    recorded = provenance()
    # As it can be typed again.
    assert recorded["command"] == "segbench train 'model.names=[a, b]'"
    assert recorded["versions"]["segbench"]
    assert recorded["versions"]["torch"].startswith("2.")
    assert recorded["cpus"] >= 1
    assert recorded["started"].startswith("20")
    json.dumps(recorded)
