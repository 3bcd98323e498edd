import json
import subprocess
import sys

import numpy as np
import pytest
import yaml

from segbench.config.packaged import read_yaml
from segbench.config.record import Recorded
from segbench.errors import SegbenchError
from segbench.runs.directory import SCHEMA, Run
from segbench.runs.partial import Partial

TREE = {"name": "tiny", "seed": 0, "model": {"_target_": "segbench.models.unet.UNet", "width": 4}}
CONFIG = Recorded.of(TREE)


@pytest.fixture
def run(tmp_path):
    with Run.create(tmp_path / "run", CONFIG, ["seed=0"]) as run:
        yield run


def test_the_config_comes_back_as_it_was(run):
    assert run.recorded() == TREE
    assert Run.open(run.path).recorded() == TREE


def test_the_overrides_are_recorded(run):
    assert yaml.safe_load((run.path / "overrides.yaml").read_text()) == ["seed=0"]


def test_parents_are_made(tmp_path):
    with Run.create(tmp_path / "a" / "b" / "run", CONFIG, []) as run:
        assert (tmp_path / "a" / "b" / "run" / "checkpoints").is_dir()
        assert run.checkpoints.is_dir()


def test_a_directory_that_holds_a_run_is_refused(run):
    run.release()
    with pytest.raises(SegbenchError, match=r"holds a run already\n.*expected: an empty.*\n.*train resume="):
        Run.create(run.path, CONFIG.replace({"seed": 1}), [])
    assert run.recorded() == TREE


def test_a_run_that_was_refused_before_it_began_gives_its_directory_to_the_next(run):
    (run.path / "run.log").write_text("why\n")
    run.write_provenance({"command": "train.py data.masks=WRONG"})
    run.set_state("failed", "no folder WRONG")
    run.release()
    with Run.create(run.path, CONFIG.replace({"seed": 1}), ["seed=1"]) as again:
        assert again.recorded()["seed"] == 1 and again.overrides() == ["seed=1"]
        assert not (again.path / "provenance.json").exists()
        assert (again.path / "run.log").read_text() == "why\n"


@pytest.mark.parametrize("made", ["dataset.json", "metrics.csv", "checkpoints/last.ckpt", "stages"])
def test_a_failed_run_that_has_something_keeps_its_directory(run, made):
    (run.path / made).write_text("{}")
    run.set_state("failed", "out of memory")
    run.release()
    with pytest.raises(SegbenchError, match="holds a run already"):
        Run.create(run.path, CONFIG, [])


def test_another_process_cannot_take_a_directory_in_use(run):
    (run.path / "config.yaml").unlink()  # so that only the lock stands in the way
    code = (
        "import sys; from pathlib import Path; from segbench.config.record import Recorded; "
        "from segbench.runs.directory import Run; Run.create(Path(sys.argv[1]), Recorded.of({}), [])"
    )
    other = subprocess.run([sys.executable, "-c", code, run.path], capture_output=True, text=True, check=False)
    assert other.returncode == 1
    assert "in use by another process" in other.stderr
    assert "expected: a separate directory" in other.stderr
    assert "hydra.run.dir=DIR" in other.stderr


def test_a_directory_is_free_after_its_run(tmp_path):
    with Run.create(tmp_path / "run", CONFIG, []) as run:
        pass
    run.lock()
    run.release()


def test_a_refused_directory_is_not_kept(run):
    run.release()
    with pytest.raises(SegbenchError, match="holds a run already"):
        Run.create(run.path, CONFIG, [])
    run.lock()


def test_a_path_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SegbenchError, match=r"cannot be written: .*\n.*expected: a directory.*\n.*hydra.run.dir=DIR"):
        Run.create(tmp_path / "file" / "run", CONFIG, [])


def test_opening_what_is_no_run_names_the_missing_file(tmp_path):
    with pytest.raises(SegbenchError, match=r"config.yaml is missing\n.*expected: a run directory.*\n.*run=DIR"):
        Run.open(tmp_path)


def test_a_config_that_is_no_mapping_is_refused(run):
    (run.path / "config.yaml").write_text("- 1\n")
    with pytest.raises(SegbenchError, match=r"config\.yaml is not a mapping"):
        run.config()


def test_files_that_a_crashed_machine_left_empty_are_named(run):
    run.set_state("running")
    (run.path / "state.json").write_text("")
    assert (run.state(), run.reason()) == ("failed", f"{run.path / 'state.json'} is damaged")
    (run.path / "results.json").write_text('{"schema": 1, "met')
    with pytest.raises(SegbenchError, match=r"results.json is damaged: Unterminated string"):
        run.results()
    (run.path / "provenance.json").write_text("[]")
    with pytest.raises(SegbenchError, match=r"provenance.json is damaged: Input should be a valid dictionary"):
        run.provenance()
    (run.path / "config.yaml").write_text("model: [")
    with pytest.raises(SegbenchError, match=r"config.yaml is damaged: while parsing"):
        run.config()


@pytest.mark.parametrize("content", ["[]", '{"test": "a"}', '{"test": [1e999]}', '{"test": [null]}'])
def test_splits_are_lists_of_names(run, content):
    (run.path / "splits.json").write_text(content)
    with pytest.raises(SegbenchError, match=r"splits\.json is damaged"):
        run.splits()


@pytest.mark.parametrize("content", ["[]", '{"a": 1}', '{"a": null}'])
def test_digests_are_texts(run, content):
    (run.path / "digests.json").write_text(content)
    with pytest.raises(SegbenchError, match=r"digests\.json is damaged"):
        run.digests()


