import csv
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from segbench.compare.comparison import Settings
from segbench.compare.document import Document, Sentences, Table, document
from segbench.compare.formats import FORMATS, SUFFIXES, as_html, as_latex, as_markdown, write
from segbench.compare.grouping import group_runs
from segbench.compare.pairwise import compare_groups
from segbench.compare.reading import read_runs
from segbench.compare.terminal import as_text, cut
from segbench.errors import SegbenchError

NASTY = Document(
    "a & b_c | <d>",
    (
        Table(
            "scores",
            "50% of $x_1$",
            ("name|of", "n"),
            (("<b>&amp;</b> {a}~^\\", "0.5 ± 0.1"), ("`x` *y* #", "< 0.001")),
            (False, True),
            ("a caption_here.",),
        ),
        Sentences("Warned", ("p < 0.05 & more_than | that",), warning=True),
    ),
)


@pytest.fixture
def comparison(make_run, tmp_path):
    """Two groups of two seeds, one of them crashed in part."""
    for seed in range(2):
        make_run(f"a{seed}", seed=seed, accuracy=0.7, optimizer={"lr": 1})
        make_run(f"b{seed}", seed=seed, accuracy=0.9, optimizer={"lr": 2})
    make_run("crashed", seed=2, state="failed", optimizer={"lr": 2})
    return compare_groups(group_runs(*read_runs([str(tmp_path)])), Settings(draws=500))


@pytest.fixture
def many(make_run, tmp_path):
    """Six groups of one run."""
    for number in range(6):
        make_run(f"many/{number}", accuracy=0.6 + number / 20, images=8, optimizer={"lr": number})
    return compare_groups(group_runs(*read_runs([str(tmp_path / "many")])), Settings(draws=500))


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


