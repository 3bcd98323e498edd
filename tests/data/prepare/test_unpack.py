import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbench.data.prepare.unpack import Limits, unpack
from segbench.errors import SegbenchError


def entry(name, content=b"", **changes):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in changes.items():
        setattr(member, key, value)
    return member, content


def tar(path, *entries, mode="w"):
    with tarfile.open(path, mode) as archive:
        for member, content in entries:
            archive.addfile(member, io.BytesIO(content))
    return path


def zipped(path, *entries, **changes):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            info = zipfile.ZipInfo(name)
            # ZipInfo cuts at a NUL.
            info.filename, info.compress_type = name, zipfile.ZIP_DEFLATED
            for key, value in changes.items():
                setattr(info, key, value)
            archive.writestr(info, content)
    return path


def refused(archive, why, **settings):
    """It ends in one error, and leaves nothing."""
    into = archive.parent / "in"
    into.mkdir(exist_ok=True)
    (into / "mine").write_text("kept")
    with pytest.raises(SegbenchError, match=why) as caught:
        unpack(archive, into, **settings)
    assert caught.value.expected and caught.value.action and caught.value.found.startswith(str(archive))
    assert [path.name for path in into.iterdir()] == ["mine"]
    assert not (archive.parent / "outside").exists()


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
    }


GOOD = entry("good/a.txt", b"x")
LINK = {"type": tarfile.SYMTYPE, "linkname": "good"}


@pytest.mark.parametrize("name", ["a.tar", "a.tgz", "a.zip"])
def test_what_is_packed_is_unpacked(tmp_path, name):
    content = {"a/b/c.txt": b"c", "a/d.txt": np.random.default_rng(0).bytes(3_000_000), "ä é.txt": b""}
    if name == "a.zip":
        made = zipped(tmp_path / name, ("a/", b""), *content.items())
    else:
        folder = entry("./a", type=tarfile.DIRTYPE)
        files = [entry(f"./{key}", value) for key, value in content.items()]
        # GNU tar begins with the folder itself.
        made = tar(
            tmp_path / name,
            *(entry("./", type=tarfile.DIRTYPE), folder, folder, *files),
            mode="w" if name == "a.tar" else "w:gz",
        )
    unpack(made, tmp_path / "in")
    assert tree(tmp_path / "in") == content | {"a": None, "a/b": None}


def test_a_folder_that_is_there_is_filled_and_its_files_replaced(tmp_path):
    (tmp_path / "in" / "good").mkdir(parents=True)
    (tmp_path / "in" / "good" / "a.txt").write_text("old")
    (tmp_path / "in" / "good" / "mine.txt").write_text("mine")
    # Of a process that was killed.
    (tmp_path / "in" / ".a.tar.123.partial" / "good").mkdir(parents=True)
    assert unpack(tar(tmp_path / "a.tar", GOOD), tmp_path / "in") == 1
    assert tree(tmp_path / "in") == {"good": None, "good/a.txt": b"x", "good/mine.txt": b"mine"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("to", ["/etc/passwd", "../outside", "good/a.txt"])
def test_links_devices_and_pipes_are_refused_altogether(tmp_path, kind, to):
    refused(tar(tmp_path / "a.tar", GOOD, entry("x", type=kind, linkname=to)), "'x', neither a plain file nor a folder")


def test_a_chain_of_links_is_refused(tmp_path):
    # Names of 4,096 characters once ended the resolving of links inside Python's filter.
    links = [entry("/".join(["d" * 247] * n + ["l"]), type=tarfile.SYMTYPE, linkname="d" * 247) for n in range(15)]
    chain = [*links, entry("escape", type=tarfile.SYMTYPE, linkname="l/" * 20 + "../" * 20), entry("escape/outside")]
    refused(tar(tmp_path / "a.tar", *chain), "neither a plain file nor a folder")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFBLK, stat.S_IFDIR])
def test_so_they_are_in_a_zip(tmp_path, kind):
    made = zipped(tmp_path / "a.zip", ("x", b"../outside"), external_attr=(kind | 0o777) << 16)
    refused(made, "'x', neither a plain file nor a folder")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("pack", ["tar", "zip"])
