import json

import cv2
import numpy as np
import pytest

from segbench.data.folder.cache import user_cache
from segbench.data.folder.scan import scan_images, scan_masks


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The user's cache is the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


def noise(*shape, dtype=np.uint8, seed=0):
    high = 256 if dtype == np.uint8 else 65536
    return np.random.default_rng(seed).integers(0, high, shape).astype(dtype)


def test_images_and_masks_of_one_folder_do_not_mix(folder):
    cv2.imwrite(str(folder / "a.png"), noise(9, 7))
    scan_images(folder, ["a.png"])
    assert scan_masks(folder, ["a.png"]).decoded == 1
    assert scan_images(folder, ["a.png"]).decoded == 0


def test_a_moved_folder_keeps_what_is_known(folder):
    cv2.imwrite(str(folder / "a.png"), noise(9, 7))
    scan_images(folder, ["a.png"])
    moved = folder.rename(folder.parent / "moved")
    assert scan_images(moved, ["a.png"]).decoded == 0


def test_where_the_folder_is_closed_the_users_cache_is_taken(folder):
    cv2.imwrite(str(folder / "a.png"), noise(9, 7))
    # A directory of that name cannot be replaced by a file, whoever tries.
    (folder / ".segbench-images.json").mkdir()
    first = scan_images(folder, ["a.png"])
    assert first.cache is not None and first.cache.parent == user_cache() / "scans"
    assert scan_images(folder, ["a.png"]).decoded == 0
    assert [path.name for path in folder.iterdir() if "partial" in path.name] == []


def test_where_nothing_can_be_written_the_scan_goes_on(folder, tmp_path):
    cv2.imwrite(str(folder / "a.png"), noise(9, 7))
    (folder / ".segbench-images.json").mkdir()
    (tmp_path / "cache").write_text("a file")
    scan = scan_images(folder, ["a.png"])
    assert scan.decoded == 1 and scan.cache is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 0, "files": {"a.png": [1, 2, []]}}', '{"version": 1}'])
def test_a_cache_of_another_kind_is_ignored(folder, content):
    cv2.imwrite(str(folder / "a.png"), noise(9, 7))
    (folder / ".segbench-images.json").write_text(content)
    assert scan_images(folder, ["a.png"]).decoded == 1
    assert json.loads((folder / ".segbench-images.json").read_text())["files"].keys() == {"a.png"}
