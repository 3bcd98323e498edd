import pytest

from segbench.config.handed_over import parse_config, read_config, read_record, refuse_interpolations
from segbench.errors import SegbenchError

LAUGHS = "\n".join(f"{b}: &{b} [{', '.join(9 * [f'*{a}'])}]" for a, b in zip("abcdef", "bcdefg", strict=True))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: {b: [1, '${oc.env:HOME}']}", r"f: a\.b\.1: \$\{oc\.env:HOME\}, an interpolation"),
        ("${a}: 1", "f: a key: "),
        ('a: "\\x24{b}"', "an interpolation"),
        ("a: !!python/object/apply:os.system [ls]", "f is damaged: could not determine a constructor"),
        ("a: !mine 3", "f is damaged"),
        ("a: !!binary abcd", r"not a number, text, list or mapping \(a: bytes\)"),
        ("a: 2020-01-01", r"\(a: date\)"),
        ("a: 2020-99-99", "f is damaged: month"),
        ("a: !!set {b}", r"\(a: set\)"),
        ("? [1]\n: 2", "f is damaged"),
        (f"a: {'9' * 6000}", "f is damaged"),
        ("a: &x [*x]", "over 64 deep"),
        pytest.param(f"a: &a [{', '.join(9 * '1')}]\n{LAUGHS}", "more than 500000 values", id="laughs"),
        # libyaml's own reader ends in a segmentation fault.
        pytest.param("[" * 200_000, "over 64 deep", id="lists"),
        pytest.param("- " * 20_000, "over 64 deep", id="items"),
        pytest.param("a: [", "f is damaged: while parsing", id="half"),
    ],
)
def test_anything_but_plain_values_is_refused(text, said):
    with pytest.raises(SegbenchError, match=said):
        parse_config(text, "f")


def test_plain_values_are_read_as_they_are(tmp_path):
    text = "a: [1, 2.5, true, null, x, {b: 'no'}]\nshared: &s [1]\nagain: *s\n1: $x\nempty: {}\n"
    value = {"a": [1, 2.5, True, None, "x", {"b": "no"}], "shared": [1], "again": [1], 1: "$x", "empty": {}}
    (tmp_path / "f").write_text(text)
    assert parse_config(text, "f") == read_config(tmp_path / "f") == read_record(tmp_path / "f") == value
    assert refuse_interpolations(value, "f") is value


def test_what_was_typed_may_hold_one_which_stays_text(tmp_path):
    (tmp_path / "f").write_text("- name=${oc.env:HOME}")
    assert read_record(tmp_path / "f") == ["name=${oc.env:HOME}"]
    (tmp_path / "f").write_bytes(b"\xff")
    for read in (read_record, read_config):
        with pytest.raises(SegbenchError, match="f is damaged: 'utf-8'"):
            read(tmp_path / "f")
