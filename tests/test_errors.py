import os
import shlex
import signal
import socket
from pathlib import Path

import pytest

from segbench.config.handed_over import read_config, read_json
from segbench.data.files.encoded import read_bytes
from segbench.data.folder.scan import scan_images
from segbench.data.pascal_context import read_names
from segbench.data.prepare.annotations import import_masks
from segbench.errors import SegbenchError, as_typed, say
from segbench.models.published.caffemodel import read_caffemodel
from segbench.models.published.state_dict import read_state_dict
from segbench.runs.arrays import read_arrays
from segbench.training.checkpoint import read_checkpoint


def pipe(path):
    os.mkfifo(path)


def endless(path):
    path.symlink_to("/dev/zero")


def port(path):
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(path))


@pytest.fixture
def in_time():
    """Ends a test that waits."""

    def waited(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, waited)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


READERS = {
    "a.yaml": read_config,
    "a.json": read_json,
    "b.json": lambda path: import_masks(path, path.parent / "out"),
    "a.png": read_bytes,
    "a.npz": read_arrays,
    "a.pth": read_state_dict,
    "a.safetensors": read_state_dict,
    "a.ckpt": read_checkpoint,
    "a.caffemodel": read_caffemodel,
    "labels.txt": read_names,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("make", [pipe, endless, port])
def test_a_reader_neither_waits_nor_reads_without_end(tmp_path, monkeypatch, in_time, make, name):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / name)
    with pytest.raises(SegbenchError, match="a pipe, a socket or a device, not a file") as raised:
        READERS[name](tmp_path / name)
    assert raised.value.expected and raised.value.action


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.mrc", "a.nii.gz", "a.dcm"])
def test_nor_does_a_scan_of_images(tmp_path, in_time, name):
    pipe(tmp_path / name)
    (fault,) = scan_images(tmp_path, [name]).faults.values()
    assert "file" in fault.found or "not installed" in fault.found


def test_what_is_said_commands_no_terminal(capsys):
    say("a\x1b[31m\r\x9b\u202e\udcff\tb\nc", end="|")
    assert capsys.readouterr().out == "a\\x1b[31m\\r\\x9b\\u202e\\udcff\tb\nc|"


def test_a_command_that_is_told_is_no_other_one_for_a_shell():
    assert as_typed("run", "outputs/a-b_1") == "run=outputs/a-b_1"
    assert shlex.split(f"evaluate {as_typed('run', Path('a; rm b'))}") == ["evaluate", "run=a; rm b"]
    assert shlex.split(as_typed("$(id)")) == ["$(id)"]
