import pytest

from segbench.compare.definitions import alike, definition, run_measures, score_infos
from segbench.compare.reading import read_run
from segbench.errors import SegbenchError
from segbench.metrics import BoundaryF1, Overlap, PixelError, Seg


def test_the_measures_are_those_that_scored_the_run(tiny_run, tiny_config):
    from segbench.experiment.build import build_dataset, build_measures

    config = tiny_config()
    built = build_measures(config.metrics, build_dataset(config.data, config.weights).spec)["semantic"]
    again = run_measures(read_run(tiny_run))
    assert list(again) == [("semantic", measure.name) for measure in built]
    assert list(again.values()) == built


def test_what_each_score_says_of_itself(tiny_run):
    infos = score_infos(read_run(tiny_run))
    assert infos["rand_error"].higher_is_better is False
    assert infos["iu/cell"].higher_is_better is True


def test_settings_of_a_measure_are_kept_and_null_leaves_one_out(make_run):
    run = make_run(
        "run",
        metrics={
            "edges": {"_target_": "segbench.metrics.boundary.BoundaryF1", "tolerance": 0.1, "excluded": [1]},
            "none": None,
        },
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGBENCH_TARGETS", "segbench.metrics.boundary.BoundaryF1")
        (measure,) = run_measures(read_run(run)).values()
    assert (measure.tolerance, measure.excluded, measure.name) == (0.1, (1,), "edges")
    assert measure.class_names == ("background", "cat", "dog")


@pytest.mark.parametrize("target", ["os.system", "torch.hub.load", "segbench.metrics.pixel.pixel_error", "None"])
def test_a_run_directory_cannot_widen_what_may_be_called(target):
    with pytest.raises(SegbenchError, match=r"handed over may not name\n.*packaged target.*\n.*SEGBENCH_TARGETS="):
        definition(target)


def test_a_target_that_the_user_allowed_and_that_is_gone(monkeypatch):
    monkeypatch.setenv("SEGBENCH_TARGETS", "nowhere.Metric,segbench.metrics.pixel.Gone")
    for target in ("nowhere.Metric", "segbench.metrics.pixel.Gone"):
        with pytest.raises(
            SegbenchError, match=r"_target_=(nowhere|segbench).*: .*\n.*the code that scored the run\n.*install it"
        ):
            definition(target)


def test_a_setting_that_the_definition_no_longer_takes(make_run):
    metrics = {"confusion": {"_target_": "segbench.metrics.confusion.Overlap", "gone": 1}}
    with pytest.raises(SegbenchError, match=r"does not accept the run's arguments: .*gone"):
        run_measures(read_run(make_run("run", metrics=metrics)))


def test_a_run_without_its_data_set(make_run):
    run = make_run("run")
    (run / "dataset.json").write_text("{}")
    with pytest.raises(SegbenchError, match=r"dataset.json is damaged: .*\n.*as segbench wrote it"):
        run_measures(read_run(run))


def test_definitions_are_alike_whatever_they_are_called():
    assert alike(PixelError(cell_class=1), PixelError(cell_class=1, name="other"))
    assert not alike(PixelError(cell_class=1), PixelError(cell_class=0))
    assert not alike(PixelError(), Seg())
    assert not alike(Overlap(("a", "b")), Overlap(("a", "b"), excluded=(0,)))
    assert not alike(BoundaryF1(("a",), tolerance=0.1), BoundaryF1(("a",)))
