import json
import os
import struct
import threading

import cv2
import numpy as np
import pytest
import tifffile

from segbench.data.files.image_files import AS_STORED
from segbench.data.folder import scan
from segbench.data.folder.cache import user_cache
from segbench.data.folder.facts import mean_and_std
from segbench.data.folder.scan import scan_images, scan_labels, scan_masks


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


def test_what_is_in_images(folder):
    cv2.imwrite(str(folder / "a.png"), noise(9, 7, 3))
    stack = noise(2, 5, 6, dtype=np.uint16)
    tifffile.imwrite(folder / "b.tif", stack, photometric="minisblack", metadata=None)
    scan = scan_images(folder, ["a.png", "b.tif"])
    assert scan.faults == {} and scan.decoded == 2
    (page,) = scan.pages["a.png"]
    colours = noise(9, 7, 3)[..., ::-1].astype(int).reshape(-1, 3)
    assert (page.height, page.width, page.channels, page.dtype) == (9, 7, 3, "uint8")
    assert page.sums == tuple(zip(colours.sum(0).tolist(), (colours**2).sum(0).tolist(), strict=True))
    assert [facts.sums for facts in scan.pages["b.tif"]] == [
        ((int(each.astype(int).sum()), int((each.astype(int) ** 2).sum())),) for each in stack
    ]


def test_what_is_in_masks(folder):
    cv2.imwrite(str(folder / "a.png"), np.array([[0, 0, 7], [7, 7, 255]], np.uint8))
    (facts,) = scan_masks(folder, ["a.png"]).pages["a.png"]
    assert (facts.height, facts.width, facts.kind, facts.distinct) == (2, 3, "ids", 3)
    assert (facts.codes, facts.pixels) == ((0, 7, 255), (2, 3, 1))


@pytest.mark.parametrize("value", [0, 1, 254, 255])
def test_sums_of_large_flat_bytes_are_whole(folder, value):
    image = np.full((2100, 2000, 1), value, np.uint8)
    image[5, 5] = 3
    cv2.imwrite(str(folder / "a.png"), image)
    (facts,) = scan_images(folder, ["a.png"]).pages["a.png"]
    pixels = image.size - 1
    assert facts.sums == ((pixels * value + 3, pixels * value**2 + 9),)


def test_sums_of_large_bright_words_are_whole(folder):
    image = np.full((1500, 1500), 65535, np.uint16)
    image[:700] -= 1
    tifffile.imwrite(folder / "a.tif", image)
    (facts,) = scan_images(folder, ["a.tif"]).pages["a.tif"]
    dark, bright = 700 * 1500, 800 * 1500
    assert facts.sums == ((dark * 65534 + bright * 65535, dark * 65534**2 + bright * 65535**2),)


def test_reals_far_from_zero_keep_their_deviation(folder):
    rng = np.random.default_rng(0)
    images = [1e6 + rng.normal(0, 0.5, (20, 30)) for _ in range(4)]
    names = [f"{k}.tif" for k in range(4)]
    for name, image in zip(names, images, strict=True):
        tifffile.imwrite(folder / name, image)
    scan = scan_images(folder, names)
    (mean,), (std,) = mean_and_std([facts for each in scan.pages.values() for facts in each])
    assert mean == pytest.approx(np.mean(images), rel=1e-15)
    assert std == pytest.approx(np.std(images), rel=1e-12)
    assert mean_and_std([scan.pages[name][0] for name in reversed(names)]) == ((mean,), (std,))


def test_many_channels_and_bits(folder):
    tifffile.imwrite(folder / "a.tif", noise(8, 9, 7), photometric="minisblack", planarconfig="contig")
    tifffile.imwrite(folder / "b.tif", noise(8, 9) > 100, photometric="minisblack")
    scan = scan_images(folder, ["a.tif", "b.tif"])
    assert [total for total, _ in scan.pages["a.tif"][0].sums] == noise(8, 9, 7).sum((0, 1)).tolist()
    ones = int((noise(8, 9) > 100).sum())
    assert scan.pages["b.tif"][0].sums == ((ones, ones),)


def test_files_that_cannot_be_read_are_named_and_the_others_kept(folder):
    cv2.imwrite(str(folder / "a.png"), noise(40, 40))
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:500])
    tifffile.imwrite(folder / "c.tif", np.array([[1, np.inf, np.nan]], np.float32))
    scan = scan_images(folder, ["a.png", "b.png", "c.tif"])
    assert list(scan.pages) == ["a.png"]
    assert "b.png cannot be decoded (500 bytes): its end is missing" in scan.faults["b.png"].found
    assert "c.tif has 1 infinite values" in scan.faults["c.tif"].found
    # A fault is read again: the file may have been repaired.
    again = scan_images(folder, ["a.png", "b.png", "c.tif"])
    assert again.decoded == 0 and set(again.faults) == {"b.png", "c.tif"}


