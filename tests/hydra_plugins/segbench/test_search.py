"""A search proposes trials, gets their results and can be continued. Scripts stand for the runs."""

import json
import math
import os
import re
import signal
import threading
import time
from pathlib import Path

import optuna
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from segbench.config.packaged import conf_root
from segbench.errors import SegbenchError
from segbench.sweep import local
from segbench.sweep.directory import Sweep
from segbench.sweep.objective import objective_of
from segbench.sweep.scores import metric_of
from segbench.sweep.search import Searching, counts, open_study
from segbench.sweep.space import search_space

# The score is best at lr = 1e-3. It is validated ten times, slowly where the rate is above 0.05; a rate above 0.5
# fails, one below 1e-5 scores NaN. The jobs of `held` wait until they are ended, and leave 143.
STANDIN = """\
import json, math, re, signal, sys, time
from pathlib import Path
run = Path(sys.argv[-1].removeprefix("resume="))
config = (run / "config.yaml").read_text()
rate = float(re.search(r"^  lr: (.*)$", config, re.M).group(1))
def state(word, **more):
    (run / "state.json").write_text(json.dumps({"state": word, "time": "", **more}))
def end(number, frame):
    state("interrupted")
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
state("running")
with (run.parent / "runs.txt").open("a") as runs:
    runs.write(run.name + "\\n")
if rate > 0.5 and not (run.parent / "mended").exists():
    state("failed", reason="a loss of nan")
    sys.exit(1)
while (run.parent / "held").exists():
    time.sleep(0.05)
score = 1 - (math.log10(rate) + 3) ** 2 / 10 if rate > 1e-5 else math.nan
with (run / "metrics.csv").open("w") as table:
    table.write("step,val/mean_iu\\n")
    for step in range(10):
        table.write(f"{step},{score * (step + 1) / 10}\\n")
        table.flush()
        if rate > 0.05:
            time.sleep(1.0)
results = {"metrics": {"test/mean_iu": score if score == score else None}, "timing": {"checkpoint_step": 10.0}}
(run / "results.json").write_text(json.dumps(results))
state("finished")
"""


@pytest.fixture
def here(stand_in):
    directory = stand_in(local, STANDIN)
    (directory / "sweep").mkdir()
    return directory


RATES = "optimizer.lr=tag(log,interval(1e-4,1e-2))"


def searched(call, *given):
    return call("train", "-m", "hydra/sweeper=optuna", "name=s", "hydra.sweep.dir=sweep", *given)


def trials(name=None):
    study = optuna.load_study(study_name="segbench", storage="sqlite:///sweep/study.db")
    return study.get_trials() if name is None else [getattr(trial, name) for trial in study.get_trials()]


def test_a_search_finds_the_better_rates_and_counts_its_trials(here, call):
    code, out, err = searched(call, RATES, "hydra.sweeper.n_trials=6", "hydra.launcher.jobs=2")
    assert code == 0, err
    assert trials("state") == [TrialState.COMPLETE] * 6
    for trial in trials():
        rate = trial.params["optimizer.lr"]
        job = Sweep.open("sweep").named(trial.user_attrs["job"])
        assert job.run.config().optimizer.lr == rate
        assert 1e-4 <= rate <= 1e-2
        assert trial.value == pytest.approx(1 - (math.log10(rate) + 3) ** 2 / 10)
        assert [step for step in trial.intermediate_values] in ([], list(range(10)))
    best = max(trials(), key=lambda trial: trial.value)
    assert f"best val/mean_iu {best.value:.4f}: job {best.user_attrs['job']}, optimizer.lr=" in out
    assert "6 trials: 6 complete" in out


def test_a_search_without_a_score_fails_and_says_why(here, call):
    code, out, _ = searched(call, "optimizer.lr=choice(1e-6,2e-6)", "hydra.sweeper.n_trials=4")
    assert code == 1
    assert "no val/mean_iu of 2 of 2 jobs: job 0: val/mean_iu is nan; job 1: val/mean_iu is nan\n" in out
    assert "best " not in out
    # Nor is there one without a validation: the runs finish, the search found nothing.
    for name in "01":
        table = here / "sweep" / name / "metrics.csv"
        table.write_text("step,train/loss\n0,1.0\n")
        results = {"metrics": {"test/mean_iu": 0.5}, "timing": {"steps": 1.0}}
        (table.parent / "results.json").write_text(json.dumps(results))
    code, out, _ = call("sweep", "resume", "sweep")
    assert code == 1
    assert "no val/mean_iu of 2 of 2 jobs: job 0: no validation in its 1 steps, so no val/mean_iu; job 1: " in out
    assert "no val/mean_iu of 2 of 2 jobs" in call("sweep", "status", "sweep")[1]


