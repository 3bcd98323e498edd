import json

import pytest

from segbench.errors import SegbenchError
from segbench.prediction.record import NAME, Record

OURS = {"checkpoint": "a" * 64, "tta": "none"}
STAMP = [["/data/x.png", 10, 123]]


@pytest.fixture
def opened(tmp_path):
    """`opened(made_by, overwrite)`: the record of tmp_path/out; closed at the end, or by the next call."""
    records = []

    def made(made_by=OURS, overwrite=False):
        while records:
            records.pop().close()
        records.append(Record(tmp_path / "out", made_by, {"run": "r"}, overwrite))
        return records[-1]

    yield made
    for record in records:
        record.close()


def put(record, tmp_path, name="x", stamp=STAMP, folder="."):
    path = tmp_path / "out" / folder / f"{name}.png"
    record.add(name, stamp, [path])
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    return path


def test_what_is_whole_stays(opened, tmp_path):
    path = put(opened(), tmp_path, folder="masks")
    record = opened()
    assert record.done("x", STAMP) == [path]
    assert record.done("y", STAMP) is None


def test_what_is_gone_or_was_never_named_is_made_again(opened, tmp_path):
    path = put(opened(), tmp_path)
    path.unlink()
    assert opened().done("x", STAMP) is None


def test_a_changed_input_is_predicted_again_and_a_moved_one_is_not(opened, tmp_path):
    path = put(opened(), tmp_path)
    record = opened()
    assert record.done("x", [["/data/x.png", 11, 123]]) is None
    assert record.done("x", [["/data/x.png", 10, 124]]) is None
    assert record.done("x", [["/elsewhere/x.png", 10, 123]]) == [path]


def test_another_input_of_the_same_name_is_refused(opened, tmp_path):
    put(opened(), tmp_path)
    with pytest.raises(SegbenchError, match=r"x\.png is the prediction of /data/x\.png\n.*that of /other/x\.png\n"):
        opened().done("x", [["/other/x.png", 99, 123]])
    assert opened(overwrite=True).done("x", [["/other/x.png", 99, 123]]) is None


def test_predictions_made_otherwise_are_not_continued(opened, tmp_path):
    put(opened(), tmp_path)
    told = r"made otherwise: checkpoint aaaaaaaaaaaa, now bbbbbbbbbbbb, tta none, now d4\n.*\n.*overwrite=true"
    with pytest.raises(SegbenchError, match=told):
        opened({"checkpoint": "b" * 64, "tta": "d4"})


def test_of_settings_inside_others_only_the_changed_ones_are_told(opened, tmp_path):
    before = OURS | {"decoding": {"method": "watershed", "depth": 1.0, "grow": 0}}
    put(opened(before), tmp_path)
    told = r"made otherwise: decoding\.method watershed, now components, decoding\.depth 1\.0, now 2\.0\n"
    with pytest.raises(SegbenchError, match=told):
        opened(OURS | {"decoding": {"method": "components", "depth": 2.0, "grow": 0}})


def test_with_overwrite_they_are_made_anew_and_then_go_on_as_others(opened, tmp_path):
    put(opened(), tmp_path, "x")
    put(opened(), tmp_path, "y")
    other = OURS | {"tta": "d4"}
    record = opened(other, overwrite=True)
    assert record.done("x", STAMP) is None
    record.refuse_foreign([tmp_path / "out" / "y.png"])
    path = put(record, tmp_path, "x")
    record = opened(other)
    assert record.done("x", STAMP) == [path]
    assert record.done("y", STAMP) is None


def test_a_header_alone_binds_nobody(opened):
    opened()
    opened(OURS | {"tta": "d4"})


def test_a_file_that_is_not_ours_is_not_written_over(opened, tmp_path):
    path = put(opened(), tmp_path)
    label = tmp_path / "out" / "label.png"
    label.write_text("")
    record = opened()
    record.refuse_foreign([path, tmp_path / "out" / "new.png"])
    with pytest.raises(SegbenchError, match=r"label\.png exists already and is not in .*predictions\.jsonl\n"):
        record.refuse_foreign([path, label])
    opened(overwrite=True).refuse_foreign([label])


def test_a_line_that_was_cut_off_counts_for_nothing(opened, tmp_path):
    path = put(opened(), tmp_path, "x")
    put(opened(), tmp_path, "y")
    opened().close()
    content = (tmp_path / "out" / NAME).read_text()
    (tmp_path / "out" / NAME).write_text(content[:-20])
    record = opened()
    assert record.done("x", STAMP) == [path]
    assert record.done("y", STAMP) is None
    put(record, tmp_path, "z")
    assert opened().done("z", STAMP) is not None


def test_a_folder_is_filled_by_one_process(opened, tmp_path):
    opened()
    with pytest.raises(SegbenchError, match=r"out is being filled by another process\n"):
        Record(tmp_path / "out", OURS, {}, False)


def test_what_made_them_can_be_read(opened, tmp_path):
    put(opened(), tmp_path)
    first, second = map(json.loads, (tmp_path / "out" / NAME).read_text().splitlines())
    assert first == {"made_by": OURS, "run": "r"}
    assert second == {"input": "x", "stamp": STAMP, "files": ["x.png"]}


def test_what_a_killed_process_left_half_written_is_removed(opened, tmp_path):
    kept = put(opened(), tmp_path, folder="masks")
    (tmp_path / "out" / "masks" / ".b.tif.4242.partial").write_text("half")
    (tmp_path / "out" / ".c.zarr.4242.partial" / "c").mkdir(parents=True)
    (tmp_path / "out" / ".c.zarr.4242.partial" / "zarr.json").write_text("{}")
    others = tmp_path / "out" / ".notes.partial"
    others.write_text("")
    opened()
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == [
        ".notes.partial",
        "masks",
        "predictions.jsonl",
        kept.name,
    ]


@pytest.mark.parametrize(
    "line",
    [
        *(b"[]", b"3", b'{"input": "a"}', b'{"input": "a", "stamp": [], "files": ["/etc/x"]}'),
        *(b'{"input": "a", "stamp": [], "files": ["../x"]}', b'{"input": "a", "stamp": [[]], "files": []}'),
        *(b'{"input": 3, "stamp": [], "files": []}', b'{"made_by": 3}', b'"\xff"'),
        *(b'{"input": "a", "stamp": [[null, 5, 6]], "files": []}', b'{"input": "a", "stamp": null, "files": [5]}'),
    ],
)
def test_a_record_that_was_not_written_by_this_program_is_told(opened, tmp_path, line):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / NAME).write_bytes(line + b"\n")
    with pytest.raises(SegbenchError, match=rf"{NAME} is damaged(.|\n)*rm "):
        opened()
