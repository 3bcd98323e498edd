"""Runs in MLflow, on a server of its own on the loopback."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest

pytest.importorskip("mlflow", reason="pip install 'segbench[mlflow]'")

from segbench.compare.reading import read_runs
from segbench.errors import SegbenchError
from segbench.experiment.train import train
from segbench.runs.directory import Run
from segbench.tracking.mlflow_run import RunMlflow
from segbench.tracking.tracker import Item, Picture

pytestmark = pytest.mark.filterwarnings("default")  # those of MLflow's own dependencies


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a server with a database of its own."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "files"), "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*command, "--workers", "1"], stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=1)
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
        yield url
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


@pytest.fixture
def client(server, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    return MlflowClient(server)


def test_a_run_on_a_server(client, server, tiny_config, tmp_path):
    directory = tmp_path / "run"
    train(tiny_config("logger=mlflow", "logger.mlflow.log_model=true", "logger.mlflow.experiment=whole"), directory, [])
    run = client.get_run((directory / "mlflow_id.txt").read_text())
    results = Run(directory).results()["metrics"]
    assert run.info.status == "FINISHED"
    assert run.data.params["optimizer.lr"] == "0.002"
    assert run.data.metrics["test/mean_iu"] == pytest.approx(results["test/mean_iu"])
    assert run.data.metrics["val/mean_iu"] == run.data.metrics["best/mean_iu"]
    assert run.data.tags["reported/checkpoint"] == "best"
    assert [each.dataset.name for each in run.inputs.dataset_inputs] == ["synthetic_em"]
    assert len(client.get_metric_history(run.info.run_id, "train/loss")) == 3
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"model", "images", "test"} <= files
    assert {file.path for file in client.list_artifacts(run.info.run_id, "model")} == {
        "model/best.ckpt",
        "model/model.json",
    }
    # Read back as a source: the run here is the run there.
    records, left = read_runs(["mlflow:whole", str(directory)])
    assert [record.source for record in records] == [str(directory)]
    shutil.move(directory, tmp_path / "elsewhere")
    (record,), left = read_runs(["mlflow:whole"])
    assert (record.seed, record.settings["optimizer.lr"], left) == (0, 0.002, [])
    assert record.metrics["test/mean_iu"] == pytest.approx(results["test/mean_iu"])


def test_a_failed_run_fails_there_too(client, tiny_config, tmp_path):
    with pytest.raises(SegbenchError, match="a loss of"):
        train(tiny_config("logger=mlflow", "logger.mlflow.experiment=bad", "optimizer.lr=1e30"), tmp_path / "run", [])
    assert client.get_run((tmp_path / "run" / "mlflow_id.txt").read_text()).info.status == "FAILED"
    records, left = read_runs(["mlflow:bad"])
    assert (records, [each.reason for each in left]) == ([], ["failed in MLflow"])


def test_a_resume_is_the_same_run(client, tiny_config, tmp_path):
    tmp_path.joinpath("run").mkdir()
    config = tiny_config("logger=mlflow")
    names = []
    for exit_code in (143, 0):
        logger = RunMlflow(str(tmp_path / "run"), config)
        logger.begin()
        logger.end(exit_code, exit_code > 0)
        names.append((logger.run_id, client.get_run(logger.run_id).info.status))
    assert names[0][0] == names[1][0]
    assert [state for _, state in names] == ["KILLED", "FINISHED"]


def test_models_by_reference_and_tables_without_pictures(client, tiny_config, tmp_path):
    logger = RunMlflow(str(tmp_path), tiny_config(), log_model="reference")
    logger.begin()
    logger.made(Item("model-x", "model", {}, references=["file:///here/best.ckpt"]))
    logger.pictures("val/images", [Picture("x", np.zeros((4, 4, 3), np.uint8))], 3)
    logger.table("test/per_image", ["id", "image", "iu"], [["x", None, 0.5]])
    logger.end(0, False)
    assert client.get_run(logger.run_id).data.tags["model.reference"] == "file:///here/best.ckpt"
    table = client.load_table(client.get_run(logger.run_id).info.experiment_id, "test/per_image.json", [logger.run_id])
    assert list(table.columns) == ["id", "iu"]


def test_without_a_server_the_training_goes_on(tiny_config, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    train(tiny_config("logger=mlflow", "trainer.max_steps=1", "data.test=1"), tmp_path / "run", [])
    assert Run(tmp_path / "run").state() == "finished"
    assert "the training goes on without it" in (tmp_path / "run" / "run.log").read_text()


def test_without_any_it_is_a_database_beside_the_runs(tiny_config, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("SEGBENCH_OUTPUTS", str(tmp_path / "outputs"))
    (tmp_path / "run").mkdir()
    logger = RunMlflow(str(tmp_path / "run"), tiny_config())
    logger.begin()
    logger.end(0, False)
    assert (tmp_path / "outputs" / "mlflow.db").is_file()
    with pytest.raises(SegbenchError, match=r"no run in mlflow:other"):
        read_runs(["mlflow:other"])
