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


def test_where_nothing_can_be_written_the_scan_goes_on(folder, tmp_path):
    cv2.imwrite(str(folder / "a.png"), noise(9, 7))
    (tmp_path / "cache").write_text("a file")
    scan = scan_images(folder, ["a.png"])
    assert scan.decoded == 1 and scan.cache is None


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 0, "files": {"a.png": [[1, 2], []]}}', '{"version": 1}']
)
def test_a_cache_of_another_kind_is_ignored(folder, content):
    cv2.imwrite(str(folder / "a.png"), noise(9, 7))
    cache = scan_images(folder, ["a.png"]).cache
    cache.write_text(content)
    assert scan_images(folder, ["a.png"]).decoded == 1
    assert json.loads(cache.read_text())["files"].keys() == {"a.png"}


@pytest.mark.parametrize(
    ("scan", "place", "value"),
    [
        (scan_images, 0, -1),
        (scan_images, 0, 1e999),
        (scan_images, 2, "uint9"),
        (scan_images, 2, "S[/red]"),
        (scan_images, 3, [["[/red]", 1]]),
        (scan_images, 3, []),
        (scan_images, 3, [[9, 1]]),
        (scan_images, 4, 64),
        (scan_images, 5, 9),
        (scan_masks, 2, "other"),
        (scan_masks, 5, [[1]]),
        (scan_masks, 6, [1]),
    ],
)
def test_a_damaged_cache_is_reported_and_the_files_are_read_again(folder, caplog, scan, place, value):
    cv2.imwrite(str(folder / "a.png"), noise(9, 7))
    whole = scan(folder, ["a.png"])
    content = json.loads(whole.cache.read_text())
    content["files"]["a.png"][1][0][place] = value
    whole.cache.write_text(json.dumps(content))
    again = scan(folder, ["a.png"])
    assert again.decoded == 1 and again.pages == whole.pages
    assert "is damaged" in caplog.text and "read again" in caplog.text
    assert scan(folder, ["a.png"]).decoded == 0
