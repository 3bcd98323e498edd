import os
from pathlib import Path

import pytest

from segbench.data.folder.listing import list_images
from segbench.data.folder.pairs import find_pairs
from segbench.prediction.inputs import find_inputs
from segbench.spec import DatasetSpec, HeadSpec, ModalitySpec


@pytest.fixture
def tree(tmp_path):
    """Two images, and one of each kind that is not used."""
    top, far = tmp_path / "top", tmp_path / "far"
    for path in (top / "a.png", top / "sub" / "b.TIF", top / "notes.txt", top / ".c.png", top / ".git" / "d.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (far / "deep").mkdir(parents=True)
    (far / "deep" / "e.png").touch()
    (top / "link").symlink_to(far)
    (far / "deep" / "round").symlink_to(top)
    (top / "gone.png").symlink_to(tmp_path / "nowhere")
    (top / ".segbench-images.json").touch()
    os.mkfifo(top / "pipe.png")
    (top / os.fsdecode(b"\xff")).mkdir()
    for name in (b"\xe9.png", b"\xff/f.png"):
        (top / os.fsdecode(name)).touch()
    return top


def test_images_and_the_reason_for_every_other_file(tree):
    listing = list_images(tree)
    assert listing.images == ("a.png", "sub/b.TIF", "link/deep/e.png")
    assert listing.left_out == {
        "that are hidden": (".git/", ".c.png"),
        "that are links to nothing, or no files": ("gone.png", "pipe.png"),
        "whose names are no UTF-8": (r"\udcff/", r"\udce9.png"),
        "of a kind that is not read": ("notes.txt",),
        "that lead to a folder that is read already": ("link/deep/round/",),
    }
    assert list(listing.sentences())[3] == f"not used in {tree}: 1 of a kind that is not read: 1 .txt (notes.txt)"


def test_check_train_and_predict_use_the_same_files(tree):
    (masks := tree.parent / "masks").mkdir()
    (masks / "a.png").touch()
    pairs = find_pairs(str(tree), str(masks), partial=True)
    one, two = ModalitySpec(1, (0.0,), (1.0,), "x"), HeadSpec(("a", "b"), ((0, 0, 0), (9, 9, 9)))
    spec = DatasetSpec("toy", {"em": one}, {"s": two}, "", "", "")
    told = []
    inputs = find_inputs(str(tree), None, spec, Path("out"), told.append)
    listing = list_images(tree)
    assert [each.files[0].relative_to(tree).as_posix() for each in inputs] == sorted(
        listing.images, key=lambda name: name.rpartition(".")[0]
    )
    assert told == list(listing.sentences()) == list(pairs.left_out[:-1])
    assert pairs.left_out[-1].startswith("2 of 3 images in")


def test_a_folder_inside_that_is_used_otherwise(tree):
    listing = list_images(tree, skip=tree / "sub")
    assert "sub/b.TIF" not in listing.images and not any(
        "sub" in name for names in listing.left_out.values() for name in names
    )


def test_zarr_is_an_image_or_left_out(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / ".zarray").touch()
    assert list_images(tmp_path, arrays=True).images == ("a.zarr",)
    assert list_images(tmp_path).left_out == {"of a kind that is not read": ("a.zarr/",)}
