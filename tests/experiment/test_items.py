import pytest

from segbench.experiment.build import build_dataset
from segbench.experiment.items import data_item, model_item, predictions_item
from segbench.runs.directory import Run


def test_a_data_set_by_its_facts(isbi_config, drawn_isbi):
    config = isbi_config()
    dataset = build_dataset(config.data, None)
    first = data_item(config, dataset, {"train": "a"}, {"train": 30})
    assert (first.name, first.kind) == ("data-isbi_em", "dataset")
    assert first.metadata["images"] == {"train": 30}
    assert first.metadata["classes"] == {"semantic": ["membrane", "cell"]}
    assert str(drawn_isbi) not in str(first.metadata)
    assert first.references == [drawn_isbi.absolute().as_uri()]
    assert data_item(config, dataset, {"train": "b"}, {}).metadata["digest"] != first.metadata["digest"]


def test_a_model_is_named_by_its_run(tiny_run, tmp_path):
    run = Run(tiny_run)
    item = model_item(run, run.config(), run.checkpoint("last"), {"test/mean_iu": 0.5})
    assert item.name == f"model-{tiny_run.name}"
    assert [*item.files] == ["last.ckpt"]
    assert item.metadata["scores"] == {"test/mean_iu": 0.5}
    (tmp_path / "wandb_id.txt").write_text("abc\n")
    assert model_item(Run(tmp_path), run.config(), run.checkpoint("last"), {}).name == "model-abc"


@pytest.mark.parametrize("names", [[], ["a.png", "b/c.tif"]])
def test_predictions_are_all_files_below_a_folder(names, tmp_path):
    for name in names:
        (tmp_path / "predictions" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "predictions" / name).write_text("")
    item = predictions_item(Run(tmp_path), tmp_path / "predictions", "predict")
    assert (item is None) if not names else [*item.files] == names
