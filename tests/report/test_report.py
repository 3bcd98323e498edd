"""`segbench report`: one file with what a run or a sweep came to."""

import json
import math
import re
import shutil
import sys

import numpy as np
import pytest

from segbench.cli import main as cli
from segbench.cli.report import run
from segbench.config.paper import paper_blocks
from segbench.display import digits
from segbench.errors import SegbenchError
from segbench.report.figures import COLOURS, bars, confusion, curves, parallel_coordinates
from segbench.report.page import report
from segbench.report.run_page import duration, read_curves
from segbench.report.sweep_page import explained
from segbench.runs.directory import Run


@pytest.fixture
def sweep(tiny_run, tmp_path):
    """Four runs of two settings: a copy of one run each, its scores changed; one that failed beside them."""
    for number, (width, lr, value) in enumerate([(4, 0.1, 0.5), (4, 0.2, 0.6), (8, 0.1, 0.8), (8, 0.2, 0.9)]):
        copied = Run(shutil.copytree(tiny_run, tmp_path / "sweep" / str(number)))
        config, results = copied.config(), copied.results()
        config = config.replace({"model.width": width, "optimizer.lr": lr})
        copied.begin(config)
        results["metrics"]["test/mean_iu"] = value
        (copied.path / "results.json").write_text(json.dumps(results))
    failed = Run.prepare(tmp_path / "sweep" / "4", config, [])
    failed.set_state("failed", "out of memory")
    return tmp_path / "sweep"


def test_a_run_is_told_whole(tiny_run, tmp_path):
    path = run([str(tiny_run), f"output={tmp_path / 'report.html'}"])
    text = path.read_text()
    results = Run.open(tiny_run).results()
    for heading in ("Scores", "Curves", "Classes", "Images", "Cost", "Provenance", "Configuration"):
        assert f">{heading}</h2>" in text
    assert f"{results['metrics']['test/mean_iu']:.4f}" in text
    assert text.count("data:image/jpeg;base64,") >= 3
    assert "best image" in text and "worst image" in text
    assert "splits and merges" in text
    assert results["provenance"]["versions"]["torch"] in text
    # One file that asks for nothing.
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert "https://" not in re.sub(r"<pre>.*?</pre>|xmlns[^ ]*", "", text, flags=re.DOTALL).replace(
        "http://www.w3.org", ""
    )
    assert len(text) < 5e6


def test_energy_is_told_where_it_was_read(tiny_run, tmp_path):
    copied = Run(shutil.copytree(tiny_run, tmp_path / "run"))
    (copied.path / "energy.json").write_text('{"joules": 7200000.0, "meters": 1}')
    assert "2.000 kWh" in report([str(copied.path)])


def beside(run, paper):
    run.begin(run.config().replace({"paper": paper}))
    results = run.results()
    results["protocol"]["paper"] = paper
    (run.path / "results.json").write_text(json.dumps(results))


def test_a_packaged_row_stands_beside_recorded_deviations_alone(tiny_run, tmp_path):
    copied = Run(shutil.copytree(tiny_run, tmp_path / "run"))
    beside(copied, paper_blocks()["unet_isbi_em_cpu"])
    text = report([str(copied.path)])
    assert ">0.0611</td>" not in text
    assert "deviations are not recorded: segbench train resume=" in text
    copied.write_deviations({"not_comparable": ["other images"], "deviations": ["model.width: 4 instead of 64"]})
    text = report([str(copied.path)])
    assert ">0.0611</td>" in text
    assert "Not comparable: other images." in text


def test_the_papers_row_stands_beside(tiny_config, tiny_run, tmp_path):
    copied = Run(shutil.copytree(tiny_run, tmp_path / "run"))
    paper = {"row": "r", "method": "U-Net", "source": "a table", "not_comparable": "other images"}
    paper |= {"metrics": {"pixel_error": 0.0611, "forward_ms": 50.0}}
    beside(copied, paper)
    text = report([str(copied.path)])
    mine = copied.results()["metrics"]["test/pixel_error"]
    assert ">0.0611</td>" in text
    assert f">{mine - 0.0611:+.4f}</td>" in text
    assert "Not comparable: other images." in text
    assert "The paper prints forward_ms" in text


def test_each_class_has_its_iu_and_dice(tiny_run):
    text = report([str(tiny_run)])
    scores = Run(tiny_run).results()["metrics"]
    for name in ("membrane", "cell"):
        row = re.search(rf'<tr><th scope="row">{name}</th>(.*?)</tr>', text, re.DOTALL)[1]
        shown = re.findall(r">([^<>]+)</td>", row)[:2]
        assert shown == [digits.number(scores[f"test/{family}/{name}"]) for family in ("iu", "dice")]


