"""The papers' rows, what a verdict says, and files that only a version of ours writes."""

from pathlib import Path

import pytest
import yaml

from segbench.config.paper import paper_blocks
from segbench.errors import SegbenchError
from segbench.papers.ledger import beyond, markdown, published, read_rows, summarise, table, verdict, write_row

RESULTS = Path(__file__).resolve().parents[3] / "shared" / "papers" / "results.yaml"


def test_published_numbers_are_the_collected_ones():
    if not RESULTS.is_file():
        pytest.skip(f"no {RESULTS}")
    collected = yaml.safe_load(RESULTS.read_text())
    assert published().keys() >= collected.keys()
    for row, methods in collected.items():
        ours = published()[row]["methods"]
        assert [each["method"] for each in ours] == [each["method"] for each in methods]
        for mine, theirs in zip(ours, methods, strict=True):
            assert mine["metrics"].items() <= theirs.items()
            assert theirs.keys() - mine["metrics"].keys() <= {"method", "rotations", "dataset"}


def test_every_experiment_of_a_row_prints_what_the_paper_printed():
    methods = {(row, m["method"]): m["metrics"] for row, entry in published().items() for m in entry["methods"]}
    for experiment, block in paper_blocks().items():
        assert (block["row"], block["method"]) in methods, experiment
        printed = methods[block["row"], block["method"]]
        for name, value in block["metrics"].items():
            # The paper's scores of the semantic classes bear no head's name.
            published_name = name.removeprefix("semantic/")
            assert value in printed.values() if name == "seg" else printed[published_name] == value, experiment


def test_seeds_are_summarised_with_n_minus_one():
    assert summarise([{"a": 0.1, "b": None}, {"a": 0.3, "b": 1.0}]) == {
        "a": {"mean": pytest.approx(0.2), "std": pytest.approx(0.02**0.5), "n": 2, "values": [0.1, 0.3]}
    }
    assert summarise([{"a": 0.1}])["a"]["std"] is None


@pytest.mark.parametrize(
    ("paper", "ours", "said"),
    [
        ({"mean_iu": 0.655}, {"mean_iu": 0.650}, "reproduced"),
        ({"mean_iu": 0.655}, {"mean_iu": 0.700}, "reproduced"),
        ({"mean_iu": 0.655}, {"mean_iu": 0.600}, "off by 0.0550 (mean_iu)"),
        ({"mean_iu": 0.655, "pixel_acc": 0.9}, {"mean_iu": 0.654, "pixel_acc": 0.8}, "off by 0.1000 (pixel_acc)"),
        ({"rand_error": 0.0382}, {"rand_error": 0.0419}, "reproduced"),
        ({"rand_error": 0.0382}, {"rand_error": 0.0432}, "off by 0.0050 (rand_error)"),
        ({"rand_error": 0.0382}, {"rand_error": 0.01}, "reproduced"),
        ({"forward_ms": 50}, {"mean_iu": 0.5}, "incomplete: forward_ms is not scored"),
        ({"mean_iu": 0.6, "pixel_acc": 0.9}, {"mean_iu": 0.7}, "incomplete: pixel_acc is not scored"),
    ],
)
def test_a_verdict_is_by_the_worst_score_in_tolerances(paper, ours, said):
    assert verdict(paper, {name: {"mean": value} for name, value in ours.items()}, []) == said


def test_scores_of_other_images_are_never_a_reproduction():
    assert verdict({"mean_iu": 0.6}, {"mean_iu": {"mean": 0.6}}, ["other images"]) == "not comparable"


ROW = {
    "experiment": "fcn8s_voc",
    "paper": {"source": "somewhere", "metrics": {"mean_iu": 0.655}},
    "ours": summarise([{"mean_iu": 0.64}, {"mean_iu": 0.66}]),
    "verdict": "reproduced",
    "date": "2026-01-02",
}


def test_rows_are_read_as_they_were_written(tmp_path):
    path = write_row(tmp_path / "ledger", ROW)
    assert path.name == "fcn8s_voc.yaml"
    assert read_rows(tmp_path / "ledger")["fcn8s_voc"] == {"schema": 1} | ROW
    assert [each.name for each in (tmp_path / "ledger").iterdir()] == ["fcn8s_voc.yaml"]


def test_another_version_is_refused(tmp_path):
    (tmp_path / "e.yaml").write_text("schema: 0\n")
    with pytest.raises(SegbenchError, match=r"e\.yaml is not a row of the ledger of version 1"):
        read_rows(tmp_path)


def test_a_ledger_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "ledger").write_text("a file")
    with pytest.raises(SegbenchError, match="cannot be written"):
        write_row(tmp_path / "ledger", ROW)


def test_the_list_has_every_published_row_with_its_state():
    blocks = {"mine": {"row": "fcn_voc_release", "method": "FCN-8s", "metrics": {"mean_iu": 0.655}}}
    lines = table({"mine": ROW}, blocks)
    printed = sum(len(m["metrics"]) for entry in published().values() for m in entry["methods"])
    # Of FCN-8s the server's score stands in no block of ours.
    assert len(lines) == printed - 1
    mine = next(line for line in lines if line["experiment"] == "mine")
    assert (mine["paper"], mine["ours"], mine["n"]) == ("0.6550", "0.6500 ± 0.0141", "2")
    assert mine["verdict"] == "reproduced"
    assert next(line for line in table({}, blocks) if line["experiment"] == "mine")["verdict"] == "not run"
    assert {line["verdict"] for line in lines if line["row"]} == {"reproduced", "of others", "no experiment"}


def test_the_readme_table_shows_what_was_run():
    line = "| `e` | mean_iu | 0.6550 | 0.6500 ± 0.0141 | 2 | reproduced | 2026-01-02, "
    assert f"{line}a wheel |" in markdown({"e": ROW, "f": {"ours": None, "verdict": "not run"}})
    dirty = ROW | {"commit": {"commit": "c" * 40, "dirty": True}, "folds": {"fold_0": {}, "fold_1": {}}}
    assert f"{line}cccccccccc and uncommitted changes, mean of fold 0, fold 1 |" in markdown({"e": dirty})


@pytest.mark.parametrize(
    ("row", "paper", "ours", "flagged"),
    [
        # Better than the paper and than every reproduction: 0.6549 is the best on seg11valid.
        ("fcn_voc_release", {"mean_iu": 0.655}, 0.70, "mean_iu 0.7000 is beyond the best published 0.6550 by"),
        ("fcn_voc_skips", {"mean_iu": 0.594}, 0.66, None),
        ("fcn_voc_release", {"mean_iu": 0.655}, 0.66, None),
        ("unet_isbi_em", {"rand_error": 0.0382}, 0.01, None),
        (
            "unet_isbi_em",
            {"rand_error": 0.0382},
            0.001,
            "rand_error 0.00100 is beyond the best published 0.00210 by human",
        ),
        ("of_the_user", {"mean_iu": 0.5}, 0.52, "by the paper"),
    ],
)
def test_a_score_beyond_everything_published_is_flagged(row, paper, ours, flagged):
    found = beyond(row, paper, {next(iter(paper)): {"mean": ours}})
    assert (found == []) if flagged is None else (flagged in found[0] and "check that no test image trains" in found[0])