def test_the_first_trials_are_shown_before_a_search(here, call):
    given = (RATES, "data.batch_size=2,3,4", "data.repeats=5,6,7", "hydra.sweeper.zip=[data.batch_size,data.repeats]")
    given += ("hydra.sweeper.n_trials=4", "hydra.sweeper.startup_trials=3", "hydra.sweep.dir=new")
    code, out, err = searched(call, *given, "--dry")
    assert (code, err) == (0, "")
    assert not Path("new").exists()
    assert f"search by val/mean_iu (maximize), 4 trials, over\n  {RATES}\n" in out
    assert "  together: data.batch_size, data.repeats\n" in out
    assert "the values of the first 3 are known; those of the others depend on the scores before them\n" in out
    shown = [set(words.split()) for words in re.findall(r"^  \d  (.*)$", out, re.M)]
    assert searched(call, *given)[0] == 0
    jobs = Sweep.open("new").jobs
    assert [set(job.overrides) for job in jobs[:3]] == shown
    assert len(jobs) == 4
    assert all(job.run.config().data.repeats == job.run.config().data.batch_size + 3 for job in jobs)
    # A pair is one parameter of the search.
    study = optuna.load_study(study_name="segbench", storage="sqlite:///new/study.db")
    assert {len(trial.params) for trial in study.get_trials()} == {2}
    assert "new has 4 jobs already" in searched(call, *given, "--dry")[1]
    # Without the pairs it is another search.
    assert "zip [['data.batch_size', 'data.repeats']], now []" in searched(call, *given[:3], *given[4:])[2]


def test_a_study_is_taken_up_with_its_trials(here, call):
    searched(call, RATES, "hydra.sweeper.n_trials=3")
    before = trials()
    searched(call, RATES, "hydra.sweeper.n_trials=5")
    after = trials()
    assert [trial.params for trial in after[:3]] == [trial.params for trial in before]
    assert len(after) == 5
    assert len({trial.params["optimizer.lr"] for trial in after}) == 5
    assert [job.name for job in Sweep.open("sweep").jobs] == list("01234")
    # There are enough: nothing runs.
    assert searched(call, RATES, "hydra.sweeper.n_trials=5")[0] == 0
    assert (here / "sweep" / "runs.txt").read_text().split() == list("01234")


def test_trials_that_fail_or_score_nan_are_recorded_and_the_others_go_on(here, call):
    code, out, err = searched(call, "optimizer.lr=choice(0.9,1e-6,1e-3)", "hydra.sweeper.n_trials=9")
    assert code == 0, err
    states = {trial.params["optimizer.lr"]: trial.state for trial in trials()}
    reasons = {trial.params["optimizer.lr"]: trial.user_attrs.get("reason") for trial in trials()}
    assert len(trials()) == 9
    assert states == {"0.9": TrialState.FAIL, "1e-06": TrialState.FAIL, "0.001": TrialState.COMPLETE}
    assert reasons == {"0.9": "failed", "1e-06": "val/mean_iu is nan", "0.001": None}
    # A configuration that was tried before is not tried again, and its trial gets the same result.
    assert len((here / "sweep" / "runs.txt").read_text().split()) == 3
    assert "9 trials: " in out
    assert "a loss of nan" in out


def test_a_configuration_that_is_proposed_again_while_its_job_runs_waits_for_it(here, call):
    given = ("optimizer.lr=choice(1e-3)", "hydra.sweeper.n_trials=3", "hydra.launcher.jobs=2")
    code, out, err = searched(call, *given)
    assert code == 0, err
    assert "3 trials: 3 complete" in out
    assert trials("value") == [pytest.approx(1.0)] * 3
    assert (here / "sweep" / "runs.txt").read_text().split() == ["0"]


def test_a_trial_that_falls_behind_is_pruned(here, call):
    study = open_study(here / "sweep", Searching(), "maximize")
    for score in (0.5, 0.6, 0.7):
        values = {step: score for step in range(10)}
        study.add_trial(optuna.trial.create_trial(value=score, intermediate_values=values))
    given = ("optimizer.lr=interval(0.06,0.1)", "hydra.sweeper.n_trials=4", "hydra.sweeper.startup_trials=2")
    code, out, _ = searched(call, *given, "hydra.sweeper.warmup_steps=1")
    assert trials("state")[3] == TrialState.PRUNED
    assert next(iter(trials()[3].intermediate_values)) == 0
    assert len(trials()[3].intermediate_values) < 10
    (job,) = Sweep.open("sweep").jobs
    assert (job.pruned, job.state(), job.run.state()) == (True, "pruned", "interrupted")
    assert "1 pruned" in out
    # Nothing finished: a search without a score has failed.
    assert code == 1
    assert call("sweep", "resume", "sweep")[0] == 1
    assert (here / "sweep" / "runs.txt").read_text().split() == ["3"]


