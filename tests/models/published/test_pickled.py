"""Pickles that take far more than their bytes, in both forms of torch's files."""

import io
import pickle
import time
import zipfile

import pytest
import torch

from segbench.errors import SegbenchError
from segbench.models.published.pickled import DEPTH, refuse_unfolding
from segbench.models.published.state_dict import read_state_dict
from segbench.training.checkpoint import read_checkpoint

STEPS = 2**16
"""As few as the other files of this test allow."""
TWICE = b")q\x00" + b"".join(b"h%c" % at * 2 + b"\x86q%c" % (at + 1) for at in range(60))
"""Tuples, the next of which holds the last one twice."""
PAIRS = b"]q\x00(" + b"K\x00K\x01\x86" * 1000 + b"e"
BOMBS = {
    "a key that takes for ever to hash": (b"](" + TWICE + b"e}h\x3cK\x01s\x86.", "unfolds"),
    "keys of a call": (b"](" + TWICE + b"eccollections\nCounter\n](h\x3ce\x85R\x86.", "unfolds"),
    "an attribute": (b"](" + TWICE + b"eccollections\nOrderedDict\n)R}h\x3cK\x01sb\x86.", "unfolds"),
    "copies of a dictionary": (
        b"](" + PAIRS + b"ccollections\nOrderedDict\nq\x01" + b"h\x01h\x00\x85R" * 3000 + b"e.",
        "unf",
    ),
    "copies of a size": (
        b"](((" + b"K\x01" * 9000 + b"t\x85q\x00ctorch\nSize\nq\x01" + b"h\x01h\x00R" * 3000 + b"e.",
        "unf",
    ),
    "copies of a text": (
        b"](X\x00\x00\x01\x00" + b"a" * 2**16 + b"q\x00c_codecs\nencode\nq\x01" + b"h\x01h\x00\x85R" * 9000 + b"e.",
        "unfolds",
    ),
    "lists within one another": (b"]" * (DEPTH + 2) + b"a" * (DEPTH + 1) + b".", "deep"),
    "lists that hold the next one twice": (
        b"]("
        + b"".join(b"]q%c" % at for at in range(60))
        + b"e"
        + b"".join(b"h%c(" % at + b"h%c" % (at + 1) * 2 + b"e" for at in range(59))
        + b".",
        "filled after",
    ),
    "itself": (b"]q\x00h\x00a.", "itself"),
    "itself, often": (b"]q\x00(" + b"h\x00" * 1000 + b"e.", "itself"),
    "steps": (b"]q\x00" * STEPS + b".", "steps"),
    "nothing to take": (b"\x85.", "not there"),
    "nothing remembered": (b"h\x00.", "not there"),
    "another opcode": (b"K\x010.", "no opcode of weights"),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(("pickled", "why"), BOMBS.values(), ids=BOMBS.keys())
def test_a_pickle_that_unfolds_is_refused_before_it_is_read(tmp_path, monkeypatch, zipped, pickled, why):
    path, saved, changed = tmp_path / "a.pth", io.BytesIO(), b"\x80\x02" + pickled
    torch.save({}, saved, _use_new_zipfile_serialization=zipped)
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", changed)
            archive.writestr("a/version", "3\n")
    else:
        old = b"\x80\x02}q\x00."
        assert saved.getvalue().count(old) == 1
        path.write_bytes(saved.getvalue().replace(old, changed))
    monkeypatch.setattr("segbench.models.published.pickled.STEPS", STEPS)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it is read"))
    start = time.process_time()
    with pytest.raises(SegbenchError, match=rf"a\.pth cannot be read: .*{why}"):
        read_state_dict(path)
    if zipped:
        with pytest.raises(SegbenchError, match=rf"a\.pth cannot be read: .*{why}"):
            read_checkpoint(path)
    assert time.process_time() - start < 60


def test_weights_and_the_state_of_their_optimiser_pass():
    model = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 1) for _ in range(300)))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.zeros(1, 3, 1, 1)).sum().backward()
    optimizer.step()
    file = io.BytesIO()
    torch.save({"state_dict": model.state_dict(), "optimizer": optimizer.state_dict(), "bytes": b"\xff"}, file)
    with zipfile.ZipFile(file) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        refuse_unfolding(io.BytesIO(archive.read(name)))


def test_the_file_is_left_at_the_end_of_the_pickle():
    file = io.BytesIO(pickle.dumps([1], protocol=2) + b"rest")
    refuse_unfolding(file)
    assert file.read() == b"rest"
