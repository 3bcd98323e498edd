"""A run in W&B: whose settings count, and that no failure of wandb ends a training. Files are read back, not mocked."""

import json
import logging
import time
from pathlib import Path

import numpy as np
import pytest
from tests.fixtures.wandb_server import offline_records

from segbench.errors import SegbenchError
from segbench.spec import ScoreInfo
from segbench.tracking import wandb_run
from segbench.tracking.tracker import Item, Mask, Picture
from segbench.tracking.wandb_run import RunWandb, group_of


@pytest.fixture(autouse=True)
def _no_key(monkeypatch, tmp_path):
    for name in (
        "API_KEY",
        "MODE",
        "BASE_URL",
        "DISABLED",
        "NAME",
        "PROJECT",
        "RUN_GROUP",
        "RUN_ID",
        "SWEEP_ID",
        "DIR",
    ):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def logger_of(compose):
    """`logger_of(directory, *overrides)`: the logger of a run there, as `logger=wandb` makes it."""

    def made(directory, *overrides, job="train"):
        directory.mkdir(parents=True, exist_ok=True)
        config = compose("name=tiny", "logger=wandb", *overrides)
        return RunWandb(str(directory), config, job, **config.logger["wandb"].arguments)

    return made


def kept(logger, folder, exit_code=0, **sent):
    """What wandb kept of a run, by kind of record."""
    logger.begin()
    for name, arguments in sent.items():
        getattr(logger, name)(*arguments)
    logger.end(exit_code, False)
    records = {}
    for record in offline_records(folder):
        for key, value in record.items():
            records.setdefault(key, []).append(value)
    return records


def summary_of(records):
    found = {}
    for record in records["summary"]:
        for item in record.get("update", ()):
            key = item.get("key") or item["nested_key"][0]
            found[key] = json.loads(item["value_json"])
    return found


class TestSettings:
    def test_what_nobody_sets_follows_from_the_run(self, logger_of, tmp_path, compose):
        records = kept(logger_of(tmp_path / "2026_a:b", "model=fcn8s", "logger.wandb.tags=[mine]"), tmp_path)
        (run,) = records["run"]
        assert run["display_name"] == "tiny/2026_a:b"
        assert run["run_id"].startswith("2026-a-b-")
        assert (run["project"], run["job_type"]) == ("segbench", "train")
        assert run["tags"] == ["mine", "tiny", "synthetic_em", "fcn8s"]
        assert run["run_group"] == group_of(compose("name=tiny", "model=fcn8s"))
        config = {item["key"]: json.loads(item["value_json"]) for item in run["config"]["update"]}
        assert config["optimizer"]["lr"] == compose("name=tiny").flat["optimizer.lr"]
        assert [record.get("exit_code", 0) for record in records["exit"]] == [0]

    def test_the_environment_says_it_where_the_run_does_not(self, logger_of, tmp_path, monkeypatch):
        own = {
            "NAME": "n",
            "PROJECT": "p",
            "RUN_GROUP": "g",
            "RUN_ID": "i1",
            "DIR": str(tmp_path / "else"),
            "TAGS": "t",
        }
        for name, value in own.items():
            monkeypatch.setenv(f"WANDB_{name}", value)
        monkeypatch.setenv("WANDB_ENTITY", "team")
        monkeypatch.setenv("WANDB_JOB_TYPE", "j")
        (run,) = kept(logger_of(tmp_path / "run"), tmp_path / "else")["run"]
        assert (run["display_name"], run["project"], run["run_group"], run["run_id"]) == ("n", "p", "g", "i1")
        assert (run["entity"], run["job_type"], run["tags"][0]) == ("team", "j", "t")
        # Found again, wherever it lies.
        (line,) = (tmp_path / "run" / "wandb_files.txt").read_text().split()
        assert line.startswith(str(tmp_path / "else" / "wandb" / "offline-run-"))

    def test_the_runs_own_settings_win(self, logger_of, tmp_path, monkeypatch):
        for name in ("NAME", "PROJECT", "RUN_GROUP", "RUN_ID", "DIR", "ENTITY", "JOB_TYPE"):
            monkeypatch.setenv(f"WANDB_{name}", "no")
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        given = ["name=n", "project=p", "group=g", "id=i1", "entity=team", "job_type=j", "notes=long", "offline=true"]
        given = [f"logger.wandb.{each}" for each in [*given, f"dir={tmp_path / 'else'}"]]
        (run,) = kept(logger_of(tmp_path / "run", *given), tmp_path / "else")["run"]
        assert (run["display_name"], run["project"], run["run_group"], run["run_id"]) == ("n", "p", "g", "i1")
        assert (run["entity"], run["job_type"], run["notes"]) == ("team", "j", "long")

    def test_disabled_keeps_nothing(self, logger_of, tmp_path, monkeypatch, caplog):
        monkeypatch.setenv("WANDB_DISABLED", "true")
        caplog.set_level(logging.INFO)
        logger = logger_of(tmp_path / "run")
        logger.begin()
        logger.log_metrics({"a": 1.0}, 1)
        logger.end(0, False)
        assert list((tmp_path / "run").iterdir()) == []
        assert "wandb: disabled (WANDB_DISABLED=true)" in caplog.text
        assert not logger.shows_pictures

    @pytest.mark.parametrize("key", ["goup=a", "log_model=all", "mode=onlin"])
    def test_what_it_does_not_take_is_refused(self, key, compose):
        from segbench.experiment.build import refuse_misfits_of

        config = compose(
            "name=tiny",
            "logger=wandb",
            "trainer.precision=32-true",
            f"+logger.wandb.{key}" if key[0] == "g" else f"logger.wandb.{key}",
        )
        with pytest.raises(SegbenchError, match=f"logger.wandb.{key.split('=')[0]}"):
            refuse_misfits_of(config)

    def test_a_setting_that_wandb_refuses_is_named(self, logger_of, tmp_path):
        logger = logger_of(tmp_path / "run", "+logger.wandb.settings.x_stats_sampling_interval=word")
        with pytest.raises(SegbenchError, match=r"logger.wandb: x_stats_sampling_interval=word"):
            logger.begin()


