import io
import tarfile
import zipfile

import numpy as np
import pytest

from segbench.data.prepare.unpack import unpack
from segbench.errors import SegbenchError


def evil_tar(path, **changes):
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo(changes.pop("name", "a"))
        for key, value in changes.items():
            setattr(member, key, value)
        archive.addfile(member, io.BytesIO(b""))
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../outside"},
        {"name": "a/../../outside"},
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"type": tarfile.SYMTYPE, "linkname": "../../outside"},
        {"type": tarfile.LNKTYPE, "linkname": "../outside"},
        {"type": tarfile.CHRTYPE},
    ],
)
def test_a_tar_that_leaves_its_folder_is_refused(tmp_path, changes):
    with pytest.raises(SegbenchError, match="an entry that leaves its folder"):
        unpack(evil_tar(tmp_path / "a.tar", **changes), tmp_path / "in")
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside", "..\\outside", "C:\\outside", "link"])
def test_a_zip_that_leaves_its_folder_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        entry = zipfile.ZipInfo(name)
        if name == "link":
            entry.external_attr = 0o120777 << 16
        archive.writestr("good", "x")
        archive.writestr(entry, "../outside")
    with pytest.raises(SegbenchError, match="an entry that leaves its folder"):
        unpack(tmp_path / "a.zip", tmp_path / "in")
    assert not any((tmp_path / "in").iterdir()), "it is refused before anything is written"


def test_damaged_archives(tmp_path):
    (tmp_path / "a.tgz").write_bytes(b"no archive")
    with pytest.raises(SegbenchError, match=r"a\.tgz cannot be unpacked"):
        unpack(tmp_path / "a.tgz", tmp_path / "in")
    (tmp_path / "noise").write_bytes(np.random.default_rng(0).bytes(50_000))
    with tarfile.open(tmp_path / "whole.tgz", "w:gz") as archive:
        archive.add(tmp_path / "noise", "noise")
    (tmp_path / "b.tgz").write_bytes((tmp_path / "whole.tgz").read_bytes()[:20_000])
    with pytest.raises(SegbenchError, match=r"b\.tgz cannot be unpacked"):
        unpack(tmp_path / "b.tgz", tmp_path / "in")
