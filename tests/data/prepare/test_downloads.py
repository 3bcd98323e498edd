import threading

import pytest

from segbench.data.prepare.downloads import RECORD, Listener, Record, digest_of, locked
from segbench.errors import SegbenchError


def test_the_record_of_a_folder(tmp_path):
    record = Record(tmp_path / "in")
    assert record.read() == {}
    record.update("a", sha256="1", unpacked=False)
    record.update("b", sha256="2")
    record.update("a", unpacked=True)
    assert Record(tmp_path / "in").read() == {"a": {"sha256": "1", "unpacked": True}, "b": {"sha256": "2"}}
    assert [path.name for path in (tmp_path / "in").iterdir()] == [RECORD]
    (tmp_path / "in" / RECORD).write_text("{")
    with pytest.raises(SegbenchError, match=r"downloads\.json is damaged"):
        record.read()


def test_a_files_digest(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert digest_of(tmp_path / "a", "md5") == "900150983cd24fb0d6963f7d28e17f72"
    assert digest_of(tmp_path / "a").startswith("ba7816bf")


def test_one_process_at_a_time(tmp_path):
    said = []
    done = threading.Event()

    def second():
        with locked(tmp_path, Listener(say=lambda line: (said.append(line), waiting.set()))):
            done.set()

    waiting = threading.Event()
    with locked(tmp_path, Listener()):
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(10)
        assert not done.is_set()
    thread.join(10)
    assert done.is_set()
    assert "waiting for another process" in said[0]


@pytest.mark.parametrize(
    "content", ["[]", "3", '{"a": 3}', '{"a": {}}', '{"a": {"sha256": 3}}', "[" * 100_000, '"\\ud800"']
)
def test_a_record_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "downloads.json").write_text(content)
    with pytest.raises(SegbenchError, match=r"downloads\.json is damaged"):
        Record(tmp_path).read()