def test_deviations_from_the_paper_stand_on_the_page(tiny_run, tmp_path):
    copied = Run.open(shutil.copytree(tiny_run, tmp_path / "run"))
    copied.write_deviations({"deviations": ["model.width: <4> instead of 64"]})
    text = report([str(copied.path)])
    assert "model.width: &lt;4&gt; instead of 64" in text


def test_a_run_of_a_part_of_its_split_says_so_and_has_no_paper_beside(tiny_run, tmp_path):
    copied = Run(shutil.copytree(tiny_run, tmp_path / "run"))
    paper = {"row": "r", "method": "U-Net", "source": "a table", "metrics": {"pixel_error": 0.0611}}
    beside(copied, paper)
    results = copied.results()
    (copied.path / "results.json").write_text(json.dumps(results | {"partial": {"counted": 2, "of": 5}}))
    text = report([str(copied.path)])
    assert f"Partial: 2 of 5 images of test were counted. Score it whole: segbench evaluate run={copied.path}" in text
    assert ">0.0611</td>" not in text and "The paper" not in text


def test_the_papers_scores_lead_or_the_one_that_is_asked_for(tiny_run, tmp_path):
    copied = Run(shutil.copytree(tiny_run, tmp_path / "run"))
    paper = {"row": "r", "method": "U-Net", "source": "a table", "metrics": {"rand_error": 0.0382}}
    beside(copied, paper)

    def order(metric=None):
        names = re.findall(r'<tr><th scope="row">(\w+)</th>', report([str(copied.path)], metric))
        # The classes' own scores stand before all others.
        assert names[:2] == ["membrane", "cell"]
        return [name for name in names if name not in names[:2]]

    assert order()[0] == "rand_error"
    assert order("v_info")[:2] == ["v_info", "rand_error"]
    assert len(set(order())) == len(order()) and set(order()) == set(order("v_info"))


def test_a_sweep_shows_other_definitions_of_a_score_last(sweep):
    head = re.search(r"<thead>.*?</thead>", report([str(sweep)]), re.DOTALL)[0]
    assert "rand_error<" in head and "mean_iu_all" not in head
    assert "further scores: segbench compare" in report([str(sweep)])


def test_a_sweep_is_ordered_and_its_failures_are_told(sweep):
    text = report([str(sweep)])
    rows = re.findall(r'<tr><th scope="row">(\d)</th>', text)
    assert rows == ["3", "2", "1", "0"]
    assert "Left out" in text and "failed" in text
    assert "Best run: scores" in text
    assert "share of the variance" in text


def test_a_sweep_can_be_ordered_by_an_error(sweep):
    for number, value in enumerate((0.1, 0.4, 0.2, 0.3)):
        results = Run(sweep / str(number)).results()
        results["metrics"]["test/pixel_error"] = value
        (sweep / str(number) / "results.json").write_text(json.dumps(results))
    assert re.findall(r'<tr><th scope="row">(\d)</th>', report([str(sweep)], "pixel_error")) == ["0", "2", "3", "1"]


def test_seeds_of_a_setting_are_averaged(sweep):
    assert "over seeds" not in report([str(sweep)])
    for number in range(4):
        # Two settings of two seeds: 0.5 and 0.6, 0.8 and 0.9.
        of_run = Run(sweep / str(number))
        of_run.begin(of_run.config().replace({"seed": number % 2, "optimizer.lr": 0.1}))
    text = report([str(sweep)], "mean_iu")
    section = text[text.index("Settings over seeds") :].partition("</table>")[0]
    # Student's t of one degree of freedom: 12.706 standard errors of 0.05.
    spreads = re.findall(r"(0\.\d+) ± (0\.\d+) \[(-?\d\.\d+), (\d\.\d+)\]", section)
    means = [tuple(map(float, found)) for found in spreads if found[0] in ("0.8500", "0.5500")]
    assert means == [pytest.approx((mean, 0.0707, mean - 0.6353, mean + 0.6353), abs=1e-4) for mean in (0.85, 0.55)]


