import os
import pickle

import numpy as np
import pytest
import tifffile

from segbench.data.files import open_stacks
from segbench.data.files.open_stacks import OpenStacks
from segbench.errors import SegbenchError


@pytest.fixture
def stacks(tmp_path):
    paths = [tmp_path / f"{k}.tif" for k in range(3)]
    for k, path in enumerate(paths):
        pages = np.random.default_rng(k).integers(0, 256, (5, 20, 30), dtype=np.uint8)
        tifffile.imwrite(path, pages, photometric="minisblack", metadata=None, compression="zlib" if k else None)
    return paths


def test_pages_are_those_of_the_file(stacks, monkeypatch):
    monkeypatch.setattr(open_stacks, "MOST_OPEN", 2)
    opened = OpenStacks()
    for _ in range(2):
        for path in stacks:
            whole = tifffile.imread(path)
            for page in (4, 0, 2):
                np.testing.assert_array_equal(opened.read(path, page)[..., 0], whole[page])
            assert len(opened._stacks) <= 2


def test_single_images_are_read_as_ever(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.eye(5, dtype=np.uint8))
    np.testing.assert_array_equal(OpenStacks().read(tmp_path / "a.tif")[..., 0], np.eye(5))
    with pytest.raises(SegbenchError, match="no file"):
        OpenStacks().read(tmp_path / "b.tif")


def test_another_process_opens_its_own(stacks):
    opened = OpenStacks()
    whole = tifffile.imread(stacks[1])
    opened.read(stacks[1], 0)
    child = os.fork()
    if child == 0:
        right = all(np.array_equal(opened.read(stacks[1], k % 5)[..., 0], whole[k % 5]) for k in range(200))
        os._exit(0 if right else 1)
    for k in range(200):
        np.testing.assert_array_equal(opened.read(stacks[1], k % 5)[..., 0], whole[k % 5])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_it_travels_without_its_files(stacks):
    opened = OpenStacks()
    opened.read(stacks[0], 1)
    again = pickle.loads(pickle.dumps(opened))
    np.testing.assert_array_equal(again.read(stacks[0], 1), opened.read(stacks[0], 1))