@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["../outside"], "leaves the folder"),
        (["a/../../outside"], "leaves the folder"),
        (["a/../b"], "leaves the folder"),
        (["/outside"], "an absolute name"),
        (["C:outside"], "an absolute name"),
        (["..\\outside"], "with a backslash"),
        (["a\x1b[31mb"], "cannot be printed"),
        (["a\nb"], "cannot be printed"),
        (["a\u202eb"], "cannot be printed"),
        (["."], "an empty name"),
        (["a", "a"], "another entry has"),
        (["a", "A"], "another entry has"),
        (["ß/a", "SS/b"], "another entry has"),
        (["é", "e\u0301"], "another entry has"),
        (["a", "a/b"], "passes through a file"),
        (["a/b", "a"], "another entry has"),
        (["d/" * 40 + "a"], "folders inside one another"),
    ],
)
def test_names_that_are_refused(tmp_path, pack, names, why):
    if pack == "tar":
        made = tar(tmp_path / "a.tar", *(entry(name, b"x") for name in names))
    else:
        made = zipped(tmp_path / "a.zip", *((name, b"x") for name in names))
    refused(made, why)


def test_a_name_with_a_nul(tmp_path):
    made = zipped(tmp_path / "a.zip", ("aXb", b"x"))
    made.write_bytes(made.read_bytes().replace(b"aXb", b"a\0b"))
    refused(made, "cannot be printed")


def test_an_empty_name(tmp_path):
    refused(zipped(tmp_path / "a.zip", ("", b"x")), "an empty name")
    refused(tar(tmp_path / "a.tar", GOOD, entry("", b"x")), "an empty name")


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (Limits(entries=2), "more than 2 entries"),
        (Limits(size=2_999), "more than 2999 bytes"),
        (Limits(free=10, ratio=1), r"more than \d+ bytes, from \d+"),
    ],
)
@pytest.mark.parametrize("name", ["a.tgz", "a.zip"])
def test_limits(tmp_path, limits, why, name):
    if name == "a.zip":
        made = zipped(tmp_path / name, *((str(n), bytes(1000)) for n in range(3)))
    else:
        made = tar(tmp_path / name, *(entry(str(n), bytes(1000)) for n in range(3)), mode="w:gz")
    refused(made, why, limits=limits)
    assert unpack(made, tmp_path / "in", limits=Limits(entries=3, size=3_000, free=3_000)) == 3


def test_the_bytes_count_that_are_there_not_those_that_are_declared(tmp_path):
    made = zipped(tmp_path / "a.zip", ("a", bytes(100_000)))
    content = made.read_bytes()
    made.write_bytes(content.replace(struct.pack("<I", 100_000), struct.pack("<I", 10)))
    refused(made, "cannot be unpacked")


def test_entries_that_share_their_bytes(tmp_path):
    made = zipped(tmp_path / "a.zip", *((name, os.urandom(1000)) for name in "abcd"))
    with zipfile.ZipFile(made) as archive:
        offsets = [info.header_offset for info in archive.infolist()]
    content = bytearray(made.read_bytes())
    for name in b"bcd":
        at = content.index(b"PK\1\2")
        while content[at + 46] != name:
            at = content.index(b"PK\1\2", at + 1)
        content[at + 42 : at + 46] = struct.pack("<I", offsets[0])
        content[at + 20 : at + 24] = struct.pack("<I", 2000)
    made.write_bytes(content)
    refused(made, "entries that overlap")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
@pytest.mark.parametrize("size", [200, -512])
def test_a_header_is_bounded(tmp_path, kind, size):
    member = tarfile.TarInfo("a")
    member.type, member.size = kind, size
    header = member.tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "a.tgz").write_bytes(gzip.compress(header + bytes(10_240)))
    refused(tmp_path / "a.tgz", "header of more than 100 bytes|cannot be unpacked", limits=Limits(header=100))


