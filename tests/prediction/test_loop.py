import errno
import os
import resource
import struct
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import nn

from segbench.data.files.tiff_images import TiffImages
from segbench.errors import SegbenchError
from segbench.prediction import pages
from segbench.prediction.files import PngFile
from segbench.prediction.inputs import find_inputs
from segbench.prediction.loop import Job, predict_inputs
from segbench.prediction.progress import Progress
from segbench.prediction.settings import Settings
from segbench.spec import TileGeometry
from segbench.training.task import Evaluation


class Threshold(nn.Module):
    """P(cell) is a half where the grey level is 100; tiles are of any size."""

    geometry = TileGeometry(context=1)

    def forward(self, image_BCHW):
        return torch.cat([torch.full_like(image_BCHW, 100), image_BCHW], 1) / 10


@pytest.fixture
def run(spec, tmp_path):
    """`run(batch=1, tile=None, ...)`: predict tmp_path/in; the names that were done, and the errors of others."""

    def predicted(batch=1, tile=None, kinds=("masks",), folder="in", check=lambda given, paths: None):
        task = SimpleNamespace(
            model=Threshold().eval(),
            evaluation=Evaluation(tile, "none", 1),
            memory_format=torch.contiguous_format,
            finish=None,
        )
        out = tmp_path / "out"
        job = Job(task, spec(), out, lambda _: Settings(tuple(kinds)), check, batch)
        failed, recorded = {}, []
        with Progress(1) as progress:
            inputs = find_inputs(str(tmp_path / folder), None, spec(), out)
            told = lambda given, paths: recorded.append((given.name, [path.exists() for path in paths]))  # noqa: E731
            done = [given.name for given, _ in predict_inputs(job, inputs, failed, progress, told)]
        assert [name for name, _ in recorded if name not in failed] == done
        assert not any(any(there) for name, there in recorded if name not in failed), (
            "recorded before it takes its name"
        )
        return done, failed

    return predicted


def write(path, *shape, seed=0, damaged=False):
    path.parent.mkdir(exist_ok=True)
    stack = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    tifffile.imwrite(path, stack, photometric="minisblack", metadata=None, compression="zlib")
    if damaged:
        with tifffile.TiffFile(path) as tiff:
            offset = tiff.pages[-1].dataoffsets[0]
        content = bytearray(path.read_bytes())
        content[offset : offset + 8] = b"no zlib!"
        path.write_bytes(content)
    return stack


@pytest.mark.parametrize(("batch", "tile"), [(1, None), (4, None), (1, 8), (3, 8), (100, 8)])
def test_every_page_of_every_input_is_predicted(run, tmp_path, batch, tile):
    stacks = {
        name: write(tmp_path / "in" / f"{name}.tif", *shape, seed=seed)
        for seed, (name, shape) in enumerate({"a": (1, 20, 30), "b": (3, 20, 30), "c": (2, 9, 9)}.items())
    }
    done, failed = run(batch, tile)
    assert (done, failed) == (["a", "b", "c"], {})
    for name, stack in stacks.items():
        (path,) = (tmp_path / "out").glob(f"{name}.*")
        if path.suffix == ".tif":
            predicted = tifffile.imread(path)
        else:
            with Image.open(path) as image:
                predicted = np.asarray(image)
        np.testing.assert_array_equal(predicted.reshape(stack.shape), stack > 100)


@pytest.mark.parametrize("batch", [1, 5])
def test_an_unreadable_page_keeps_its_input_back_and_no_other(run, tmp_path, batch):
    write(tmp_path / "in" / "a.tif", 2, 20, 30)
    write(tmp_path / "in" / "b.tif", 3, 20, 30, damaged=True)
    write(tmp_path / "in" / "c.tif", 2, 20, 30)
    (tmp_path / "in" / "d.png").write_bytes(b"no image")
    write(tmp_path / "in" / "e.tif", 2, 20, 30, damaged=True)
    done, failed = run(batch)
    assert done == ["a", "c"]
    assert list(failed) == ["b", "d", "e"]
    assert "b.tif" in failed["b"].found
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.tif", "c.tif"]