class TestDocument:
    def test_few_groups_are_columns(self, comparison):
        blocks = {block.title: block for block in document(comparison).blocks}
        assert blocks["What differs"].rows == (("optimizer.lr", "1", "2"),)
        scores = blocks["Scores"]
        assert scores.header == ("score", "better", "A", "B")
        assert scores.rows[0] == ("runs", "", "2 (seeds 0, 1)", "2 (seeds 0, 1)")
        (row,) = [row for row in scores.rows if row[0] == "mean_iu"]
        column = next(c for c in comparison.columns if c.name == "mean_iu")
        summary = comparison.table.groups[0].summary(column)
        assert row[1:3] == ("higher", f"{summary.mean:.4f} ± {summary.sd:.4f}")
        assert blocks["Left out"].rows[0][1].startswith("failed: segbench train resume=")
        assert "What can be concluded about A and B" in blocks
        assert "IU of each class, A and B" in blocks
        assert "Images that changed most, A and B" in blocks

    def test_many_groups_are_rows_the_best_first(self, many):
        (scores,) = [block for block in document(many).blocks if block.title == "Scores"]
        assert scores.header[:4] == ("group", "runs", "optimizer.lr", "pixel_acc ↑")
        assert [row[2] for row in scores.rows] == ["5", "4", "3", "2", "1", "0"]

    def test_of_many_pairs_there_is_one_table_with_adjusted_p(self, many):
        blocks = {block.title: block for block in document(many).blocks}
        assert len(many.pairs) == 15
        assert {row[1] for row in blocks["Differences"].rows} == {"pixel_acc"}
        assert len(blocks["Differences"].rows) == 15
        assert blocks["Differences"].header[0] == "pair"
        assert "p (adjusted)" in blocks["Differences"].header
        assert not any(title.startswith("Images") for title in blocks)

    def test_what_is_not_shown_to_be_more_than_noise_stands_in_brackets(self, comparison, many):
        (shown,) = [block for block in document(comparison).blocks if block.title == "Differences"]
        assert {row[-1] for row in shown.rows} == {"B"}
        (unsure,) = [block for block in document(many).blocks if block.title == "Differences"]
        assert "(F)" in {row[-1] for row in unsure.rows}
        assert not any(row[5].endswith("!") for row in unsure.rows)
        asked = replace(many, settings=replace(many.settings, metrics=("pixel_acc", "mean_iu")))
        (all_asked,) = [block for block in document(asked).blocks if block.title == "Differences"]
        assert len(all_asked.rows) == 15 * 7

    def test_the_test_over_seeds_stands_beside_where_images_are_few(self, make_run, tmp_path):
        for seed in range(2):
            for rate, accuracy in ((1, 0.7), (2, 0.9)):
                make_run(f"few/{rate}-{seed}", seed=seed, accuracy=accuracy, images=6, optimizer={"lr": rate})
        found = compare_groups(group_runs(*read_runs([str(tmp_path / "few")])))
        (table,) = [block for block in document(found).blocks if block.title == "Differences"]
        place = table.header.index("p (seeds only)")
        assert table.header[place - 1] == "p"
        assert all(row[place] and row[place - 2].endswith("!") for row in table.rows)
        assert "! the images are few or not independent: see p (seeds only)." in table.caption

    def test_a_plan_is_a_table(self, make_run, tmp_path):
        for seed in range(2):
            for rate, accuracy in ((1, 0.7), (2, 0.9)):
                make_run(f"{rate}-{seed}", seed=seed, accuracy=accuracy, optimizer={"lr": rate})
        found = compare_groups(group_runs(*read_runs([str(tmp_path)])), Settings(plan=0.05))
        (table,) = [block for block in document(found).blocks if block.title == "How much is enough, A and B"]
        assert table.header[:3] == ("images", "runs a side for 0.0500", "smallest, 2 runs a side")
        assert [row[0] for row in table.rows] == ["40", "80", "160"]
        plan = found.pairs[0].plan
        assert len(rows_of(write(found, "csv", "plan"))) == 9
        data = json.loads(write(found, "json"))["pairs"][0]["plan"]
        assert data[0]["smallest_difference"] == plan.rows[0].smallest[0]
        assert data[0]["runs_needed"] == plan.rows[0].seeds
        for form in ("markdown", "latex", "html", "terminal"):
            assert "smallest, 4 runs a side" in write(found, form)

    def test_one_group_has_a_hint(self, make_run, tmp_path):
        for seed in range(2):
            make_run(str(seed), seed=seed, accuracy=0.8)
        shown = document(compare_groups(group_runs(*read_runs([str(tmp_path)]))))
        assert shown.title == "Comparison of 2 runs in 1 group, drawn, test"
        assert any(
            "seeds=apart compares the runs" in s for b in shown.blocks if isinstance(b, Sentences) for s in b.sentences
        )


class TestMarkdown:
    def test_tables_have_as_many_cells_in_every_line(self, comparison):
        lines = write(comparison, "markdown").splitlines()
        assert lines[0] == "# Comparison of 4 runs in 2 groups, drawn, test"
        tables = [line for line in lines if line.startswith("|")]
        assert len(tables) > 20
        start = lines.index("| score | better | A | B |")
        assert lines[start + 1] == "| --- | --- | ---: | ---: |"

    def test_signs_of_markdown_are_escaped(self):
        text = as_markdown(NASTY)
        assert "# a \\& b\\_c \\| \\<d>" in text
        assert "| \\`x\\` \\*y\\* # | \\< 0.001 |" in text
        assert all(line.replace("\\|", "").count("|") == 3 for line in text.splitlines() if line.startswith("|"))


class TestLatex:
    def test_signs_of_latex_are_escaped(self):
        text = as_latex(NASTY)
        assert r"\caption{50\% of \$x\_1\$. a caption\_here.}" in text
        assert (
            r"$<$b$>$\&amp;$<$/b$>$ \{a\}\textasciitilde{}\textasciicircum{}\textbackslash{} & 0.5 $\pm$ 0.1 \\" in text
        )
        assert r"\item p $<$ 0.05 \& more\_than | that" in text

    def test_every_table_is_one_of_booktabs(self, comparison):
        text = write(comparison, "latex")
        assert text.count(r"\begin{table}") == text.count(r"\toprule") == text.count(r"\bottomrule") >= 5
        for block in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
            rows = [line for line in block[1].splitlines() if line.endswith(r"\\")]
            assert all(len(re.split(r"(?<!\\)&", row)) == len(block[0]) for row in rows)

    @pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
    def test_latex_takes_it(self, comparison, tmp_path):
        body = write(comparison, "latex")
        source = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}\n{body}\\end{{document}}\n"
        (tmp_path / "a.tex").write_text(source)
        done = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"],
            cwd=tmp_path,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


