"""The wheel stands by itself: its configs are inside it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The wheel's content, as an installer lays it out: pure Python is unpacked as it is."""
    folder = tmp_path_factory.mktemp("wheel")
    # Without isolation: nothing is fetched.
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, REPO]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_every_config_and_module(unpacked):
    for source, packed in ((REPO / "conf", "segbench/conf"), (REPO / "src" / "segbench", "segbench")):
        files = [path for path in source.rglob("*") if path.suffix in (".yaml", ".py", ".typed")]
        missing = [path for path in files if not (unpacked / packed / path.relative_to(source)).is_file()]
        assert not missing
        assert files


def test_the_command_is_declared(unpacked):
    (declared,) = unpacked.glob("segbench-*.dist-info/entry_points.txt")
    assert "segbench = segbench.cli.main:main" in declared.read_text()


def test_from_elsewhere_the_wheel_runs_on_its_own_configs(unpacked, tmp_path):
    config = unpacked / "segbench" / "conf" / "train.yaml"
    config.write_text(config.read_text() + "\nfrom_the_wheel: true\n")
    done = subprocess.run(
        [sys.executable, "-m", "segbench.train", "--cfg", "job", "experiment=unet_isbi_em"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown = yaml.safe_load(done.stdout)
    assert shown["from_the_wheel"] is True
    assert shown["paper"]["row"] == "unet_isbi_em"