def test_what_a_setting_explains():
    settings = [{"a": a, "b": b} for a in (1, 2) for b in ("x", "y")] * 2
    scores = [each["a"] + 0.0 for each in settings]
    assert explained(settings, scores) == {("a",): 1.0, ("b",): 0.0}
    # By hand: between b's values 2 * 4 * 0.5^2 = 2 of a total of 4; epsilon^2 = 1 - (2 / 6) / (4 / 7).
    scores = [(each["a"] == 2) * 1.0 + (each["b"] == "y") * 1.0 for each in settings]
    assert explained(settings, scores)["b",] == pytest.approx(1 - (2 / 6) / (4 / 7))
    # What changes together is one setting, whatever its values are called.
    both = [{**each, "c": {1: 8, 2: 16}[each["a"]]} for each in settings]
    assert explained(both, scores) == {
        ("a", "c"): explained(settings, scores)["a",],
        ("b",): pytest.approx(0.41667, abs=1e-5),
    }
    assert explained([{"a": 1}, {"a": 1}], [0.1, 0.2]) == {}
    assert explained([{"a": 1}, {"a": 2}], [0.1, 0.2]) == {}
    assert explained([], []) == {}


def test_a_setting_of_many_numbers_is_cut_at_its_quartiles():
    numbers = np.linspace(0, 1, 40)
    assert explained([{"lr": float(x)} for x in numbers], (numbers > 0.5).tolist())["lr",] > 0.8