def _end_when(path):
    until = time.monotonic() + 60.0
    while not path.exists() or "running" not in path.read_text():
        assert time.monotonic() < until
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_search_that_was_cut_off_goes_on_where_it_was(here, call):
    held = here / "sweep" / "held"
    held.touch()
    thread = threading.Thread(target=_end_when, args=(here / "sweep" / "0" / "state.json",))
    thread.start()
    code, out, _ = searched(call, RATES, "hydra.sweeper.n_trials=2")
    thread.join()
    assert code == 128 + signal.SIGTERM
    assert trials("state") == [TrialState.RUNNING]
    held.unlink()
    (before,) = trials()
    code, out, err = call("sweep", "resume", "sweep")
    assert code == 0, err
    after = trials()
    assert [trial.state for trial in after] == [TrialState.COMPLETE] * 2
    assert after[0].params == before.params
    assert (here / "sweep" / "runs.txt").read_text().split() == ["0", "0", "1"]
    assert "2 jobs, 2 finished" in out


def test_a_trial_whose_launcher_died_before_its_job_was_there_is_a_failed_one(here, call):
    study = open_study(here / "sweep", Searching(), "maximize")
    study.ask()
    searched(call, RATES, "hydra.sweeper.n_trials=2")
    assert trials("state") == [TrialState.FAIL, TrialState.COMPLETE]
    assert trials()[0].user_attrs["reason"] == "the launcher ended before the job existed"


def test_a_failed_trial_that_is_retried_counts_as_a_new_one(here, call):
    code, _, _ = searched(call, "optimizer.lr=choice(0.9)", "hydra.sweeper.n_trials=1")
    assert code == 1
    (here / "sweep" / "mended").touch()
    code, _, err = call("sweep", "retry", "sweep")
    assert code == 0, err
    assert trials("state") == [TrialState.FAIL, TrialState.COMPLETE]
    assert trials()[1].params == trials()[0].params
    assert trials()[1].user_attrs == {"job": "0", "retried": 0}


def test_one_trial_alone_is_retried_where_it_is_named(here, call):
    searched(call, "optimizer.lr=choice(0.9)", "hydra.sweeper.n_trials=1")
    (here / "sweep" / "mended").touch()
    # There would be two trials to make, were it asked for the whole search.
    sweep = Sweep.open("sweep")
    sweep.commands[-1] = [word.replace("n_trials=1", "n_trials=3") for word in sweep.commands[-1]]
    sweep.save()
    code, out, err = call("sweep", "retry", "sweep", "0")
    assert code == 0, err
    assert "1 job, 1 finished" in out
    assert trials("state") == [TrialState.FAIL, TrialState.COMPLETE]


def test_a_study_that_is_lost_in_the_midst_of_a_search_is_told(here, call):
    held, study = here / "sweep" / "held", here / "sweep" / "study.db"
    held.touch()

    def lose():
        state, until = here / "sweep" / "0" / "state.json", time.monotonic() + 60.0
        while not state.exists() or "running" not in state.read_text():
            assert time.monotonic() < until
            time.sleep(0.05)
        study.unlink()
        held.unlink()

    thread = threading.Thread(target=lose)
    thread.start()
    code, _, err = searched(call, RATES, "hydra.sweeper.n_trials=1")
    thread.join()
    assert code == 1
    assert "\nerror: the study sqlite:///" in err
    assert "does not answer: " in err
    assert "Traceback" not in err


def test_another_search_in_the_same_place_is_refused(here, call):
    searched(call, RATES, "hydra.sweeper.n_trials=1")
    for given, message in (
        (["optimizer.lr=interval(1,2)"], "space {"),
        ([RATES, "optimized_metric=val/rand_error"], "metric val/mean_iu, now val/rand_error"),
        ([RATES, "seed=5"], "the configs have changed"),
    ):
        code, _, err = searched(call, *given)
        assert code == 1
        assert err.startswith("error: the search in sweep is different: ")
        assert message in err
    assert len(trials()) == 1