@pytest.mark.parametrize("error", [IndexError, KeyError, SegbenchError])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_part_of_a_large_image_that_cannot_be_read_keeps_no_other_input_back(
    run, tmp_path, monkeypatch, batch, error
):
    for seed, name in enumerate("abcd"):
        write(tmp_path / "in" / f"{name}.tif", 1, 30, 20, seed=seed)
    # Every image is read window by window.
    monkeypatch.setattr(pages, "WHOLE_BYTES", 0)
    real = TiffImages.read

    def broken(self, index, y0=0, y1=None, x0=0, x1=None):
        # A later window; the samples, which are read first, begin at 0.
        if self.path.stem == "b" and y0 > 0:
            raise error(*["x"] * (3 if error is SegbenchError else 1))
        return real(self, index, y0, y1, x0, x1)

    monkeypatch.setattr(TiffImages, "read", broken)
    done, failed = run(batch, 8)
    assert (done, list(failed)) == (["a", "c", "d"], ["b"])
    assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == ["a", "c", "d"]


@pytest.mark.parametrize(
    ("error", "why"), [(IndexError, ""), (MemoryError, ", since memory ran out"), (struct.error, "")]
)
def test_whatever_a_reader_raises_is_told_of_its_file(run, tmp_path, monkeypatch, error, why):
    for name in "abc":
        write(tmp_path / "in" / f"{name}.tif", 1, 9, 9)
    real = pages.open_images

    def broken(path, *rest):
        if path.stem == "b":
            raise error("inside")
        return real(path, *rest)

    monkeypatch.setattr(pages, "open_images", broken)
    done, failed = run()
    assert done == ["a", "c"]
    assert failed["b"].found == f"{tmp_path}/in/b.tif cannot be read{why}: {error.__name__}: inside"
    assert ("num_workers" in failed["b"].action) == bool(why)


def test_an_input_that_is_refused_keeps_its_files_from_being_made(run, tmp_path):
    write(tmp_path / "in" / "a.tif", 20, 30)
    write(tmp_path / "in" / "b.tif", 20, 30)

    def check(given, paths):
        if given.name == "a":
            raise SegbenchError(f"not {paths[0].name}", "", "")

    done, failed = run(check=check)
    assert done == ["b"]
    assert failed["a"].found == "not a.png"


def test_an_error_of_the_network_leaves_no_partial_file(run, tmp_path, monkeypatch):
    write(tmp_path / "in" / "a.tif", 2, 20, 30)
    write(tmp_path / "in" / "b.tif", 2, 20, 30)
    calls = []

    def breaks(self, image_BCHW):
        calls.append(1)
        if len(calls) == 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.cat([image_BCHW, image_BCHW], 1)

    monkeypatch.setattr(Threshold, "forward", breaks)
    with pytest.raises(SegbenchError, match="does not fit into memory"):
        run(kinds=["masks", "probabilities"])
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == ["a.tif", "a.tif"]


def test_where_the_image_lies_is_taken_over(run, tmp_path):
    (tmp_path / "in").mkdir()
    geo = [(33550, "d", 3, (0.5, 0.5, 0.0), True)]
    stack = np.zeros((2, 20, 30), np.uint8)
    tifffile.imwrite(tmp_path / "in" / "a.tif", stack, photometric="minisblack", metadata=None, extratags=geo)
    run(kinds=["masks", "probabilities"])
    for path in (tmp_path / "out" / "masks" / "a.tif", tmp_path / "out" / "probabilities" / "a.tif"):
        with tifffile.TiffFile(path) as tiff:
            assert [page.tags[33550].value for page in tiff.pages] == [(0.5, 0.5, 0.0)] * 2


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("put", ValueError("no such shape")),
        ("end", OSError(errno.EFBIG, "File too large", "b.png")),
        ("finish", PermissionError(errno.EACCES, "Permission denied")),
        ("begin", MemoryError("too large")),
    ],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_an_output_that_cannot_be_written_keeps_no_other_input_back(run, tmp_path, monkeypatch, call, error, batch):
    for seed, name in enumerate("abcd"):
        write(tmp_path / "in" / f"{name}.tif", 20, 30, seed=seed)
    real = getattr(PngFile, call)

    def broken(self, *arguments):
        if self.path.stem == "b":
            raise error
        real(self, *arguments)

    monkeypatch.setattr(PngFile, call, broken)
    done, failed = run(batch)
    assert (done, list(failed)) == (["a", "c", "d"], ["b"])
    assert "the prediction of b cannot be written: " in failed["b"].found and "b.png" in failed["b"].found
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "c.png", "d.png"]


def test_a_folder_in_the_way_of_an_output_stays(run, tmp_path):
    write(tmp_path / "in" / "a.tif", 20, 30)
    write(tmp_path / "in" / "b.tif", 20, 30)
    (tmp_path / "out" / "a.png" / "mine").mkdir(parents=True)
    done, failed = run()
    assert done == ["b"] and "Is a directory" in failed["a"].found
    assert (tmp_path / "out" / "a.png" / "mine").is_dir()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]


