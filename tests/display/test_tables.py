import pytest
from rich.console import Console

from segbench.config.record import Paper
from segbench.display.tables import class_table, print_results, score_table

SCORES = {
    "test/mean_iu": 0.81234,
    "test/iu/cell": 0.9,
    "test/rand_error": 0.05,
    "test/warping_error": 0.0003531,
    "test/mean_acc": float("nan"),
    "test/threshold_mean_iu": 0.6312,
    "val/mean_iu": 0.5,
}
PAPER = Paper(method="U-Net", source="table 1", metrics={"rand_error": 0.0382, "b": 1.0, "a": 2.0})


@pytest.fixture
def lines():
    def shown(**given):
        settings = {"scores": SCORES, "split": "test", "title": "run", "model": "UNet", "paper": None} | given
        console = Console(width=200, highlight=False)
        with console.capture() as captured:
            console.print(score_table(**settings))
        return captured.get().splitlines()

    return shown


def cells(lines, name):
    (line,) = [line for line in lines if line.startswith(f"│ {name} ")]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_the_baseline_stands_beside_the_score_it_compares_with(lines):
    assert cells(lines(), "mean_iu") == ["mean_iu", "0.8123", "0.6312"]
    assert cells(lines(), "rand_error") == ["rand_error", "0.0500", ""]


def test_the_papers_row_stands_beside_ours(lines):
    shown = lines(paper=PAPER)
    assert cells(shown, "rand_error") == ["rand_error", "0.0500", "", "0.0382"]
    assert "paper: U-Net" in shown[2]
    assert shown[-1].strip() == "paper: table 1"


def test_what_only_the_paper_has_follows_in_its_order(lines):
    names = [line.split("│")[1].strip() for line in lines(paper=PAPER) if line.startswith("│")]
    assert names[-2:] == ["b", "a"]


def test_small_and_undefined_scores_are_readable(lines):
    assert cells(lines(), "warping_error")[1] == "0.000353"
    assert cells(lines(), "mean_acc")[1] == "undefined"


def test_classes_and_other_splits_are_left_out(lines):
    text = "\n".join(lines())
    assert "cell" not in text
    assert "0.5000" not in text


@pytest.fixture
def classes():
    def shown(scores):
        console = Console(width=200, highlight=False)
        with console.capture() as captured:
            console.print(class_table(scores, "test"))
        return captured.get().splitlines()

    return shown


def test_each_class_has_its_iu_and_dice(classes):
    shown = classes(SCORES | {"test/dice/cell": 0.947, "test/iu/none": float("nan"), "val/iu/cell": 0.1})
    assert cells(shown, "cell") == ["cell", "0.9000", "0.9470"]
    assert cells(shown, "none") == ["none", "undefined", ""]
    assert not any("0.1000" in line for line in shown)


def test_the_head_of_a_class_is_named_where_there_are_several(classes):
    shown = classes({"test/semantic/iu/tree": 0.5, "test/geometric/iu/tree": 0.25})
    assert cells(shown, "semantic/tree")[1] == "0.5000"
    assert cells(shown, "geometric/tree")[1] == "0.2500"


def test_twelve_classes_are_all_shown(classes):
    shown = classes({f"test/iu/{number}": number / 12 for number in range(12)})
    assert [line.split("│")[1].strip() for line in shown if line.startswith("│")] == [str(n) for n in range(12)]
    assert "results.json" not in " ".join(shown)


def test_of_more_classes_the_worst_and_the_best_are_shown_and_the_rest_counted(classes):
    scores = {f"test/iu/{number}": (number * 7 % 20) / 20 for number in range(20)} | {"test/iu/none": float("nan")}
    shown = classes(scores)
    values = [float(line.split("│")[2]) for line in shown if line.startswith("│")]
    assert values == [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    assert "the worst and the best of 21 classes; results.json has the other 9" in " ".join(" ".join(shown).split())


def test_no_class_makes_no_table():
    assert class_table({"test/mean_iu": 0.5}, "test") is None


def test_a_run_without_scores_still_says_where_it_is(capsys, tmp_path):
    config = {"name": "all", "model": {"_target_": "a.UNet"}, "paper": None}
    protocol = {"checkpoint": "last", "tta": "none", "dataset": "isbi_em", "split": "all 30"}
    print_results(config, tmp_path, {}, "none", protocol, {"steps": 5.0, "fit_s": 61.0})
    told = capsys.readouterr().out
    assert told == f"data:  isbi_em, all 30\ntime:  5 steps in 61 s; evaluation 0 s\nrun:   {tmp_path}\n"


@pytest.mark.parametrize(("split", "beside"), [("test", True), ("val", False), ("train", False)])
def test_the_paper_stands_beside_test_scores_alone(split, beside, capsys, tmp_path, compose):
    config = compose("experiment=unet_isbi_em", "name=x", "data.root=folder")
    protocol = {"checkpoint": "last", "tta": "none", "dataset": "isbi_em", "split": "all 30"}
    print_results(config, tmp_path, {f"{split}/rand_error": 0.1}, split, protocol, {})
    shown = capsys.readouterr().out
    assert ("0.0382" in shown) == beside
    assert ("not comparable: the scored slices" in shown) == beside