def test_what_is_skipped_counts(tmp_path):
    # 50 MB in one entry that is neither read nor written.
    made = tar(tmp_path / "a.tgz", entry("x", bytes(50_000_000), type=b"?"), mode="w:gz")
    refused(made, "neither a plain file", limits=Limits(free=1000, entries=10))


def test_a_file_with_holes_is_refused(tmp_path):
    member, _ = entry("x", type=tarfile.GNUTYPE_SPARSE)
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    refused(tmp_path / "a.tar", "neither a plain file")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(tmp_path, method):
    refused(zipped(tmp_path / "a.zip", ("a", b"x"), compress_type=method), "packed otherwise than by deflate")
    with tarfile.open(tmp_path / "a.tar.xz", "w:xz" if method == zipfile.ZIP_LZMA else "w:bz2") as archive:
        archive.addfile(*GOOD[:1], io.BytesIO(b"x"))
    refused(tmp_path / "a.tar.xz", "cannot be unpacked")


def test_an_encrypted_entry_is_refused(tmp_path):
    made = zipped(tmp_path / "a.zip", ("a", b"x"))
    content = bytearray(made.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    made.write_bytes(content)
    refused(made, "'a', which is encrypted")


@pytest.mark.parametrize("name", ["a.tar", "a.tgz", "a.zip"])
def test_a_cut_archive_or_one_with_something_behind_it_is_refused_wherever(tmp_path, name):
    noise = np.random.default_rng(0).bytes(900)
    if name == "a.zip":
        made = zipped(tmp_path / name, ("a", noise), ("b", noise))
    else:
        made = tar(tmp_path / name, entry("a", noise), entry("b", noise), mode="w" if name == "a.tar" else "w:gz")
    whole = made.read_bytes()
    length = 3072 if name == "a.tar" else len(whole)
    for cut in [*range(0, length, 97), *([1536] if name == "a.tar" else []), length - 1]:
        made.write_bytes(whole[:cut])
        refused(made, "cannot be unpacked")
    made.write_bytes(whole + b"trailing")
    refused(made, "cannot be unpacked")
    if name == "a.zip":
        made.write_bytes(b"#!/bin/sh\n" + whole)
        refused(made, "cannot be unpacked")


def test_a_damaged_header_between_two_entries_is_not_the_end(tmp_path):
    made = tar(tmp_path / "a.tar", entry("a", b"x"), entry("b", b"y"))
    content = bytearray(made.read_bytes())
    content[1024 + 148] ^= 1
    made.write_bytes(content)
    refused(made, "its end is damaged")


def test_no_archive(tmp_path):
    (tmp_path / "a.tgz").write_bytes(b"no archive")
    refused(tmp_path / "a.tgz", r"a\.tgz cannot be unpacked")
    (tmp_path / "a.tgz").unlink()
    refused(tmp_path / "a.tgz", "No such file")


@given(st.data())
def test_a_damaged_archive_ends_in_one_error_or_whole(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    name = data.draw(st.sampled_from(["a.tar", "a.tgz", "a.zip"]))
    if name == "a.zip":
        made = zipped(folder / name, ("a/b", b"12345"), ("c", b"6" * 300))
    else:
        made = tar(
            folder / name, entry("a/b", b"12345"), entry("c", b"6" * 300), mode="w" if name == "a.tar" else "w:gz"
        )
    content = bytearray(made.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, min(len(content), 3072) - 1))] = data.draw(st.integers(0, 255))
    made.write_bytes(content)
    try:
        assert unpack(made, folder / "in") <= 2
    except SegbenchError:
        assert not list((folder / "in").iterdir())


def test_a_full_disk_leaves_nothing_and_does_not_blame_the_archive(tmp_path, small_files):
    archive, into = tar(tmp_path / "a.tar", entry("a/b", b"1" * 100), entry("a/c", b"2" * 9000)), tmp_path / "into"
    with (
        small_files(4096),
        pytest.raises(SegbenchError, match=r"into: File too large\n.*room for what it unpacks to\n.*goes on from here"),
    ):
        unpack(archive, into)
    assert not list(into.iterdir())
    assert unpack(archive, into) == 2