class TestId:
    def test_a_directory_is_one_run_and_two_of_a_name_are_two(self, logger_of, tmp_path):
        # The jobs 0 of two sweeps.
        first, again, other = (logger_of(tmp_path / sweep / "0").version for sweep in ("a", "a", "b"))
        assert first == again != other
        assert first.startswith("0-")

    def test_under_the_agent_a_run_has_the_agents_name_and_a_stage_another(self, logger_of, tmp_path, monkeypatch):
        monkeypatch.setenv("WANDB_RUN_ID", "abc123")
        assert logger_of(tmp_path / "run").version == "abc123"
        assert logger_of(tmp_path / "run" / "stages" / "fcn32s").version == "abc123-fcn32s"
        monkeypatch.delenv("WANDB_RUN_ID")
        # A resume is the same run, without the agent too.
        assert logger_of(tmp_path / "run").version == "abc123"

    def test_jobs_of_a_sweep_do_not_share_one(self, logger_of, tmp_path, monkeypatch, caplog):
        (tmp_path / "sweep").mkdir()
        (tmp_path / "sweep" / "sweep.yaml").write_text("")
        with pytest.raises(SegbenchError, match=r"logger.wandb.id=x for every job of the sweep sweep"):
            logger_of(tmp_path / "sweep" / "0", "logger.wandb.id=x")
        monkeypatch.setenv("WANDB_RUN_ID", "x")
        assert logger_of(tmp_path / "sweep" / "0").version.startswith("0-")
        assert "WANDB_RUN_ID=x names one run" in caplog.text

    def test_seeds_of_a_setting_are_one_group(self, compose):
        groups = [group_of(compose("name=a", *given)) for given in ([], ["seed=1"], ["optimizer.lr=0.5"])]
        assert groups[0] == groups[1] != groups[2]