def test_a_search_in_a_plain_sweep_is_refused(here, call):
    call("train", "-m", "name=s", "hydra.sweep.dir=sweep", "seed=1", "optimizer.lr=1e-3")
    assert "sweep is a sweep without a search" in searched(call, RATES)[2]


@pytest.mark.parametrize("spoil", ["folder", "other", "parent"])
def test_a_study_that_cannot_be_written_is_told_before_anything_runs(here, call, spoil):
    study = here / "sweep" / "study.db"
    given = ["hydra.sweeper.n_trials=1"]
    if spoil == "folder":
        study.mkdir()
    elif spoil == "other":
        study.write_text("no database at all, but a file of some length" * 100)
    else:
        given += [f"hydra.sweeper.storage='sqlite:///{here}/nowhere/study.db'"]
    code, _, err = searched(call, RATES, *given)
    assert code == 1
    assert "error: the study sqlite:///" in err
    assert "does not answer: " in err
    assert "\n  expected: an Optuna study that this user may read and write" in err
    assert "Traceback" not in err
    assert not (here / "sweep" / "0").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("n_trials=0", "hydra.sweeper.n_trials=0\n  expected: a whole number, at least 1"),
        ("sampler=magic", "hydra.sweeper.sampler=magic\n  expected: tpe or random"),
        ("pruner=hard", "hydra.sweeper.pruner=hard\n  expected: median or none"),
        ("direction=up", "hydra.sweeper.direction=up\n  expected: maximize or minimize"),
    ],
)
def test_a_wrong_setting_is_told(here, call, given, message):
    code, _, err = searched(call, RATES, f"hydra.sweeper.{given}")
    assert code == 1
    assert f"error: {message}" in err


def test_an_unknown_setting_is_told():
    with pytest.raises(SegbenchError, match=r"hydra.sweeper.trials=3\n.*one of n_trials, sampler"):
        Searching.read({"trials": 3})


def test_a_search_needs_the_launcher_that_can_end_a_trial(here, call):
    code, _, err = searched(call, RATES, "hydra/launcher=basic")
    assert code == 1
    assert "error: hydra/launcher=basic\n  expected: the launcher whose jobs can be watched" in err


def test_a_space_may_be_kept_in_a_file(here, call):
    mine = here / "mine" / "experiment"
    mine.mkdir(parents=True)
    (mine / "tuned.yaml").write_text(
        "# @package _global_\ndefaults: [quickstart, override /hydra/sweeper: optuna]\n"
        "hydra: {sweeper: {n_trials: 1, params: {optimizer.lr: 'interval(1e-3, 2e-3)', seed: '7,7'}}}\n"
    )
    code, _, err = call(
        *("train", "-m", "--config-dir", "mine", "experiment=tuned", "hydra.sweep.dir=sweep", "seed=choice(3,4)")
    )
    assert code == 0, err
    config = yaml.safe_load((here / "sweep" / "0" / "config.yaml").read_text())
    assert 1e-3 <= config["optimizer"]["lr"] <= 2e-3
    assert config["seed"] in (3, 4)


def parsed(*overrides):
    return search_space(OverridesParser.create().parse_overrides(list(overrides)))


@pytest.mark.parametrize(
    ("text", "distribution"),
    [
        ("interval(1,8)", FloatDistribution(1.0, 8.0)),
        ("int(interval(1,8))", IntDistribution(1, 8)),
        ("tag(log,interval(1e-5,1e-2))", FloatDistribution(1e-5, 1e-2, log=True)),
        ("tag(log,int(interval(1,64)))", IntDistribution(1, 64, log=True)),
        ("range(1,10,3)", IntDistribution(1, 7, step=3)),
        ("range(7,0,-3)", IntDistribution(1, 7, step=3)),
        ("tag(log,range(1,9))", IntDistribution(1, 8, log=True)),
        ("range(0.5,2.0,0.5)", FloatDistribution(0.5, 1.5, step=0.5)),
        ("choice(a,3,true)", CategoricalDistribution(["a", "3", "True"])),
        ("'x y',b", CategoricalDistribution(["'x y'", "b"])),
        ("[1,2],[3]", CategoricalDistribution(["[1,2]", "[3]"])),
    ],
)
def test_a_space_in_the_syntax_of_overrides(text, distribution):
    space = parsed("name=s", f"a.b={text}")
    assert space.distributions == {"a.b": distribution}
    assert space.fixed == ["name=s"]
    assert space.texts == {"a.b": f"a.b={text}"}


