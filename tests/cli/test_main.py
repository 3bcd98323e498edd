import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml

import segbench
from segbench.cli import main as cli
from segbench.runs.directory import Run


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """`run("train", ...)`: exit code, standard output and error of the command."""
    monkeypatch.setenv("SEGBENCH_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.setenv("SEGBENCH_RUN_ID", "here")
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def told(*arguments):
        monkeypatch.setattr(sys, "argv", ["segbench", *arguments])
        try:
            cli.main()
            code = 0
        except SystemExit as left:
            code = left.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return told


@pytest.fixture
def mine(tmp_path):
    """A user's own config directory with one experiment."""
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "e1.yaml").write_text(
        "# @package _global_\n# My own.\n# Command: e1\ndefaults:\n  - quickstart\nseed: 7\nmodel:\n  width: 5\n"
    )
    return tmp_path / "mine"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_command(run, arguments):
    code, out, _ = run(*arguments)
    assert code == 0
    assert all(f"\n  {command} " in out for command in cli.COMMANDS)


def test_version(run):
    assert run("--version") == (0, f"{segbench.__version__}\n", "")


def test_an_unknown_command_gets_a_suggestion(run):
    code, _, err = run("trian")
    assert code == 2
    assert err.startswith("error: unknown command 'trian'; did you mean train?\n  expected: one of train, evaluate")
    assert "to do:    segbench --help" in err


def test_every_command_has_an_entry_point():
    from importlib.util import find_spec

    assert all(find_spec(module) for module, _ in cli.COMMANDS.values())


def test_the_job_config_is_shown_and_nothing_run(run, tmp_path):
    code, out, _ = run("train", "--cfg", "job", "trainer.max_steps=7", "seed=3")
    config = yaml.safe_load(out)
    assert code == 0
    assert (config["trainer"]["max_steps"], config["seed"]) == (7, 3)
    assert config["data"]["_target_"].endswith("SyntheticEM")
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("name", ["unet_isbi_em", "unet_isbi_em_cpu"])
def test_an_experiment_is_picked_without_a_plus_sign(run, name):
    config = yaml.safe_load(run("train", "--cfg", "job", f"experiment={name}", "data.root=there")[1])
    assert config["data"]["_target_"].endswith("IsbiEM")
    assert config["paper"]["metrics"]["rand_error"] == 0.0382
    assert config["model"]["width"] == {"unet_isbi_em": 64, "unet_isbi_em_cpu": 32}[name]


def test_a_user_brings_an_experiment(run, mine):
    config = yaml.safe_load(run("train", "--config-dir", str(mine), "experiment=e1", "--cfg", "job")[1])
    assert (config["seed"], config["model"]["width"], config["model"]["depth"]) == (7, 5, 3)


def test_an_unknown_experiment_keeps_hydras_list(run):
    code, _, err = run("train", "experiment=unet_isbi")
    assert code == 1
    assert "Could not find 'experiment/unet_isbi'" in err
    assert "unet_isbi_em_cpu" in err


def test_an_unknown_key_keeps_hydras_suggestion(run):
    code, _, err = run("train", "model.widht=3")
    assert code == 1
    assert "Could not override 'model.widht'" in err
    assert "+model.widht=3" in err


@pytest.mark.parametrize(("command", "key"), [("predict", "run"), ("evaluate", "run")])
def test_a_missing_argument_is_named(run, command, key):
    code, _, err = run(command)
    assert code == 1
    assert err.startswith("error: ")
    assert f"{key}=" in err
    assert "Traceback" not in err


def test_a_run_that_is_none_is_told(run, tmp_path):
    code, _, err = run("evaluate", f"run={tmp_path}/nowhere")
    assert code == 1
    assert "config.yaml is missing" in err
    assert "expected: a run directory" in err


def test_a_directory_in_use_is_told(run, tiny_run):
    code, _, err = run("train", f"hydra.run.dir={tiny_run}", "trainer.max_steps=1")
    assert code == 1
    assert "holds a run already" in err
    assert "Traceback" not in err


