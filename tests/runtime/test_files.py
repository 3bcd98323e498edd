import os
import subprocess

import pytest

from segbench.errors import SegbenchError
from segbench.runtime import files
from segbench.runtime.files import (
    PARTIAL,
    open_itself,
    partial_name,
    refuse_links_out,
    remove_partials,
    walk,
    write_whole,
    written_whole,
)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    return path


def test_a_file_is_replaced_when_it_is_whole(path):
    with written_whole(path) as partial:
        partial.write_text("after")
        assert path.read_text() == "before"
        assert partial.parent == path.parent and partial.name.startswith(".") and PARTIAL.fullmatch(partial.name)
    assert path.read_text() == "after"
    assert os.listdir(path.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_fails_half_way_leaves_what_was_there_and_nothing_else(path, error):
    with pytest.raises(error), written_whole(path) as partial:
        partial.write_text("ha")
        raise error
    assert path.read_text() == "before"
    assert os.listdir(path.parent) == ["a.txt"]


def test_a_writer_that_wrote_nothing_is_told(path):
    with pytest.raises(FileNotFoundError), written_whole(path):
        pass
    assert path.read_text() == "before"


def test_text_is_utf_8_with_its_line_ends(path):
    write_whole(path, "ü\r\n")
    assert path.read_bytes() == b"\xc3\xbc\r\n"


def test_two_writers_of_one_file_do_not_meet(path):
    assert partial_name(path) != partial_name(path)


@pytest.fixture
def tree(tmp_path):
    """a/x, b -> a, c/up -> the top, d -> nowhere, e -> another folder."""
    top, other = tmp_path / "top", tmp_path / "other"
    for folder in (top / "a", top / "c", other):
        folder.mkdir(parents=True)
        (folder / "x").touch()
    (top / "b").symlink_to(top / "a")
    (top / "c" / "up").symlink_to(top)
    (top / "d").symlink_to(tmp_path / "nowhere")
    (top / "e").symlink_to(other)
    return top


def test_each_folder_is_met_once_through_links_and_circles(tree):
    met = {os.path.relpath(where, tree): files for where, _, files in walk(tree)}
    assert met == {".": ["d"], "a": ["x"], "c": ["x"], "e": ["x"]}


def test_a_folder_comes_before_a_link_to_it(tree):
    (tree / "0").symlink_to(tree / "a")
    assert [os.path.relpath(where, tree) for where, _, _ in walk(tree)] == [".", "a", "c", "e"]


def test_a_folder_may_be_left_out(tree):
    for _, folders, _ in walk(tree):
        folders[:] = [name for name in folders if name != "a"]
    assert "a" not in folders
    met = []
    for where, folders, _ in walk(tree):
        folders[:] = [name for name in folders if name == "e"]
        met.append(os.path.relpath(where, tree))
    assert met == [".", "e"]


@pytest.fixture
def outside(tmp_path):
    """A file outside the folder that is handed over."""
    kept = tmp_path / "outside" / "kept.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    return kept


@pytest.fixture
def handed(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def test_a_whole_file_takes_the_place_of_a_link(handed, outside):
    (handed / "state.json").symlink_to(outside)
    write_whole(handed / "state.json", "new")
    assert (outside.read_text(), (handed / "state.json").read_text()) == ("mine", "new")
    assert not (handed / "state.json").is_symlink()


def test_nobody_guesses_the_name_of_an_unfinished_file(path):
    names = {partial_name(path).name for _ in range(4)}
    assert len(names) == 4
    assert all(len(name) > 30 and PARTIAL.fullmatch(name) for name in names)


@pytest.mark.parametrize("mode", ["w", "a", "ab", "a+", "r"])
@pytest.mark.parametrize("what", ["link", "link to nothing", "pipe"])
def test_what_is_written_bit_by_bit_is_the_file_itself(handed, outside, mode, what):
    path = handed / "run.log"
    if what == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(outside if what == "link" else outside.with_name("new.txt"))
    with pytest.raises(SegbenchError, match=rf"{path} is (a link to|neither)(.|\n)*rm {path}"):
        open_itself(path, mode)
    assert outside.read_text() == "mine"
    assert [each.name for each in outside.parent.iterdir()] == ["kept.txt"]


def test_a_file_is_appended_to(handed):
    for _ in range(2):
        with open_itself(handed / "a.txt", "a") as file:
            file.write("x")
    assert (handed / "a.txt").read_text() == "xx"


def test_links_that_lead_out_of_a_folder_are_refused(handed, outside):
    (handed / "wandb" / "run-1").mkdir(parents=True)
    (handed / "wandb" / "latest-run").symlink_to("run-1")
    (handed / "wandb" / "offline-run-2" / "logs").mkdir(parents=True)
    (handed / "wandb" / "offline-run-2" / "logs" / "debug-core.log").symlink_to(outside)
    (handed.parent / "link").symlink_to(handed)
    refuse_links_out(handed)
    refuse_links_out(handed.parent / "link")
    (handed / "wandb" / "panels").symlink_to(outside.parent)
    with pytest.raises(SegbenchError, match=r"wandb/panels is a link to .*outside"):
        refuse_links_out(handed)
    refuse_links_out(handed, deep=False)


def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(path, monkeypatch):
    monkeypatch.setattr(files, "_tidied", set())
    number = partial_name(path).name.split(".")[-2]
    machine, pid, rest = number[:5], int(number[5:12]), number[12:]
    assert pid == os.getpid()
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = f".a.{machine}{ended.pid:07d}{rest}.partial"
    others = (
        *(f".b.{machine}{pid:07d}{rest}.partial", f".c.{(int(machine) + 1) % 10**5:05d}{ended.pid:07d}{rest}.partial"),
        *(".d.4242.partial", ".notes.partial"),
    )
    (path.parent / left).mkdir()
    for name in others:
        (path.parent / name).write_text("half")
    monkeypatch.setattr(files, "_tidied", set())
    write_whole(path, "whole")
    assert sorted(os.listdir(path.parent)) == sorted([*others, path.name])
    remove_partials(path.parent)
    assert sorted(os.listdir(path.parent)) == sorted([".notes.partial", path.name])


def test_a_disk_that_is_full_names_the_file(tmp_path, small_files):
    with small_files(10), pytest.raises(OSError, match="File too large") as caught:
        write_whole(tmp_path / "a", "1" * 20)
    assert caught.value.filename == str(tmp_path / "a")
    assert not list(tmp_path.iterdir())
