"""`ensemble=` of evaluate, predict, export and `load`: one mean, whichever command asks."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import segbench
from segbench.compare.reading import read_run
from segbench.experiment.train import train
from segbench.runs.directory import Run


@pytest.fixture(scope="module")
def other(tiny_config, tmp_path_factory):
    """The tiny run with another seed and another width."""
    directory = tmp_path_factory.mktemp("other") / "run"
    train(tiny_config("seed=7", "model.width=6"), directory, [])
    return directory


def image():
    return np.random.default_rng(0).integers(0, 256, (70, 60), np.uint8)


def test_python_averages_what_each_predicts(tiny_run, other):
    alone = [segbench.load(run).predict(image()).probabilities for run in (tiny_run, other)]
    together = segbench.load(tiny_run, ensemble=Path(other)).predict(image()).probabilities
    assert np.allclose(together, np.mean(alone, axis=0), atol=1e-6)
    assert not np.allclose(together, alone[0], atol=1e-3)


def test_an_evaluation_scores_the_mean_and_says_whose(call, tiny_run, other, tmp_path):
    given = (f"run={tiny_run}", "trainer=cpu", f"ensemble=[{other}:last]")
    code, shown, said = call("evaluate", *given, f"hydra.run.dir={tmp_path / 'evaluated'}")
    assert code == 0, said
    assert "mean of 2 networks" in " ".join(shown.split())
    evaluated = Run(tmp_path / "evaluated")
    (member,) = evaluated.results()["protocol"]["ensemble"]
    assert (Path(member["run"]), member["checkpoint"]) == (other, "last")
    # It is no run of the same setting as one without it.
    ours, alone = read_run(evaluated.path), read_run(tiny_run)
    assert "last of" in ours.settings["ensemble.0"]
    assert "ensemble.0" not in alone.settings

    with np.load(evaluated.path / "per_image.npz") as counts, np.load(tiny_run / "per_image.npz") as before:
        assert list(counts["ids"]) == list(before["ids"])
        changed = "semantic/confusion/matrix"
        assert not np.array_equal(counts[changed], before[changed])


def test_files_hold_the_mean_and_belong_to_it(call, tiny_run, other, tmp_path):
    import tifffile

    tifffile.imwrite(tmp_path / "image.tif", image())
    given = (f"run={tiny_run}", f"input={tmp_path / 'image.tif'}", f"output={tmp_path / 'out'}", "trainer=cpu")
    code, _, said = call("predict", *given, f"ensemble={other}")
    assert code == 0, said
    assert f"beside it {other}" in said
    (file,) = (tmp_path / "out").glob("*.tif")
    together = segbench.load(tiny_run, ensemble=[str(other)]).predict(image()).probabilities
    assert np.allclose(tifffile.imread(file), together[1], atol=1e-6)
    code, _, said = call("predict", *given)
    assert code != 0
    assert "ensemble" in said


def test_an_exported_file_computes_it(call, tiny_run, other, tmp_path):
    code, _, said = call(
        "export", f"run={tiny_run}", "format=pt2", f"ensemble=[{other}]", f"output={tmp_path / 'mean.pt2'}"
    )
    assert code == 0, said
    extra = {"segbench.json": ""}
    program = torch.export.load(tmp_path / "mean.pt2", extra_files=extra)
    assert [each["checkpoint"] for each in json.loads(extra["segbench.json"])["ensemble"]] == ["best"]
    predictor = segbench.load(tiny_run, ensemble=[str(other)])
    batch = torch.randn(2, 1, *[predictor.network.geometry.input_for(20)] * 2)
    with torch.no_grad():
        expected = predictor.network(batch)["semantic"]
        (found,) = program.module()({"em": batch}).values()
    assert torch.allclose(found, expected, atol=1e-4)


def test_the_mean_is_calibrated_not_its_members(call, tiny_run, other, tmp_path):
    given = (f"run={tiny_run}", "trainer=cpu", f"ensemble=[{other}]", "calibration=cubic")
    code, _, said = call("evaluate", *given, f"hydra.run.dir={tmp_path / 'evaluated'}")
    assert code == 0, said
    recorded = json.loads((tmp_path / "evaluated" / "calibration.json").read_text())
    assert recorded["checkpoint"].count("+") == 1
    (fitted,) = Run(tmp_path / "evaluated").results()["protocol"]["calibration"].values()
    loaded = segbench.load(tiny_run, ensemble=str(other), calibration="cubic")
    assert fitted == pytest.approx(loaded.task.finish.polynomials["semantic"], abs=1e-4)
    plain = segbench.load(tiny_run, ensemble=str(other)).predict(image()).probabilities
    expected = np.clip(np.polynomial.Polynomial(fitted)(plain[1].astype(float)), 0, 1)
    assert np.allclose(loaded.predict(image()).probabilities[1], expected, atol=1e-3)


def test_what_a_member_does_alone_is_named(call, tiny_run, tiny_config, tmp_path):
    train(tiny_config("seed=3", "tta=rot4", "median=2", "trainer.max_steps=1"), tmp_path / "other", [])
    given = (f"run={tiny_run}", f"ensemble={tmp_path / 'other'}")
    code, _, said = call("evaluate", *given, "trainer=cpu", f"hydra.run.dir={tmp_path / 'evaluated'}")
    assert code == 0, said
    log = (tmp_path / "evaluated" / "run.log").read_text()
    code, _, exported = call("export", *given, "format=pt2", f"output={tmp_path / 'mean.pt2'}")
    assert code == 0, exported
    for told in (log, exported):
        assert f"beside it {tmp_path / 'other'} without its own tta=rot4, median=2" in told


@pytest.mark.parametrize("named", ["{run}", "{run}:best", "{other},{other}:best"])
def test_the_same_network_twice_is_refused(call, tiny_run, other, tmp_path, named):
    named = named.format(run=tiny_run, other=other)
    code, _, said = call("evaluate", f"run={tiny_run}", f"ensemble=[{named}]", f"hydra.run.dir={tmp_path / 'no'}")
    assert code == 1
    assert "once more" in said


@pytest.mark.parametrize("named", ["[]", "''", "['']"])
@pytest.mark.parametrize("command", ["evaluate", "predict", "export"])
def test_an_ensemble_of_nothing_is_refused(call, tiny_run, tmp_path, command, named):
    needed = {"evaluate": f"hydra.run.dir={tmp_path / 'no'}", "predict": f"output={tmp_path / 'no'}"}
    given = needed.get(command, "format=pt2")
    code, _, said = call(command, f"run={tiny_run}", f"ensemble={named}", given)
    assert code == 1
    assert "ensemble= without a run" in said


def test_the_same_weights_in_another_file_are_refused(call, tiny_run, tiny_config, other, tmp_path):
    # As last.ckpt, where the best step was the last one: the files differ by the state of the callbacks alone.
    named = [tmp_path / "copy", tmp_path / "again"]
    for each, source in zip(named, (tiny_run, other), strict=True):
        shutil.copytree(source, each)
        for path in (each / "checkpoints").glob("*.ckpt"):
            content = torch.load(path, weights_only=True)
            torch.save(content | {"callbacks": {}}, path)
    where = f"hydra.run.dir={tmp_path / 'no'}"
    code, _, said = call("evaluate", f"run={tiny_run}", "trainer=cpu", f"ensemble=[{other},{named[0]}]", where)
    assert code == 1
    assert "has the weights of the run itself" in said
    code, _, said = call("export", f"run={tiny_run}", "format=pt2", f"ensemble=[{other},{named[1]}]")
    assert code == 1
    assert f"has the weights of {other}" in said


@pytest.mark.parametrize("fault", ["cannot be read", "weights do not fit"])
def test_a_member_that_cannot_be_used_is_named_with_what_to_do(call, tiny_run, other, tmp_path, fault):
    member = tmp_path / "member"
    shutil.copytree(other, member)
    if fault == "cannot be read":
        (member / "checkpoints" / "best.ckpt").write_bytes(b"PK")
    else:
        shutil.copy(tiny_run / "checkpoints" / "best.ckpt", member / "checkpoints")
        torch.save(
            torch.load(member / "checkpoints" / "best.ckpt", weights_only=True) | {"callbacks": {}},
            member / "checkpoints" / "best.ckpt",
        )
    given = (f"run={tiny_run}", "trainer=cpu", f"ensemble={member}", f"hydra.run.dir={tmp_path / 'no'}")
    code, _, said = call("evaluate", *given)
    assert code == 1
    assert f"ensemble={member}: " in said and fault in said
    assert f"name another checkpoint of it, {member}:best or :last, or leave it out of ensemble=" in said


def test_a_network_of_other_classes_is_refused(call, tiny_run, tiny_config, tmp_path):
    foreign = tmp_path / "foreign"
    train(tiny_config("trainer.max_steps=1"), foreign, [])
    described = json.loads((foreign / "dataset.json").read_text())
    described["heads"]["semantic"]["class_names"] = ["cell", "membrane"]
    (foreign / "dataset.json").write_text(json.dumps(described))
    code, _, said = call("evaluate", f"run={tiny_run}", f"ensemble=[{foreign}]", f"hydra.run.dir={tmp_path / 'no'}")
    assert code == 1
    assert "other classes" in said


@pytest.mark.parametrize("beside", [True, False])
def test_scores_on_what_a_network_was_trained_on_are_refused(call, tiny_run, other, tmp_path, beside):
    splits = json.loads((other / "splits.json").read_text())
    before = (other / "splits.json").read_text()
    given = [f"run={tiny_run}", f"ensemble=[{other}]"] if beside else [f"run={other}"]
    try:
        splits["train"] = [*splits["train"], splits["test"][0]]
        (other / "splits.json").write_text(json.dumps(splits))
        code, _, said = call("evaluate", *given, "trainer=cpu", f"hydra.run.dir={tmp_path / 'no'}")
    finally:
        (other / "splits.json").write_text(before)
    assert code == 1
    assert "was trained on 1 of the" in said
