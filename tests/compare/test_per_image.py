import json
import zipfile

import numpy as np
import pytest

from segbench.compare.per_image import read_counts
from segbench.compare.reading import read_run
from segbench.errors import SegbenchError
from segbench.runs.directory import Run

DAMAGED = r"is damaged: {}.*\n.*expected: the file as segbench wrote it.*\n.*segbench evaluate run="


def counts_of(path):
    return read_counts(read_run(path))


class TestRead:
    def test_scores_of_all_images_are_those_of_results_to_the_last_bit(self, tiny_run):
        counts = counts_of(tiny_run)
        recorded = Run.open(tiny_run).results()["metrics"]
        assert counts.of_all() == recorded
        assert counts.unread == ()
        assert len(counts.ids) == 5

    def test_several_heads_are_named(self, make_run):
        run = make_run("run")
        dataset = json.loads((run / "dataset.json").read_text())
        dataset["heads"]["other"] = dataset["heads"]["semantic"]
        (run / "dataset.json").write_text(json.dumps(dataset))
        stored = dict(np.load(run / "per_image.npz"))
        stored |= {key.replace("semantic/", "other/"): value for key, value in stored.items() if "/" in key}
        stored["versions"] = np.array(json.dumps(dict.fromkeys(["semantic/confusion", "other/confusion"], "fcn-1")))
        np.savez(run / "per_image.npz", **stored)
        assert {"test/semantic/mean_iu", "test/other/mean_iu"} <= counts_of(run).of_all().keys()


class TestBadInput:
    def test_no_counts_says_how_to_get_them(self, make_run):
        run = make_run("run")
        (run / "per_image.npz").unlink()
        with pytest.raises(
            SegbenchError, match=r"no .*per_image.npz\n.*counts of every image.*\n.*segbench evaluate run="
        ):
            counts_of(run)

    @pytest.mark.parametrize("kept", [0, 100, 600])
    def test_a_cut_file(self, make_run, kept):
        run = make_run("run")
        path = run / "per_image.npz"
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(SegbenchError, match=DAMAGED.format("")):
            counts_of(run)

    def test_a_flipped_byte_in_a_count(self, make_run):
        run = make_run("run")
        path = run / "per_image.npz"
        with zipfile.ZipFile(path) as archive:
            entry = archive.getinfo("semantic/confusion/matrix.npy")
        content = bytearray(path.read_bytes())
        content[entry.header_offset + 30 + len(entry.filename) + 60] ^= 255
        path.write_bytes(content)
        with pytest.raises(SegbenchError, match=DAMAGED.format("")):
            counts_of(run)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda stored: stored.pop("ids"), "KeyError"),
            (lambda stored: stored.pop("semantic/confusion/matrix"), "no scores can be computed from its counts"),
            (
                lambda stored: stored.update({"versions": np.array("[1]")}),
                "its versions is damaged: Input should be a valid dictionary",
            ),
            (lambda stored: stored.update({"versions": np.array("{")}), "its versions is damaged: Expecting"),
            (lambda stored: stored.update({"ids": stored["ids"][:-1]}), ".*does not hold numbers of 39 images"),
            (lambda stored: stored.update({"ids": np.array(["a"] * 40)}), "it contains an image twice"),
            (
                lambda stored: stored.update({"semantic/confusion/matrix": np.array(["x"] * 40)}),
                ".*does not hold numbers",
            ),
            (
                lambda stored: stored.update({"semantic/confusion/matrix": np.zeros((40, 3))}),
                "no scores can be computed from its counts",
            ),
            (
                lambda stored: stored.update({"ids": np.array([object()] * 40)}),
                ".*cannot be read as npz: Object arrays",
            ),
        ],
    )
    def test_a_file_that_segbench_did_not_write(self, make_run, change, said):
        run = make_run("run")
        stored = dict(np.load(run / "per_image.npz"))
        change(stored)
        np.savez(run / "per_image.npz", **stored)
        with pytest.raises(SegbenchError, match=DAMAGED.format(said)):
            counts_of(run)

    def test_no_image(self, make_run):
        run = make_run("run")
        stored = {key: value[:0] if value.ndim else value for key, value in np.load(run / "per_image.npz").items()}
        np.savez(run / "per_image.npz", **stored)
        with pytest.raises(SegbenchError, match="it contains no image"):
            counts_of(run)

    def test_counts_of_another_definition_are_not_scored(self, make_run):
        run = make_run("run", version="fcn-0")
        with pytest.raises(
            SegbenchError, match=r"definition fcn-0, this version of segbench has fcn-1.*\n.*\n.*evaluate"
        ):
            counts_of(run)

    def test_a_measure_that_the_configuration_lacks_is_left_and_said(self, make_run):
        run = make_run("run")
        stored = dict(np.load(run / "per_image.npz"))
        stored["versions"] = np.array(json.dumps({"semantic/confusion": "fcn-1", "semantic/old": "1"}))
        np.savez(run / "per_image.npz", **stored)
        assert counts_of(run).unread == (f"{run}: semantic/old is not among the metrics of its configuration.",)