class TestCsv:
    def test_runs_with_all_digits_and_what_sets_them_apart(self, comparison):
        rows = rows_of(write(comparison, "csv"))
        assert [(row["group"], row["seed"], row["optimizer.lr"]) for row in rows] == [
            ("A", "0", "1"),
            ("A", "1", "1"),
            ("B", "0", "2"),
            ("B", "1", "2"),
        ]
        for row, run in zip(rows, comparison.table.runs, strict=True):
            assert float(row["test/mean_iu"]) == run.metrics["test/mean_iu"]

    def test_another_table(self, comparison):
        rows = rows_of(write(comparison, "csv", "differences"))
        d = comparison.pairs[0].differences[0]
        assert rows[0]["score"] == d.key
        assert (float(rows[0]["low"]), float(rows[0]["p_adjusted"])) == (d.low, d.p_adjusted)
        assert float(rows[0]["p_seeds_only"]) == d.analysis.seeds.p
        assert (rows[0]["permutation_swaps"], rows[0]["images_dependent"]) == ("", "")
        assert len(rows_of(write(comparison, "csv", "classes"))) == 3
        assert rows_of(write(comparison, "csv", "left_out"))[0]["reason"].startswith("failed")

    def test_no_table_of_that_name(self, comparison):
        for form in ("csv", "json", "markdown"):
            with pytest.raises(SegbenchError, match=r"table=results\n.*runs, .*\n.*correct table="):
                write(comparison, form, "results")


class TestJson:
    def test_everything_with_all_digits(self, comparison):
        data = json.loads(write(comparison, "json"))
        d = comparison.pairs[0].differences[0]
        (pair,) = data["pairs"]
        assert pair["differences"][0]["difference"] == d.difference
        assert pair["differences"][0]["conclusion"].startswith("B is better than A")
        assert pair["conclusions"]
        assert data["settings"]["seed"] == 0
        assert data["groups"][0]["scores"]["test/mean_iu"]["n"] == 2
        assert data["groups"][0]["runs"][0]["commit"] == "a" * 40
        assert data["columns"][0] == {"key": "test/pixel_acc", "definition": "fcn-1", "higher_is_better": True}
        assert len(data["left_out"]) == 1

    def test_what_is_not_defined_is_null(self, make_run, tmp_path):
        make_run("a")
        text = write(compare_groups(group_runs(*read_runs([str(tmp_path)]))), "json")
        assert json.loads(text)["groups"][0]["scores"]["test/mean_iu"]["sd"] is None

    def test_a_table_alone(self, comparison):
        assert len(json.loads(write(comparison, "json", "runs"))) == 4


