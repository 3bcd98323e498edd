import hashlib
import json
import urllib.request

import pytest

from segbench.data.prepare.downloads import RECORD, Listener, Remote
from segbench.data.prepare.fetch import _Redirects, fetch
from segbench.errors import SegbenchError

CONTENT = bytes(range(256)) * 400
SHA = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def said():
    return []


@pytest.fixture
def get(tmp_path, said):
    def got(remote, **settings):
        listener = Listener(say=said.append)
        return fetch(remote, tmp_path / "in", listener, **({"wait": 0} | settings))

    return got


def record(tmp_path):
    return json.loads((tmp_path / "in" / RECORD).read_text())


@pytest.mark.parametrize("digest", [SHA, MD5, None])
def test_fresh(server, get, tmp_path, digest):
    url = server.put("a.tar", CONTENT)
    path = get(Remote("a.tar", (url,), digest))
    assert path.read_bytes() == CONTENT
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.tar", RECORD]
    entry = record(tmp_path)["a.tar"]
    assert entry["sha256"] == SHA.removeprefix("sha256:")
    assert (entry["url"], entry["published"], entry["bytes"]) == (url, digest, len(CONTENT))


def test_already_there_asks_nobody(server, get, said):
    remote = Remote("a.tar", (server.put("a.tar", CONTENT),), MD5)
    get(remote)
    server.asked.clear()
    get(remote)
    assert not server.asked
    assert "already there" in said[-1] and MD5 in said[-1]


@pytest.mark.parametrize("digest", [SHA, None])
def test_a_broken_download_goes_on_where_it_broke_off(server, get, digest):
    server.break_after = [1000, 5000]
    path = get(Remote("a.tar", (server.put("a.tar", CONTENT),), digest))
    assert path.read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [None, "bytes=1000-", "bytes=6000-"]


def test_a_second_command_goes_on_too(server, get, said):
    remote = Remote("a.tar", (server.put("a.tar", CONTENT),), SHA)
    server.break_after = [777]
    with pytest.raises(SegbenchError, match=f"broke off after 777 of {len(CONTENT)} bytes"):
        get(remote, attempts=1)
    assert get(remote, attempts=1).read_bytes() == CONTENT
    assert server.asked[-1] == ("/a.tar", "bytes=777-")
    assert "a.tar: resuming at byte 777" in said


def test_a_full_disk_is_told_at_once_and_the_download_goes_on(server, closed_url, get, small_files, said):
    remote = Remote("a.tar", (server.put("a.tar", CONTENT), f"{closed_url}/a.tar"), SHA)
    with (
        small_files(1000),
        pytest.raises(SegbenchError, match=r"a\.tar cannot be written into .*/in: File too large\n.*room.*\n.*resumes"),
    ):
        get(remote, wait=100)
    assert len(server.asked) == 1 and not said
    assert get(remote).read_bytes() == CONTENT
    assert server.asked[-1] == ("/a.tar", "bytes=1000-")


def test_a_file_that_changed_meanwhile_is_fetched_again(server, get):
    remote = Remote("a.tar", (server.put("a.tar", b"old" * 9000),))
    server.break_after = [500]
    with pytest.raises(SegbenchError):
        get(remote, attempts=1)
    server.put("a.tar", CONTENT)
    assert get(remote, attempts=1).read_bytes() == CONTENT


def test_halves_of_two_files_are_not_put_together(server, get, said):
    # Without an ETag, and of one length, only the digest tells.
    server.etags = False
    remote = Remote("a.tar", (server.put("a.tar", CONTENT[::-1]),), SHA)
    server.break_after = [500]
    with pytest.raises(SegbenchError):
        get(remote, attempts=1)
    server.put("a.tar", CONTENT)
    assert get(remote).read_bytes() == CONTENT
    assert any("wrong digest, starting over" in line for line in said)


def test_without_etag_and_digest_nothing_is_resumed(server, get):
    server.etags = False
    server.break_after = [500]
    assert get(Remote("a.tar", (server.put("a.tar", CONTENT),))).read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [None, None]


def test_a_server_without_ranges_is_asked_for_the_whole(server, get):
    server.ranges = False
    server.break_after = [500]
    assert get(Remote("a.tar", (server.put("a.tar", CONTENT),), SHA)).read_bytes() == CONTENT


