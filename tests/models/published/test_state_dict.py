"""State dicts of torch in both of its forms, and files that claim more than they hold."""

import io
import zipfile

import pytest
import torch

from segbench.errors import SegbenchError
from segbench.models.published.state_dict import FREE, read_state_dict
from segbench.training.checkpoint import read_checkpoint

WEIGHTS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(2, dtype=torch.int64)}
HUGE = b"\x8a\x05" + (2**33).to_bytes(5, "little")
"""A number as pickles hold it."""


@pytest.fixture
def put(tmp_path):
    """`put(zipped, pickled=lambda old: old, kept=WEIGHTS)`: a file of torch whose pickles are changed."""

    def written(zipped, pickled=lambda old: old, kept=WEIGHTS):
        file, path = io.BytesIO(), tmp_path / "a.pth"
        torch.save(kept, file, _use_new_zipfile_serialization=zipped)
        if not zipped:
            path.write_bytes(pickled(file.getvalue()))
            return path
        with zipfile.ZipFile(file) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                content = old.read(name)
                new.writestr(name, pickled(content) if name.endswith("data.pkl") else content)
        return path

    return written


BOTH = pytest.mark.parametrize("zipped", [True, False])


@BOTH
def test_what_torch_saved_is_read(put, zipped):
    read = read_state_dict(put(zipped))
    assert read.keys() == WEIGHTS.keys()
    assert all(torch.equal(read[name], WEIGHTS[name]) for name in WEIGHTS)


@BOTH
def test_weights_that_are_shared_may_be_named_often(put, zipped):
    shared = torch.zeros(2**16)
    assert len(read_state_dict(put(zipped, kept={str(name): shared for name in range(50)}))) == 50


@BOTH
@pytest.mark.parametrize(
    ("pickled", "why"),
    [
        (lambda old: old.replace(b"K\x02K\x03\x86", HUGE + b"K\x03\x86"), "resiz|allocate|out of bounds"),
        (lambda old: old.replace(b"K\x06t", HUGE + b"t").replace(b"K\x06N", HUGE + b"N"), "size|allocate"),
        (
            lambda old: old.replace(
                b"X\x01\x00\x00\x00a", b"X\x01\x00\x00\x00acbuiltins\nbytearray\n" + HUGE + b"\x85R0"
            ),
            "it makes a bytearray",
        ),
    ],
    ids=["a tensor", "a storage", "a bytearray"],
)
def test_nothing_is_larger_than_the_file(put, zipped, pickled, why):
    with pytest.raises(SegbenchError, match=rf"a\.pth cannot be read: .*({why})"):
        read_state_dict(put(zipped, pickled))


@BOTH
def test_one_number_is_no_tensor_of_any_size(put, zipped):
    swollen = {"state_dict": {"model.a": torch.ones(1).expand(2**14, FREE // 2**16 + 1)}, "global_step": 3}
    path = put(zipped, kept=swollen)
    with pytest.raises(SegbenchError, match=r"its tensors are [\d,]+ bytes, of which [\d,]+ are stored"):
        read_state_dict(path)
    with pytest.raises(SegbenchError, match="its tensors are" if zipped else "cannot be read"):
        read_checkpoint(path)


@pytest.mark.parametrize("odd", [torch.eye(3).to_sparse(), torch.empty(2, device="meta")], ids=["sparse", "no data"])
def test_tensors_without_their_numbers_are_refused(put, odd):
    with pytest.raises(SegbenchError, match="sparse, quantised or without data"):
        read_state_dict(put(True, kept={"a": odd}))


def test_a_zip_file_at_the_end_of_another_is_not_what_is_read(put):
    path = put(False)
    hidden = io.BytesIO()
    with zipfile.ZipFile(hidden, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(2**20))
    path.write_bytes(path.read_bytes() + hidden.getvalue())
    assert read_state_dict(path).keys() == WEIGHTS.keys()


def test_lists_within_one_another_are_refused(put):
    doubled = b"".join(b"](" + 2 * (b"h" + bytes([at])) + b"eq" + bytes([at + 1]) for at in range(60))
    with pytest.raises(SegbenchError, match="it unfolds to more than"):
        read_state_dict(put(True, lambda old: b"\x80\x02]q\x00" + doubled + b"."))