class Tags(HTMLParser):
    """Counts tags and refuses what is not closed or would be fetched."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        assert not {"src", "href"} & {name for name, _ in attributes}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


class TestHtml:
    def test_it_is_whole_and_needs_nothing_beside_it(self, comparison):
        tags = Tags()
        tags.feed(write(comparison, "html"))
        assert tags.open == []
        assert tags.seen.count("table") == tags.seen.count("thead") == 6
        assert "link" not in tags.seen

    def test_text_is_escaped(self):
        tags = Tags()
        tags.feed(as_html(NASTY))
        text = "".join(tags.text)
        assert "<b>&amp;</b> {a}~^\\" in text
        assert "b" not in tags.seen

    def test_heads_sort_and_are_buttons(self, comparison):
        page = write(comparison, "html")
        assert page.count('<th scope="col"') == page.count('<button type="button"')
        assert "prefers-color-scheme: dark" in page
        assert "@media print" in page


@pytest.mark.slow
def test_a_browser_sorts_by_the_keyboard_and_has_nothing_to_complain_of(comparison, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="no browser to open the page in")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium")
    (tmp_path / "a.html").write_text(write(comparison, "html"))
    said = []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto((tmp_path / "a.html").as_uri())
        classes = page.locator("section", has_text="IU of each class").locator("table")
        difference = classes.locator("thead th").nth(3)

        def column():
            return [float(cell) for cell in classes.locator("tbody td:nth-child(4)").all_inner_texts()]

        difference.locator("button").focus()
        page.keyboard.press("Enter")
        assert difference.get_attribute("aria-sort") == "ascending"
        assert column() == sorted(column())
        page.keyboard.press("Enter")
        assert difference.get_attribute("aria-sort") == "descending"
        assert column() == sorted(column(), reverse=True)
        browser.close()
    assert said == []


class TestTerminal:
    def test_everything_is_said(self, comparison):
        text = write(comparison, "terminal")
        for block in document(comparison).blocks:
            assert block.title in text
        assert "B is better than A in pixel_acc" in text

    def test_signs_of_rich_are_text(self):
        shown = Document("[bold]t[/bold]", (Table("t", "[red]", ("[x]",), (("[/y]",),), (False,)),))
        assert "[/y]" in as_text(shown)
        assert "[bold]t[/bold]" in as_text(shown)

    def test_columns_that_do_not_fit_are_left_out_and_counted(self):
        wide = Table("scores", "Scores", tuple("abcdef"), (tuple("x" * 20 for _ in "abcdef"),), (False,) * 6, fixed=2)
        assert cut(wide, 200).header == tuple("abcdef")
        assert cut(wide, 80).header == ("a", "b", "c")
        assert cut(wide, 10).header == ("a", "b", "c")
        assert cut(wide, 80).caption[-1].startswith("3 further columns: metric=NAME")

    def test_rows_beyond_forty_are_counted(self):
        long = Table("scores", "Scores", ("a",), tuple((str(n),) for n in range(50)), (True,))
        assert len(cut(long, 80).rows) == 40
        assert cut(long, 80).caption[-1].startswith("10 further rows")


def test_all_formats_can_be_had_by_a_file_s_name(comparison):
    assert set(SUFFIXES.values()) == set(FORMATS)
    for form in FORMATS:
        assert write(comparison, form)
    with pytest.raises(SegbenchError, match=r"format=pdf\n.*terminal, markdown"):
        write(comparison, "pdf")


def test_a_spreadsheet_takes_no_text_for_a_formula(comparison, monkeypatch):
    rows = [
        {"=run": "=1+1", "b": -0.5, "c": "-0.5", "d": "-cmd|x", "e": None, "f": "@x", "g": "\tx", "h": "a=b", "i": [1]}
    ]
    monkeypatch.setattr("segbench.compare.formats.tables", lambda _: {"runs": rows})
    ((header, line),) = [list(csv.reader(io.StringIO(write(comparison, "csv"))))]
    assert header == ["'=run", *"bcdefghi"]
    assert line == ["'=1+1", "-0.5", "-0.5", "'-cmd|x", "", "'@x", "'\tx", "a=b", "[1]"]


def test_names_are_text_in_every_document():
    name = "\x1b[31m[link](javascript:x) [red] :smile: *"
    shown = Document(name, (Table("t", name, (name,), ((name,),), (False,), (name,)), Sentences(name, ("# " + name,))))
    assert as_text(shown).count("\\x1b[31m[link](javascript:x) [red] :smile: *") == 7
    latex, markdown = as_latex(shown), as_markdown(shown)
    assert "{[}link{]}" in latex and "    {[}" not in latex
    assert "\n- \\# " in markdown and "\\[link\\](javascript" in markdown
    for text in (latex, markdown, as_text(shown), as_html(shown)):
        assert "\x1b" not in text
