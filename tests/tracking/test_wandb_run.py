import pytest
import wandb
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from segbench.tracking.wandb_run import finish_wandb, open_wandb, wandb_settings


@pytest.fixture
def settings_of(compose):
    """`settings_of(directory, *overrides)`: what a run there hands to the logger."""

    def settings(directory, *overrides):
        config = compose("name=tiny", "logger=wandb", *overrides)
        return wandb_settings(directory, config, config.logger["wandb"].arguments)

    return settings


@pytest.fixture(autouse=True)
def _no_key(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))


def test_without_a_key_the_run_is_offline(settings_of, tmp_path):
    assert settings_of(tmp_path)["offline"] is True


def test_with_a_key_it_is_online(settings_of, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert settings_of(tmp_path)["offline"] is False


def test_a_key_in_netrc_counts(settings_of, tmp_path):
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password " + "k" * 40)
    (tmp_path / ".netrc").chmod(0o600)
    assert settings_of(tmp_path)["offline"] is False


def test_offline_may_be_asked_for(settings_of, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert settings_of(tmp_path)["offline"] is True


def test_a_directory_is_one_run_and_two_of_a_name_are_two(settings_of, tmp_path):
    # The jobs 0 of two sweeps.
    for sweep in ("a", "b"):
        (tmp_path / sweep / "0").mkdir(parents=True)
    first, again, other = (settings_of(tmp_path / sweep / "0")["id"] for sweep in ("a", "a", "b"))
    assert first == again != other
    assert first.startswith("0-")


def test_a_run_is_called_by_experiment_and_directory(settings_of, tmp_path):
    (tmp_path / "2026_a:b").mkdir()
    settings = settings_of(tmp_path / "2026_a:b")
    assert settings["name"] == "tiny/2026_a:b"
    assert settings["id"].startswith("2026-a-b-")
    assert (settings["config"]["name"], settings["config"]["seed"]) == ("tiny", 0)


def test_without_a_server_it_goes_on_offline(tmp_path, monkeypatch, caplog):
    import logging

    caplog.set_level(logging.WARNING)
    settings = {"save_dir": str(tmp_path), "offline": False, "id": "x", "log_model": True}
    modes, init = [], wandb.init

    def unreachable(**settings):
        modes.append(settings.get("mode"))
        if modes[-1] != "offline":
            raise wandb.errors.CommError("no network\nmuch more")
        return init(**settings)

    monkeypatch.setattr(wandb, "init", unreachable)
    logger = open_wandb(lambda **offline: WandbLogger(**settings | offline))
    finish_wandb([logger], 0)
    assert modes == [None, "offline"]
    assert "wandb: no network; continuing offline" in caplog.text
    assert list((tmp_path / "wandb").glob("offline-run-*-x"))


def test_no_run_is_ended_that_was_not_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(wandb, "finish", lambda exit_code: pytest.fail("finished"))
    finish_wandb([CSVLogger(str(tmp_path))], 0)


def test_runs_are_grouped_by_experiment_and_sweep_and_tagged(settings_of, tmp_path):
    e1 = ("name=e1", "data=pascal_voc", "data.root=x", "model=fcn8s", "logger.wandb.tags=[mine]")
    alone = tmp_path / "alone"
    alone.mkdir()
    settings = settings_of(alone, *e1)
    assert (settings["group"], settings["tags"]) == ("e1", ["mine", "e1", "pascal_voc", "fcn8s"])
    job = tmp_path / "sweep_1" / "0"
    job.mkdir(parents=True)
    (job.parent / "sweep.yaml").write_text("")
    settings = settings_of(job, *e1)
    assert (settings["group"], settings["tags"][-1]) == ("e1/sweep_1", "sweep_1")
    assert settings_of(job, *e1, "logger.wandb.group=own")["group"] == "own"
