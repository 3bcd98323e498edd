"""The wheel stands by itself: its configs are inside it."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the source archive and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("wheel")
    # Without isolation: nothing is fetched.
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, REPO]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture(scope="module")
def unpacked(built):
    """The wheel's content, as an installer lays it out: pure Python is unpacked as it is."""
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(built / "site")
    return built / "site"


def test_the_wheel_holds_every_config_and_file_of_the_package_and_nothing_else(unpacked):
    assert {path.name for path in unpacked.iterdir() if path.suffix != ".dist-info"} == {"segbench", "hydra_plugins"}
    assert (unpacked / "segbench" / "py.typed").is_file()
    sources = {"segbench": "src/segbench", "segbench/conf": "conf", "hydra_plugins": "src/hydra_plugins"}
    expected = {f"{packed}/{name}" for packed, source in sources.items() for name in files(REPO / source)}
    packed = files(unpacked)
    assert {name for name in packed if ".dist-info/" not in name} == expected


def files(folder):
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if "__pycache__" not in path.parts}


def test_the_source_archive_holds_no_tests_and_nothing_that_runs_wrote(built):
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        top = {member.name.split("/")[1] for member in opened if "/" in member.name}
    listed = {"src", "conf", "examples", "README.md", "CHANGELOG.md", "LICENSE", "constraints.txt", "Makefile"}
    listed |= {"constraints-networks.txt", "requirements.txt"}
    # These are the builder's.
    assert top == listed | {"pyproject.toml", "PKG-INFO", ".gitignore"}


def test_the_description_is_the_readme_with_no_link_that_leads_nowhere_on_an_index(unpacked):
    (metadata,) = unpacked.glob("segbench-*.dist-info/METADATA")
    description = metadata.read_text().partition("\n\n")[2]
    headings = re.compile(r"^#.*$", re.MULTILINE)
    assert headings.findall(description) == headings.findall((REPO / "README.md").read_text())
    links = re.findall(r"\]\(([^)]*)\)", description)
    assert links and all(link.startswith("https://") for link in links)
    assert "quickstart.png" not in description and "A test slice" not in description


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
