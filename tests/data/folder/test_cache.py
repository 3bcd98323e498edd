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


def test_nothing_is_written_beside_the_images(folder):
    cv2.imwrite(str(folder / "a.png"), noise(9, 7))
    first = scan_images(folder, ["a.png"])
    assert first.cache is not None and first.cache.parent == user_cache() / "scans"
    assert scan_images(folder, ["a.png"]).decoded == 0
    assert [path.name for path in folder.iterdir()] == ["a.png"]


def test_what_an_earlier_version_left_in_the_folder_is_read(folder):
    cv2.imwrite(str(folder / "a.png"), noise(9, 7))
    scan_images(folder, ["a.png"]).cache.rename(folder / ".segbench-images.json")
    assert scan_images(folder, ["a.png"]).decoded == 0


def test_where_nothing_can_be_written_the_scan_goes_on(folder, tmp_path):
    cv2.imwrite(str(folder / "a.png"), noise(9, 7))
    (tmp_path / "cache").write_text("a file")
    scan = scan_images(folder, ["a.png"])
    assert scan.decoded == 1 and scan.cache is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 0, "files": {"a.png": [1, 2, []]}}', '{"version": 1}'])
def test_a_cache_of_another_kind_is_ignored(folder, content):
    cv2.imwrite(str(folder / "a.png"), noise(9, 7))
    cache = scan_images(folder, ["a.png"]).cache
    cache.write_text(content)
    assert scan_images(folder, ["a.png"]).decoded == 1
    assert json.loads(cache.read_text())["files"].keys() == {"a.png"}