@pytest.fixture
def continued(tiny_run, tmp_path):
    """A copy of the finished tiny run that may be continued."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def test_a_run_is_continued_in_place_with_its_own_config(run, continued):
    before = (continued / "config.yaml").read_text()
    code, out, err = run("train", f"resume={continued}", "trainer.max_steps=5")
    assert code == 0, err
    assert f"run:   {continued}\n" in out
    assert (continued / "config.yaml").read_text() == before
    results = Run(continued).results()
    assert (results["timing"]["steps"], results["protocol"]["checkpoint"]) == (5, "best")


def test_a_finished_run_that_is_continued_gives_the_same_scores(run, continued):
    before = Run(continued).results()["metrics"]
    assert run("train", f"resume={continued}")[0] == 0
    assert Run(continued).results()["metrics"] == before


def test_a_continued_run_keeps_its_configuration(run, continued):
    code, _, err = run("train", f"resume={continued}", "optimizer.lr=1", "trainer.max_steps=9")
    assert code == 1
    assert "with optimizer.lr=1\n  expected: beside resume= only trainer.max_steps" in err
    assert "to do:    leave it out, or start a new run" in err


def test_a_continued_run_takes_whole_numbers(run, continued):
    code, _, err = run("train", f"resume={continued}", "trainer.max_steps=many")
    assert code == 1
    assert err == (
        "error: trainer.max_steps=many\n  expected: a whole number\n  to do:    correct trainer.max_steps=\n"
    )


def test_continuing_what_is_no_run_is_told(run, tmp_path):
    code, _, err = run("train", f"resume={tmp_path}/nowhere")
    assert code == 1
    assert "config.yaml is missing" in err


def test_continuing_a_run_without_a_checkpoint_is_told(run, continued):
    shutil.rmtree(continued / "checkpoints")
    code, _, err = run("train", f"resume={continued}", "trainer.max_steps=5")
    assert code == 1
    assert "no last checkpoint in" in err


def test_continuing_a_run_that_runs_is_refused(run, continued):
    with Run(continued) as running:
        running.lock()
        code, _, err = run("train", f"resume={continued}", "trainer.max_steps=5")
    assert code == 1
    assert "in use by another process" in err


def test_predict_prints_its_file_and_leaves_no_run_directory(run, tiny_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("page.tif", np.full((20, 20), 100, np.uint8))
    code, out, err = run("predict", f"run={tiny_run}", "input=page.tif", "output=out", "trainer=cpu")
    assert (code, out) == (0, "out/page.tif\n"), err
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "out",
        "out/page.tif",
        "out/predictions.jsonl",
        "page.tif",
    ]


def test_list_shows_what_an_axis_offers_with_its_header(run):
    code, out, _ = run("list", "experiment")
    assert code == 0
    assert out.startswith("experiment=\n")
    assert "\n  quickstart " in out
    assert "Command:  segbench train experiment=unet_isbi_em data.root=FOLDER" in out


def test_list_shows_every_axis_in_one_line_an_option(run):
    _, out, _ = run("list")
    assert all(f"\n{axis}=\n" in f"\n{out}" for axis in ("experiment", "data", "model", "optimizer", "trainer"))
    assert "  isbi_em " in out
    assert "_loader" not in out


@pytest.mark.parametrize("form", [["--config-dir", "{}"], ["--config-dir={}"]])
def test_list_shows_a_users_own(run, mine, form):
    _, out, _ = run("list", "experiment", *(part.format(mine) for part in form))
    assert "  e1                       My own.\n" in out
    assert "  quickstart " in out


def test_list_refuses_an_unknown_axis(run):
    code, _, err = run("list", "experiments")
    assert code == 1
    assert "unknown axis experiments\n  expected: one of experiment, data" in err


def test_list_refuses_a_missing_config_dir(run, tmp_path):
    code, _, err = run("list", "--config-dir", f"{tmp_path}/nowhere")
    assert code == 1
    assert "nowhere\n  expected: a config directory\n  to do:    correct --config-dir" in err


@pytest.mark.parametrize(
    ("line", "among"),
    [
        ("segbench ", {"train", "evaluate", "predict", "list"}),
        ("segbench tr", {"train"}),
        ("segbench train exp", {"experiment="}),
        ("segbench train experiment=unet_isbi_em_c", {"experiment=unet_isbi_em_cpu"}),
        ("segbench train seed=1 trainer.max_s", {"trainer.max_steps="}),
        ("segbench evaluate spl", {"split="}),
        ("segbench predict inp", {"input="}),
    ],
)
def test_tab_completion(run, line, among):
    offered = set(run("completion", "query", line)[1].split())
    assert among <= offered
    assert all(word.startswith(line.split(" ")[-1]) for word in offered)


@pytest.mark.parametrize("axis", ["data", "experiment", "trainer"])
def test_parts_that_configs_share_are_no_choices(run, axis):
    offered = run("completion", "query", f"segbench train {axis}=")[1].split()
    assert len(offered) > 2
    assert not any(word.startswith(f"{axis}=_") for word in offered)


def test_nothing_is_offered_where_there_is_no_config(run):
    assert run("completion", "query", "segbench list x")[1].strip() == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_calls_the_query(run, shell):
    assert "segbench completion query" in run("completion", shell)[1]


def test_the_bash_function_completes(run):
    script = run("completion", "bash")[1] + (
        f'segbench() {{ "{sys.executable}" -m segbench "$@"; }}\n'
        'COMP_LINE="segbench train sche"; COMP_POINT=${#COMP_LINE}\n'
        "COMP_WORDS=(segbench train sche); COMP_CWORD=2; _segbench_complete\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == {"scheduler=", "scheduler."}


def test_completion_without_a_shell_says_how(run):
    code, _, err = run("completion")
    assert code == 2
    assert 'eval "$(segbench completion bash|zsh)"' in err


def test_an_entry_point_starts_as_a_module_too(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train", "--cfg", "job", "name=module"])
    monkeypatch.delitem(sys.modules, "segbench.train", raising=False)
    runpy.run_module("segbench.train", run_name="__main__")
    assert "name: module" in capsys.readouterr().out


def test_ranks_started_by_lightning_run_the_entry_points_file(run):
    run("train", "--cfg", "job")
    assert Path(sys.argv[0]).name == "train.py"
    assert sys.argv[1:] == ["--cfg", "job"]