def test_a_part_that_is_whole_already(server, get, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar.part").write_bytes(CONTENT)
    assert get(Remote("a.tar", (server.put("a.tar", CONTENT),), SHA)).read_bytes() == CONTENT


def test_wrong_digest_keeps_nothing(server, get, tmp_path):
    wrong = "sha256:" + "0" * 64
    with pytest.raises(SegbenchError, match=f"the download has {SHA}, not {wrong}"):
        get(Remote("a.tar", (server.put("a.tar", CONTENT),), wrong))
    assert not list((tmp_path / "in").iterdir())


def test_truncated_on_the_server_for_good(server, get, tmp_path):
    url = server.put("a.tar", CONTENT)
    server.break_after = [100] * 9
    with pytest.raises(SegbenchError, match=rf"broke off after 300 of {len(CONTENT)} bytes"):
        get(Remote("a.tar", (url,), SHA), attempts=3)
    assert not (tmp_path / "in" / "a.tar").exists()


def test_mirrors_in_turn(server, closed_url, get, said):
    remote = Remote("a.tar", (f"{closed_url}/a.tar", f"{server.url}/gone", server.put("a.tar", CONTENT)), SHA)
    assert get(remote).read_bytes() == CONTENT
    assert "refused" in said[0] and "HTTP 404" in said[1]


def test_the_users_mirror_comes_first(server, closed_url, get):
    server.put("near/a.tar", CONTENT)
    assert get(Remote("a.tar", (f"{closed_url}/a.tar",), SHA), mirror=f"{server.url}/near/").read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(server, get):
    server.statuses = [503, 429]
    assert get(Remote("a.tar", (server.put("a.tar", CONTENT),), SHA)).read_bytes() == CONTENT


def test_host_down_tells_how_to_place_the_file_by_hand(closed_url, get, tmp_path):
    with pytest.raises(SegbenchError) as caught:
        get(Remote("a.tar", (f"{closed_url}/a.tar",), MD5, terms="Registration is needed"))
    assert f"{closed_url}/a.tar: [Errno" in caught.value.found
    assert caught.value.expected == f"the file {tmp_path / 'in' / 'a.tar'} with {MD5}"
    assert f"put it into {tmp_path / 'in'} as a.tar" in caught.value.action
    assert "Registration is needed" in caught.value.action


def test_placed_by_hand(closed_url, get, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar").write_bytes(CONTENT)
    get(Remote("a.tar", (f"{closed_url}/a.tar",)))
    assert record(tmp_path)["a.tar"]["url"] == "placed by hand"


@pytest.mark.parametrize("digest", [MD5, None])
def test_a_file_that_changed_on_the_disk_is_refused(server, get, digest):
    remote = Remote("a.tar", (server.put("a.tar", CONTENT),), digest)
    path = get(remote)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(SegbenchError, match="published" if digest else "recorded at the first download"):
        get(remote)


def test_only_the_web(tmp_path, get):
    (tmp_path / "secret").write_text("x")
    with pytest.raises(SegbenchError, match="neither http nor https"):
        get(Remote("a", (f"file://{tmp_path}/secret",)))


def test_what_the_server_said_is_recorded_and_told_without_a_digest(server, get, said, tmp_path):
    get(Remote("a.tar", (server.put("a.tar", CONTENT),)))
    tag = f'"{MD5.removeprefix("md5:")}"'
    assert (record(tmp_path)["a.tar"]["host"], record(tmp_path)["a.tar"]["etag"]) == ("127.0.0.1", tag)
    assert f"{len(CONTENT)} bytes from 127.0.0.1, ETag {tag}; nobody published a digest" in said[-1]


def test_another_host_is_told(server, get, said):
    elsewhere = server.put("b.tar", CONTENT).replace("127.0.0.1", "localhost")
    server.redirects = {"/a.tar": elsewhere, "/c.tar": "/b.tar"}
    assert get(Remote("a.tar", (f"{server.url}/a.tar",), SHA)).read_bytes() == CONTENT
    assert said[0] == "a.tar: 127.0.0.1 redirects to localhost"
    said.clear()
    get(Remote("c.tar", (f"{server.url}/c.tar",), SHA))
    assert not any("redirects" in line for line in said)


@pytest.mark.parametrize("to", ["ftp://127.0.0.1/a.tar", "file:///etc/passwd", "data:text/plain,x"])
def test_a_redirect_out_of_the_web_is_refused(server, get, tmp_path, to):
    server.redirects = {"/a.tar": to}
    with pytest.raises(SegbenchError, match="cannot be fetched"):
        get(Remote("a.tar", (f"{server.url}/a.tar",)))
    assert not list((tmp_path / "in").iterdir())


def test_a_redirect_from_https_to_http_is_refused(said):
    redirects = _Redirects("a.tar", Listener(say=said.append))
    asked = urllib.request.Request("https://a.example/a.tar")
    for to in ("http://a.example/a.tar", "ftp://a.example/a.tar"):
        with pytest.raises(ValueError, match="which is not https"):
            redirects.redirect_request(asked, None, 302, "Found", {}, to)
    assert redirects.redirect_request(asked, None, 302, "Found", {}, "https://b.example/x").host == "b.example"
    assert said == ["a.tar: a.example redirects to b.example"]


def test_without_length_and_digest_nothing_is_taken_for_whole(server, get, tmp_path):
    server.lengths = False
    url = server.put("a.tar", CONTENT)
    with pytest.raises(SegbenchError, match="how long the file is"):
        get(Remote("a.tar", (url,)))
    assert not list((tmp_path / "in").iterdir())
    assert get(Remote("a.tar", (url,), SHA)).read_bytes() == CONTENT


def test_a_server_that_ignores_if_range_does_not_mix_two_files(server, get, said):
    server.if_range = False
    server.break_after = [500]
    remote = Remote("a.tar", (server.put("a.tar", b"old" * 9000),))
    with pytest.raises(SegbenchError):
        get(remote, attempts=1)
    server.put("a.tar", CONTENT)
    assert get(remote).read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [None, "bytes=500-", None]


def test_a_server_that_sends_ever_less_is_left(server, get, tmp_path):
    server.pause = 0.2
    url = server.put("a.tar", CONTENT)
    with pytest.raises(SegbenchError, match=r"too slow: \d+ of 102400 bytes"):
        get(Remote("a.tar", (url,)), deadline=0.1)
    assert not (tmp_path / "in" / "a.tar").exists()
    assert len(server.asked) == 1
    server.pause = 0
    assert get(Remote("a.tar", (url,))).read_bytes() == CONTENT


def test_what_is_packed_on_the_way_is_not_kept(server, get, tmp_path):
    server.encoding = "gzip"
    with pytest.raises(SegbenchError, match="packed the file by gzip"):
        get(Remote("a.tar", (server.put("a.tar", CONTENT),)))
    assert not list((tmp_path / "in").iterdir())