def test_a_full_disk_ends_the_prediction(run, tmp_path, monkeypatch):
    write(tmp_path / "in" / "a.tif", 20, 30)

    def full(self, canvas):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(PngFile, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        run()
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(("kinds", "limit"), [(("probabilities",), 20_000), (("masks",), 4_000)])
def test_an_output_beyond_the_limit_of_a_files_size_keeps_no_other_back(run, tmp_path, kinds, limit):
    for name, size in (("a", 20), ("b", 300), ("c", 20)):
        write(tmp_path / "in" / f"{name}.tif", size, 30 if size < 100 else 300)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores the signal, so writing fails as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        done, failed = run(kinds=kinds)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (done, list(failed)) == (["a", "c"], ["b"])
    assert "the prediction of b cannot be written: " in failed["b"].found and "None" not in failed["b"].found
    assert "File too large" in failed["b"].found or "a limit on the size of files" in failed["b"].found
    assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == ["a", "c"]


def test_a_folder_without_permission_keeps_no_other_back(run, tmp_path):
    for name in ("a", "sub/b", "z"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / "in" / f"{name}.tif", 20, 30)
    closed = tmp_path / "out" / "sub"
    closed.mkdir(parents=True)
    closed.chmod(0o555)
    if os.access(closed, os.W_OK):
        pytest.skip("this user may write everywhere")
    done, failed = run()
    assert (done, list(failed)) == (["a", "z"], ["sub/b"])
    assert "Permission denied" in failed["sub/b"].found and "b.png" in failed["sub/b"].found


def test_reading_predicting_and_writing_have_a_thread_each(run, tmp_path, monkeypatch):
    for seed, name in enumerate("abcd"):
        write(tmp_path / "in" / f"{name}.tif", 20, 30, seed=seed)
    threads = {"read": [], "predict": [], "write": []}

    def noted(owner, name, what):
        real = getattr(owner, name)

        def call(self, *arguments, **named):
            threads[what].append(threading.current_thread().name.split("_")[0])
            return real(self, *arguments, **named)

        monkeypatch.setattr(owner, name, call)

    noted(TiffImages, "read", "read")
    noted(Threshold, "forward", "predict")
    noted(PngFile, "_write", "write")
    assert run()[0] == ["a", "b", "c", "d"]
    assert threads == {
        "read": ["segbench-reader"] * 4,
        "predict": [threading.current_thread().name] * 4,
        "write": ["segbench-writer"] * 4,
    }


def test_an_image_is_predicted_while_the_one_before_it_is_written(run, tmp_path, monkeypatch):
    for seed, name in enumerate("abc"):
        write(tmp_path / "in" / f"{name}.tif", 20, 30, seed=seed)
    predicted, real, forward = threading.Semaphore(0), PngFile._write, Threshold.forward

    def told(self, image_BCHW):
        predicted.release()
        return forward(self, image_BCHW)

    def waiting(self, canvas):
        # Its own image, and the next one.
        if self.path.stem != "c":
            assert predicted.acquire(timeout=60)
        if self.path.stem == "a":
            assert predicted.acquire(timeout=60)
        real(self, canvas)

    monkeypatch.setattr(Threshold, "forward", told)
    monkeypatch.setattr(PngFile, "_write", waiting)
    assert run() == (["a", "b", "c"], {})


def test_a_user_who_stops_it_keeps_what_is_recorded(run, tmp_path, monkeypatch):
    for seed, name in enumerate("abcd"):
        write(tmp_path / "in" / f"{name}.tif", 20, 30, seed=seed)
    forward, count = Threshold.forward, []

    def stopped(self, image_BCHW):
        count.append(None)
        if len(count) == 3:
            # The writer is behind by as much as it likes.
            until = time.monotonic() + 60
            while not (tmp_path / "out" / "a.png").exists() and time.monotonic() < until:
                time.sleep(0.01)
            raise KeyboardInterrupt
        return forward(self, image_BCHW)

    monkeypatch.setattr(Threshold, "forward", stopped)
    with pytest.raises(KeyboardInterrupt):
        run()
    # Every file is whole and under its own name; none is left half written.
    assert {"a.png"} <= {path.name for path in (tmp_path / "out").iterdir()} <= {"a.png", "b.png"}
    for path in (tmp_path / "out").iterdir():
        with Image.open(path) as image:
            assert image.size == (30, 20)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("segbench-")]