def test_what_is_proposed_becomes_overrides_that_hydra_reads():
    space = parsed("+a=interval(0,1)", "b='x y',z", "c=5")
    overrides = space.overrides({"+a": 1e-7, "b": "'x y'"})
    assert overrides == ["c=5", "+a=1e-07", "b='x y'"]
    assert [o.value() for o in OverridesParser.create().parse_overrides(overrides)][:2] == [5, 1e-7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("interval(5,1)", r"from 5.0 to 1.0\n.*the smaller bound first"),
        ("tag(log,interval(0,1))", r"from 0.0 to 1.0\n.*above 0"),
        ("tag(log,range(0,5))", r"from 0\n.*above 0"),
        ("tag(log,range(1,9,2))", r"4 values, step 2\n"),
        ("range(5,5)", r"0 values"),
        ("tag(log,choice(1,2))", r"tag log\n.*tag\(log, ...\) around an interval"),
        ("tag(lin,interval(1,2))", r"tag lin\n"),
    ],
)
def test_a_space_that_is_none_is_told(text, message):
    with pytest.raises(SegbenchError, match=message):
        parsed(f"a={text}")


def test_nothing_to_search_is_told():
    with pytest.raises(SegbenchError, match=r"a search with no parameters to search\n(.*\n)*.*interval"):
        parsed("a=1")


METRICS = {
    "confusion": {"_target_": "segbench.metrics.confusion.Overlap"},
    "rand_error": {"_target_": "segbench.metrics.rand.RandError"},
    "warping_error": {"_target_": "segbench.metrics.splits_and_merges.WarpingError"},
    "none": None,
}


@pytest.fixture
def objective(tiny_config):
    """`objective(metric, direction=None)`: of runs with `METRICS` that keep the checkpoint of the best val/mean_iu."""

    def found(metric, direction=None):
        config = tiny_config().replace({"optimized_metric": metric, "metrics": METRICS})
        return objective_of(metric_of(config), config.metrics, direction)

    return found


@pytest.mark.parametrize(
    ("metric", "direction"),
    [
        (None, "maximize"),
        ("val/rand_error", "minimize"),
        ("val/geometric/mean_iu", "maximize"),
        ("val/fw_iu", "maximize"),
    ],
)
def test_the_direction_is_the_metrics_own(objective, metric, direction):
    assert objective(metric) == (metric or "val/mean_iu", direction)


def test_a_direction_may_be_given(objective):
    assert objective("train/loss", "minimize") == ("train/loss", "minimize")


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("test/mean_iu", r"a search by optimized_metric=test/mean_iu\n.*the test split is for the report"),
        ("val/warping_error", r"val/warping_error: unknown whether higher is better\n.*mean_iu"),
        ("val/meaniu", r"optimized_metric=val/meaniu"),
    ],
)
def test_what_a_search_does_not_optimise(objective, metric, message):
    with pytest.raises(SegbenchError, match=message):
        objective(metric)


def test_a_study_in_words(tmp_path):
    study = open_study(tmp_path, Searching(), "minimize")
    assert counts(study) == "0 trials"
    study.tell(study.ask(), 1.0)
    study.tell(study.ask(), state=TrialState.FAIL)
    assert counts(study) == "2 trials: 1 complete, 1 fail"
    assert Path(tmp_path / "study.db").is_file()


AGENTS = sorted((conf_root() / "sweep").glob("*.yaml"))


@pytest.mark.parametrize("path", AGENTS, ids=lambda path: path.stem)
def test_what_the_agent_of_wandb_would_call_is_a_run(path, compose):
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    from segbench.cli.flags import read_flags

    sweep = yaml.safe_load(path.read_text())
    assert sweep["command"][:3] == ["${env}", "segbench", "train"]
    assert sweep["command"][-1] in ("${args}", "${args_no_hyphens}")
    for end in ("low", "high"):
        proposed = {key: {"value": _end_of(given, end)} for key, given in sweep["parameters"].items()}
        arguments = create_sweep_command_args({"args": proposed})[sweep["command"][-1][2:-1]]
        config = compose(*read_flags("train", [*sweep["command"][3:-1], *arguments]).overrides, "name=agent")
        for key, given in proposed.items():
            assert config.flat[key] == given["value"]
        assert "wandb" in config.logger
        goal = objective_of(sweep["metric"]["name"], config.metrics, None)
        assert goal == (sweep["metric"]["name"], sweep["metric"]["goal"])


def _end_of(given, end):
    if "values" in given:
        return given["values"][0 if end == "low" else -1]
    return given["min" if end == "low" else "max"]


def test_there_are_files_for_the_agent():
    assert len(AGENTS) == 2
