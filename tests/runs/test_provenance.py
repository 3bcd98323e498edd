import hashlib
import json
import subprocess
import sys
from importlib.metadata import FileHash, PackagePath
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


def test_only_a_clone_of_this_code_has_a_commit(tmp_path, monkeypatch):
    from segbench.runs import provenance as module

    def git(*arguments):
        subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", *arguments], cwd=tmp_path, check=True)

    clone = tmp_path / "in a larger repository"
    package = clone / "src" / "package"
    for folder in (package / "runs", clone / "conf"):
        folder.mkdir(parents=True)
    for file in (package / "errors.py", clone / "pyproject.toml"):
        file.write_text("")
    monkeypatch.setattr(module, "conf_root", lambda: clone / "conf")
    monkeypatch.setattr(module, "__file__", str(package / "runs" / "provenance.py"))
    # Neither a commit nor a wheel: nobody else can have this code.
    assert provenance()["git"] == {"commit": "unknown", "dirty": True}
    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--message", "first")
    assert provenance()["git"]["dirty"] is False
    # A result beside the code is no change of it, another line of code is.
    (tmp_path / "row.yaml").write_text("")
    assert provenance()["git"]["dirty"] is False
    (package / "errors.py").write_text("x = 1")
    assert provenance()["git"]["dirty"] is True
    monkeypatch.setenv("PATH", "")
    assert provenance()["git"] == {"commit": "unknown", "dirty": True}


def test_a_wheel_has_no_commit_unless_it_was_changed(tmp_path, monkeypatch):
    from segbench.runs import provenance as module

    (tmp_path / "conf").mkdir()
    (tmp_path / "errors.py").write_text("")
    monkeypatch.setattr(module, "conf_root", lambda: tmp_path / "conf")

    class Packed(PackagePath):
        hash = FileHash(f"sha256={module._hash(tmp_path / 'errors.py')}")

        def locate(self):
            return tmp_path / self.name

    class Wheel:
        files = (Packed("segbench/errors.py"),)

    monkeypatch.setattr(module, "distribution", lambda name: Wheel)
    assert provenance()["git"] is None
    (tmp_path / "errors.py").write_text("x = 1")
    assert provenance()["git"] == {"commit": "a wheel", "dirty": True}


def test_classes_of_the_user_are_named_with_the_digest_of_their_file(tmp_path, monkeypatch):
    (tmp_path / "my_losses.py").write_text("class Loss: ...")
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = {
        "loss._target_": "my_losses.Loss",
        "model._target_": "segbench.models.UNet",
        "optimizer._target_": "torch.optim.SGD",
        "callbacks.x._target_": "nowhere.At",
        "name": "my_losses.Loss",
    }
    digest = hashlib.sha256(b"class Loss: ...").hexdigest()
    assert provenance(settings)["own_code"] == {"my_losses.Loss": digest, "nowhere.At": "no file"}


def test_packages_that_a_run_names_are_recorded_with_their_version():
    named = provenance({"callbacks.x._target_": "pytest.Item", "model._target_": "nowhere.At"}, ["hypothesis"])
    assert {"pytest", "hypothesis"} <= named["versions"].keys() and "nowhere" not in named["versions"]
    assert not {"pytest", "hypothesis"} & provenance()["versions"].keys()