def test_results_follow_their_schema(run):
    run.write_results({"test/mean_iu": 0.5, "test/iu/cell": float("nan")}, {"fit_s": 1.0}, {"git": None}, {"tta": "d4"})
    results = run.results()
    assert list(results) == ["schema", "metrics", "timing", "provenance", "protocol", "partial"]
    assert results["partial"] is None
    assert results["schema"] == SCHEMA == 1
    assert results["metrics"] == {"test/mean_iu": 0.5, "test/iu/cell": None}
    assert (results["timing"], results["provenance"], results["protocol"]) == (
        {"fit_s": 1.0},
        {"git": None},
        {"tta": "d4"},
    )


def test_missing_results_say_how_to_get_them(run):
    with pytest.raises(SegbenchError, match=r"no results.json in .*\n.*finished run\n.*segbench evaluate run="):
        run.results()


def test_per_image_counts_come_back_whole(run):
    counts = {"semantic/confusion/matrix": np.arange(8).reshape(2, 2, 2), "semantic/x/sum": np.array([0.5, 1.5])}
    run.write_per_image("test", ["a", "b"], counts, {"semantic/confusion": "fcn-1"})
    with np.load(run.path / "per_image.npz", allow_pickle=False) as stored:
        assert stored["ids"].tolist() == ["a", "b"]
        assert stored["split"].item() == "test"
        assert json.loads(stored["versions"].item()) == {"semantic/confusion": "fcn-1"}
        for key, value in counts.items():
            np.testing.assert_array_equal(stored[key], value)
            assert stored[key].dtype == value.dtype


def test_a_run_of_a_part_of_its_split_says_so(run):
    run.write_results({}, {}, {}, {}, Partial(2, 231), Partial(1, 9))
    assert run.results()["partial"] == {"counted": 2, "of": 231}
    assert run.results()["partial_validation"] == {"counted": 1, "of": 9}
    assert run.partial() == Partial(2, 231)
    run.write_results({}, {}, {}, {})
    assert run.partial() is None
    assert "partial_validation" not in run.results()


def of_version_0_1_0(run):
    """Without the key."""
    results = run.results()
    (run.path / "results.json").write_text(json.dumps({key: results[key] for key in results if key != "partial"}))


@pytest.mark.parametrize(
    ("ids", "expected"), [(["a", "b", "c"], None), (["b"], Partial(1, 3)), (["x", "y"], Partial(0, 3))]
)
def test_counts_and_splits_tell_it_of_runs_of_version_0_1_0(run, ids, expected):
    run.write_results({}, {}, {}, {})
    of_version_0_1_0(run)
    assert run.partial() is None
    run.write_per_image("test", ids, {"semantic/x/sum": np.zeros(len(ids))}, {})
    assert run.partial() is None
    run.write_splits({"train": ["t"], "test": ["a", "b", "c"]})
    assert run.partial() == expected


def test_an_evaluation_of_version_0_1_0_is_told_by_the_splits_of_its_run(run, tmp_path):
    run.write_splits({"test": ["a", "b", "c"]})
    for name, data, expected in (("plain", {"root": None}, Partial(1, 3)), ("other", {"test": "list"}, None)):
        config = Recorded.of({"name": "evaluate", "run": str(run.path), "data": data})
        with Run.create(tmp_path / name, config, []) as evaluated:
            evaluated.write_results({}, {}, {}, {})
            of_version_0_1_0(evaluated)
            evaluated.write_per_image("test", ["a"], {"semantic/x/sum": np.zeros(1)}, {})
            assert evaluated.partial() == evaluated.partial(run) == expected


def test_a_damaged_record_of_it_is_told(run):
    run.write_results({}, {}, {}, {})
    (run.path / "results.json").write_text('{"partial": {"counted": 1}}')
    with pytest.raises(SegbenchError, match=r"results.json is damaged: partial: .*counted"):
        run.partial()


def test_nothing_half_written_is_left(run):
    run.set_state("running")
    run.write_per_image("test", ["a"], {"semantic/x/sum": np.zeros(1)}, {})
    run.write_results({}, {}, {}, {})
    assert not list(run.path.rglob("*partial*"))


def test_the_state_is_recorded_with_its_time(run):
    run.set_state("interrupted")
    state = json.loads((run.path / "state.json").read_text())
    assert state["state"] == "interrupted"
    assert state["time"].startswith("20")


@pytest.mark.parametrize(
    ("there", "asked", "found"),
    [(["last"], None, "last"), (["best", "last"], None, "best"), (["best", "last"], "last", "last")],
)
def test_best_is_taken_before_last_unless_asked(run, there, asked, found):
    for name in there:
        (run.checkpoints / f"{name}.ckpt").touch()
    assert run.checkpoint(asked) == run.checkpoints / f"{found}.ckpt"


def test_a_missing_checkpoint_says_what_is_there(run):
    (run.checkpoints / "last.ckpt").touch()
    with pytest.raises(SegbenchError, match=r"no best checkpoint in .* \(there: last\.ckpt\)\n.*\n.*checkpoint=best"):
        run.checkpoint("best")


def test_a_run_without_checkpoints_says_so(run):
    with pytest.raises(SegbenchError, match=r"no best or last checkpoint in .* \(there: none\)"):
        run.checkpoint()


def test_other_checkpoint_names_are_refused(run):
    with pytest.raises(SegbenchError, match=r"checkpoint=newest\n.*best or last"):
        run.checkpoint("newest")


def test_yaml_is_read_with_its_types(tmp_path):
    (tmp_path / "a.yaml").write_text("lr: 0.001\nnone: null\nlist: [1, two]\n")
    assert read_yaml(tmp_path / "a.yaml") == {"lr": 0.001, "none": None, "list": [1, "two"]}