def test_curves_are_read_without_single_classes_and_gaps(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(
        "epoch,step,train/loss,val/mean_iu,val/iu/cell,test/mean_iu\n0,9,1.5,,,\n0,19,nan,0.5,0.4,\n1,29,,,,0.6\n"
    )
    assert read_curves(tmp_path) == {"train/loss": ([9.0], [1.5]), "val/mean_iu": ([19.0], [0.5])}
    assert read_curves(tmp_path / "none") == {}


def test_curves_of_a_run_that_writes_end_with_its_last_whole_line(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,train/loss\n0,9,1.5\n0,19,0.2")
    assert read_curves(tmp_path) == {"train/loss": ([9.0], [1.5])}


def test_drawings_are_svg_in_the_pages_ink():
    drawn = [
        curves({"a": ([1, 2], [0.1, 0.2]), "b": ([1], [0.3])}, "loss", log=True),
        bars({"cell": 0.5, "border": math.nan}, "IU"),
        confusion(np.array([[5, 1], [0, 0]]), ["a", "b"]),
        parallel_coordinates([{"lr": 1e-4, "s": 0.1}, {"lr": 1e-1, "s": 0.2}, {"lr": 1e-2, "s": 0.2}], "s", True),
        parallel_coordinates([{"net": "a", "s": 0.1}, {"net": "b", "s": 0.1}], "s", False),
    ]
    for svg in drawn:
        assert svg.startswith("<svg") and "currentColor" in svg and "#010203" not in svg
    assert "undefined" in drawn[1]
    assert "0.833" in drawn[2]


def contrast(colour, other):
    """WCAG's ratio of two colours, 1 to 21."""
    light = []
    for each in (colour, other):
        channels = [int(each[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
        light.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(light) + 0.05) / (min(light) + 0.05)


def test_lines_are_seen_on_light_and_on_dark_ground():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    runs = [{"lr": number / 20, "s": number / 10} for number in range(11)]
    colours = set(re.findall(r"stroke: (#\w{6}); stroke-opacity", parallel_coordinates(runs, "s", True)))
    assert len(colours) > 5
    for colour in colours | set(COLOURS):
        assert min(contrast(colour, ground) for ground in ("#ffffff", "#12161b")) > 2.5, colour


def test_a_class_without_labelled_pixels_has_no_shares():
    shares = re.findall(r">(\d\.\d{3})<", confusion(np.array([[5, 1, 0], [0, 0, 0], [1, 0, 1]]), ["a", "b", "c"]))
    assert shares == ["0.833", "0.167", "0.000", "0.500", "0.000", "0.500"]


def test_lines_of_the_same_colour_differ_in_style():
    drawn = curves({str(number): ([1, 2], [0, number]) for number in range(13)}, "scores")
    lines = re.findall(r"style=\"fill: none; (?:stroke-dasharray: ([^;]*); )?[^\"]*stroke: (#[0-9a-f]{6})", drawn)
    styles = {(dashes, colour) for dashes, colour in lines if colour in COLOURS}
    assert len(styles) == 13


def test_a_scale_is_logarithmic_where_the_values_ask_for_it():
    # Older ones draw the sign otherwise.
    pytest.importorskip("matplotlib", minversion="3.10")

    def labels(low, high):
        return re.findall(r">([^<>\n]+)<", curves({"loss": ([1, 2], [low, high])}, "loss", log=True))

    assert "−" in labels(1e-5, 1e-2)  # Of an exponent.
    assert "−" not in labels(0.3, 0.4) and "0.30" in labels(0.3, 0.4)
    assert "0.0" in labels(0.0, 1.0)


@pytest.mark.parametrize(("seconds", "said"), [(5, "5 s"), (600, "10 min"), (7200, "2.0 h")])
def test_durations_read_as_a_person_says_them(seconds, said):
    assert duration(seconds) == said


def test_bad_sources_are_told(tmp_path, sweep, capsys, monkeypatch):
    with pytest.raises(SegbenchError, match="nothing to report"):
        run([])
    with pytest.raises(SegbenchError, match="did you mean metric="):
        run([str(sweep), "metirc=mean_iu"])
    with pytest.raises(SegbenchError, match="metric= given twice"):
        run([str(sweep), "metric=mean_iu", "metric=fw_iu"])
    with pytest.raises(SegbenchError, match="metric=nothing"):
        run([str(sweep / "0"), "metric=nothing"])
    with pytest.raises(SegbenchError, match="no run in"):
        run([str(tmp_path / "nowhere")])
    with pytest.raises(SegbenchError, match=r"no run with scores in .*failed"):
        run([str(sweep / "4")])
    with pytest.raises(SegbenchError, match="metric=nothing"):
        run([str(sweep), "metric=nothing"])
    (tmp_path / "file").write_text("")
    with pytest.raises(SegbenchError, match="cannot be written"):
        run([str(sweep / "0"), f"output={tmp_path / 'file' / 'report.html'}"])
    monkeypatch.setattr(sys, "argv", ["segbench", "report", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit):
        cli.main()
    assert "to do" in capsys.readouterr().err


def test_each_image_is_shown_once(tiny_run):
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", report([str(tiny_run)]))
    shown = [re.sub(r"^\w+ image: ", "", text) for text in captions if "image, label" in text]
    names = [re.split("[,:]", text)[0] for text in shown]
    assert len(names) > 2 and len(set(names)) == len(names)


def test_a_damaged_file_costs_its_section_alone(tiny_run, tmp_path):
    copied = Run(shutil.copytree(tiny_run, tmp_path / "run")).path
    (copied / "extremes" / "extremes.json").write_text("[[]]")
    (copied / "metrics.csv").write_text("a,b\n1,2\n")
    (copied / "energy.json").write_bytes(b"\xff")
    (copied / "overrides.yaml").write_bytes(b"\xff")
    text = report([str(copied)])
    for file in ("extremes or panels", "metrics.csv", "energy.json or", "results.json or overrides.yaml"):
        assert re.search(rf"<p>{file}[^<]* of {copied} cannot be read: ", text), file
    assert text.count(">Classes</h2>") == 1


def test_pictures_come_from_inside_the_run(tiny_run, tmp_path):
    copied = Run(shutil.copytree(tiny_run, tmp_path / "run")).path
    shutil.rmtree(copied / "panels")
    index = copied / "extremes" / "extremes.json"
    (entry, *_) = json.loads(index.read_text())
    good = index.parent / entry["file"]
    shutil.copyfile(good, tmp_path / "secret.png")
    (index.parent / "link.png").symlink_to(tmp_path / "secret.png")
    (index.parent / "huge.png").write_bytes(good.read_bytes()[:16] + (20_000).to_bytes(4, "big") * 2)
    (index.parent / "text.png").write_text("secret")
    names = [
        str(tmp_path / "secret.png"),
        "../../secret.png",
        "link.png",
        "huge.png",
        "text.png",
        "gone.png",
        good.name,
    ]
    index.write_text(json.dumps([entry | {"file": name} for name in names]))
    text = report([str(copied)])
    assert text.count("data:image/jpeg") == 1
    assert text.count("png cannot be read: it is a link, or outside the run.") == 3
    assert "huge.png cannot be read: it has 20000 x 20000 pixels" in text
    assert "text.png cannot be read: it is no PNG." in text
    assert "gone.png cannot be read: No such file" in text


def test_names_of_classes_are_text_in_drawings():
    matrix = np.array([[3, 1], [0, 2]])
    for svg in (confusion(matrix, ["<script>", "$x^$"]), bars({"<script>": 0.5, "$\\bad": 1.0}, "a & b")):
        assert "<script" not in svg and "&lt;script&gt;" in svg
        assert "$" in svg