class TestServers:
    @pytest.mark.parametrize("status", [500, 401])
    def test_a_server_that_is_down_leaves_an_offline_run_and_one_sentence(
        self, status, wandb_server, logger_of, tmp_path, caplog
    ):
        wandb_server.status = status
        caplog.set_level(logging.INFO)
        records = kept(logger_of(tmp_path / "run"), tmp_path, log_metrics=({"a": 1.0}, 3))
        assert [record["exit_code"] for record in records["exit"] if record.get("exit_code")] == []
        assert len(records["history"]) == 1
        assert caplog.text.count("continuing offline") == 1
        assert f"segbench sync {tmp_path / 'run'}" in caplog.text

    def test_one_that_falls_silent_between_the_first_question_and_the_run(
        self, wandb_server, logger_of, tmp_path, caplog, monkeypatch
    ):
        monkeypatch.setattr(wandb_run, "INIT_S", 1.0)
        wandb_server.silent_on = "UpsertBucket"
        records = kept(logger_of(tmp_path / "run"), tmp_path, log_metrics=({"a": 1.0}, 3))
        assert len(records["history"]) == 1
        assert caplog.text.count("continuing offline") == 1

    def test_a_run_on_a_server(self, wandb_server, logger_of, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        logger = logger_of(tmp_path / "run", "logger.wandb.group=g")
        kept(logger, tmp_path, exit_code=1, log_metrics=({"val/mean_iu": 0.5}, 3))
        run = wandb_server.runs[logger.version]
        assert (run["exit"], run["project"], run["group"]) == (1, "segbench", "g")
        assert run["history"][0]["trainer/global_step"] == 3
        # At the start and at the end.
        assert caplog.text.count(f"{wandb_server.url}/e/segbench/runs/{logger.version}") == 2

    @pytest.mark.parametrize("back", [False, True])
    def test_a_server_that_goes_away_does_not_hold_up_the_end(
        self, back, wandb_server, logger_of, tmp_path, caplog, monkeypatch
    ):
        monkeypatch.setattr(wandb_run, "FINISH_S", 1.0)
        logger = logger_of(tmp_path / "run")
        logger.begin()
        logger.log_metrics({"val/mean_iu": 0.5}, 3)
        wandb_server.status = 500
        if back:
            # It answers again when it is asked.
            silence = wandb_run.silence
            monkeypatch.setattr(wandb_run, "silence", lambda: setattr(wandb_server, "status", 200) or silence())
        began = time.monotonic()
        logger.end(0, False)
        assert time.monotonic() - began < 15
        if back:
            run = wandb_server.runs[logger.version]
            assert (run["exit"], len(run["history"])) == (0, 1)
        else:
            assert "it answers 500" in caplog.text
            assert logger.where() == f"send the rest later with: segbench sync --online {tmp_path / 'run'}"

    def test_a_preemption_and_nothing_else_asks_to_be_queued_again(self, wandb_server, logger_of, tmp_path):
        for name, code, preempted in (("a", 143, True), ("b", 0, False)):
            logger = logger_of(tmp_path / name)
            logger.begin()
            logger.end(code, preempted)
            run = wandb_server.runs[logger.version]
            assert (run["exit"], run["preempting"]) == (code, preempted)

    def test_a_failure_of_wandb_in_the_middle_is_said_once(self, logger_of, tmp_path, caplog):
        logger = logger_of(tmp_path / "run")
        logger.begin()
        logger.experiment.finish()
        for step in range(3):
            logger.log_metrics({"a": 1.0}, step)
        logger.end(0, False)
        assert caplog.text.count("the training goes on without it") == 1


class TestSent:
    def test_the_summary_has_the_best_by_its_direction_and_the_optimised_score_as_a_number(self, logger_of, tmp_path):
        up, down = ScoreInfo("a", (0, 1), True, "1"), ScoreInfo("b", (0, 1), False, "1")
        infos = {"val/a": up, "val/b": down, "val/c": up, "val/iu/x": up, "test/a": up}
        logger = logger_of(tmp_path / "run")
        logger.begin()
        logger.describe(infos, "val/c")
        for step, value in enumerate((0.4, 0.6, 0.5)):
            logger.log_metrics({f"val/{name}": value for name in "abc"} | {"epoch": 0}, step)
        logger.summary({"val/a": 0.6, "val/c": 0.6, "best/c": 0.6})
        logger.end(0, False)
        records = offline_records(tmp_path)
        summary = summary_of({"summary": [record["summary"] for record in records if "summary" in record]})
        assert summary["val/a"] == {"max": 0.6, "last": 0.5}
        assert summary["val/b"] == {"min": 0.4, "last": 0.5}
        assert (summary["val/c"], summary["best/c"]) == (0.6, 0.6)
        metrics = [record["metric"] for record in records if "metric" in record]
        assert {each.get("step_metric") for each in metrics} == {None, "trainer/global_step"}

    def test_under_an_agent_every_score_is_a_number(self, logger_of, tmp_path, monkeypatch):
        monkeypatch.setenv("WANDB_SWEEP_ID", "s")
        monkeypatch.setenv("WANDB_RUN_ID", "i")
        infos = {"val/a": ScoreInfo("a", (0, 1), True, "1")}
        sent = {"describe": (infos, None), "log_metrics": ({"val/a": 0.5}, 1), "summary": ({"val/a": 0.7},)}
        assert summary_of(kept(logger_of(tmp_path / "run"), tmp_path, **sent))["val/a"] == 0.7

    def test_pictures_have_masks_with_the_names_of_classes(self, logger_of, tmp_path):
        names = {0: "membrane", 1: "cell", 255: "void"}
        mask = Mask(np.eye(8, dtype=np.uint8), names)
        picture = Picture("x", np.zeros((8, 8, 3), np.uint8), {"prediction": mask, "label": mask})
        table = ("test/per_image", ["id", "image", "iu"], [["x", picture, 0.5], ["y", None, float("nan")]])
        records = kept(logger_of(tmp_path / "run"), tmp_path, pictures=("val/images", [picture], 7), table=table)
        (row,) = [
            {"/".join(item["nested_key"]): json.loads(item["value_json"]) for item in record["item"]}
            for record in records["history"]
            if any(item["nested_key"][0] == "val/images" for item in record["item"])
        ]
        assert row["trainer/global_step"] == 7
        assert row["val/images/captions"] == ["x"]
        assert set(row["val/images/all_masks"][0]) == {"prediction", "label"}
        assert "membrane" in str(records)
        (artifact,) = records["artifact"]
        contents = {entry["path"]: Path(entry["local_path"]) for entry in artifact["manifest"]["contents"]}
        assert len([path for path in contents if path.startswith("media/images/mask/")]) == 1  # twice the same
        rows = json.loads(contents["test/per_image.table.json"].read_text())["data"]
        assert [row[0] for row in rows] == ["x", "y"]
        assert set(rows[0][1]["masks"]) == {"prediction", "label"}
        assert rows[1][1] is None

    @pytest.mark.parametrize(("asked", "sent"), [("false", None), ("true", "best.ckpt"), ("reference", "ref")])
    def test_a_model_is_sent_where_it_is_asked_for(self, asked, sent, logger_of, tmp_path):
        file = tmp_path / "best.ckpt"
        file.write_text("weights")
        item = Item("model-x", "model", {"seed": 0}, {"best.ckpt": file}, [file.as_uri()], ["best"])
        logger = logger_of(tmp_path / "run", f"logger.wandb.log_model={asked}")
        artifacts = kept(logger, tmp_path, made=(item,)).get("artifact", [])
        if sent is None:
            assert artifacts == []
            return
        (artifact,) = artifacts
        assert (artifact["type"], sorted(artifact["aliases"])) == ("model", ["best", "latest"])
        contents = {entry["path"]: entry for entry in artifact["manifest"]["contents"]}
        if sent == "ref":
            assert [entry["ref"] for entry in contents.values() if "ref" in entry] == [file.as_uri()]
        else:
            assert [*contents] == [sent]

    @pytest.mark.parametrize(("asked", "named"), [("false", False), ("true", True)])
    def test_a_data_set_is_used_by_its_facts_and_its_place_only_on_request(self, asked, named, logger_of, tmp_path):
        place = tmp_path / "isbi"
        place.mkdir()
        (place / "a.tif").write_text("a")
        item = Item("data-isbi", "dataset", {"digest": "d", "images": {"train": 4}}, references=[place.as_uri()])
        logger = logger_of(tmp_path / "run", f"logger.wandb.reference_data={asked}")
        (artifact,) = kept(logger, tmp_path, used=(item,))["artifact"]
        assert artifact["use_after_commit"] is True
        assert json.loads(artifact["metadata"]) == {"digest": "d", "images": {"train": 4}}
        assert (place.as_uri() in str(artifact)) is named

    @pytest.mark.parametrize("asked", [False, True])
    def test_alerts_are_off_unless_they_are_asked_for(self, asked, logger_of, tmp_path):
        logger = logger_of(tmp_path / "run", f"logger.wandb.alerts={str(asked).lower()}")
        alerts = kept(logger, tmp_path, alert=("segbench: a run failed", "a loss of nan")).get("alert", [])
        assert [alert["text"] for alert in alerts] == (["a loss of nan"] if asked else [])
