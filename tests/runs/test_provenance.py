import hashlib
import json
import subprocess
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


def test_only_a_clone_of_this_code_has_a_commit(tmp_path, monkeypatch):
    from segbench.runs import provenance as module

    def git(*arguments):
        subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", *arguments], cwd=tmp_path, check=True)

    package = tmp_path / "src" / "package"
    package.mkdir(parents=True)
    (package / "code.py").write_text("")
    (tmp_path / ".gitignore").write_text("site")
    site = tmp_path / "site"
    site.mkdir()
    (site / "code.py").write_text("")
    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--message", "first")
    monkeypatch.setattr(module, "__file__", str(package / "code.py"))
    assert provenance()["git"]["dirty"] is False
    # A result beside the code is no change of it, another line of code is.
    (tmp_path / "row.yaml").write_text("")
    assert provenance()["git"]["dirty"] is False
    (package / "code.py").write_text("x = 1")
    assert provenance()["git"]["dirty"] is True
    # Installed below somebody's repository, which is not this code's.
    monkeypatch.setattr(module, "__file__", str(site / "code.py"))
    assert provenance()["git"] is None


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