def test_a_second_scan_reads_nothing_and_finds_the_same(folder):
    cv2.imwrite(str(folder / "a.png"), noise(9, 7, 3))
    tifffile.imwrite(folder / "b.tif", noise(4, 5).astype(np.float32))
    first = scan_images(folder, ["a.png", "b.tif"])
    second = scan_images(folder, ["a.png", "b.tif"])
    assert (first.decoded, second.decoded) == (2, 0)
    assert second.pages == first.pages
    assert first.cache == second.cache and first.cache.name.endswith("-images.json")


def test_only_what_changed_is_read_again(folder):
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(folder / name), noise(9, 7))
    scan_images(folder, ["a.png", "b.png"])
    before = (folder / "a.png").stat()
    cv2.imwrite(str(folder / "a.png"), noise(9, 8))
    os.utime(folder / "a.png", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    scan = scan_images(folder, ["a.png", "b.png"])
    assert scan.decoded == 1
    assert scan.pages["a.png"][0].width == 8
    # A file that is new, and one that is gone.
    cv2.imwrite(str(folder / "c.png"), noise(9, 7))
    assert scan_images(folder, ["b.png", "c.png"]).decoded == 1


def test_a_scan_that_is_broken_off_keeps_what_it_read(folder, monkeypatch):
    monkeypatch.setattr("segbench.data.folder.scan._INTERVAL", 0)
    names = [f"{k}.png" for k in range(300)]
    for name in names:
        cv2.imwrite(str(folder / name), noise(9, 7))

    def stop(done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan_images(folder, names, stop)
    (cache,) = (user_cache() / "scans").glob("*-images.json")
    kept = json.loads(cache.read_text())["files"]
    assert 0 < len(kept) < 300
    assert scan_images(folder, names).decoded == 300 - len(kept)


def test_progress_is_told(folder, monkeypatch):
    monkeypatch.setattr("segbench.data.folder.scan._INTERVAL", 0)
    names = [f"{k}.png" for k in range(100)]
    for name in names:
        cv2.imwrite(str(folder / name), noise(90, 70))
    told = []
    scan_images(folder, names, lambda done, total: told.append((done, total)))
    assert told == sorted(told) and told[-1] == (100, 100)
    told.clear()
    scan_images(folder, names, lambda done, total: told.append((done, total)))
    assert told == []


@pytest.mark.parametrize("error", [IndexError, MemoryError, struct.error, KeyError])
def test_whatever_a_reader_raises_is_a_fault_of_its_file(folder, monkeypatch, error):
    for name in "abc":
        cv2.imwrite(str(folder / f"{name}.png"), noise(9, 7))
    real = scan.pages_of

    def broken(path, reading):
        if path.name == "b.png":
            raise error("inside")
        return real(path, reading)

    monkeypatch.setattr(scan, "pages_of", broken)
    found = scan_images(folder, ["a.png", "b.png", "c.png"])
    assert list(found.pages) == ["a.png", "c.png"]
    why = ", since memory ran out" if error is MemoryError else ""
    assert found.faults["b.png"].found.startswith(f"{folder / 'b.png'} cannot be read{why}: {error.__name__}: ")


def test_a_pointer_of_git_lfs_is_called_one(folder):
    for name in ("a.png", "a.tif"):
        (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    found = scan_images(folder, ["a.png", "a.tif"])
    assert {"is a pointer of Git LFS" in fault.found for fault in found.faults.values()} == {True}


@pytest.mark.parametrize(
    ("limits", "threads"), [({"_SMALL": 9}, 1), ({"_SMALL": 0}, 2), ({"_SMALL": 9, "_FEW_BYTES": 0}, 2)]
)
def test_small_files_are_read_by_one_thread_and_others_by_one_per_core(folder, monkeypatch, limits, threads):
    names = [f"{number}.png" for number in range(10)]
    for name in names:
        cv2.imwrite(str(folder / name), np.eye(4, dtype=np.uint8))
    for name, limit in limits.items():
        monkeypatch.setattr(scan, name, limit)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr("os.sched_setaffinity", lambda *_: None, raising=False)
    used, together = set(), threading.Barrier(threads)

    def count(*_):
        thread = threading.current_thread()
        if thread not in used and thread is not threading.main_thread():
            used.add(thread)
            together.wait(timeout=30)
        return (16,)

    found = scan_labels(folder, names, None, AS_STORED, "classes", count, {}, AS_STORED)
    assert found.decoded == 10 and not found.faults
    assert len(used) == threads
