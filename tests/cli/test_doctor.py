"""What `segbench doctor` finds, and what it complains of."""

import json
import shutil
from collections import namedtuple

from segbench.cli import doctor


def test_it_tells_the_machine_as_text_and_as_json(call, monkeypatch):
    monkeypatch.setattr(doctor, "LOW_SHARED_MEMORY", 0)
    monkeypatch.setattr(doctor, "_LOW_DISK", 0)
    code, out, _ = call("doctor", "--json")
    found = json.loads(out)
    assert found["versions"]["torch"] and found["cores"] >= 1 and found["memory_gib"] > 0
    assert code == (1 if found["problems"] else 0)
    code, out, _ = call("doctor")
    assert f"torch {found['versions']['torch']}" in out and "W&B" in out


def test_a_broken_torchvision_is_told_once(monkeypatch):
    def broken(name):
        if name in ("torchvision", "torchmetrics", "lightning"):
            raise RuntimeError("operator torchvision::nms does not exist")
        if name == "cv2":
            raise ImportError("libGL.so.1")

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: name)
    found, problems = doctor._import()
    assert list(found["broken"]) == ["torchvision", "torchmetrics", "lightning", "cv2"]
    of_torchvision, of_cv2 = problems
    assert "nms" in of_torchvision and "pip uninstall torchvision" in of_torchvision
    assert of_cv2 == "cv2 is installed and cannot be imported (ImportError: libGL.so.1)"


def test_little_room_is_told(monkeypatch, tmp_path):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**30, 0, 2**26))
    monkeypatch.setenv("SEGBENCH_OUTPUTS", str(tmp_path / "none" / "yet"))
    found, problems = doctor._disk()
    assert found["disk_free_gib"] == 0.1
    assert [("GiB free" in each, "/dev/shm" in each) for each in problems] == [(True, False), (False, True)]


def test_more_threads_than_cores_are_told(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "999")
    assert "OMP_NUM_THREADS=999" in doctor._threads()[1][0]
