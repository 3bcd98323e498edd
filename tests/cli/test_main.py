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
    assert code == 1
    assert err.startswith("error: unknown command 'trian'\n  expected: one of train, evaluate")
    assert "to do:    did you mean train?" in err


def test_a_former_command_names_what_took_its_place(run):
    code, _, err = run("bench", "loader_voc")
    assert code == 1
    assert "unknown command 'bench'" in err and "to do:    python benchmarks/run.py NAME" in err


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
    assert err.endswith("to do:    did you mean segbench list experiment?\n")


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
        ("segbench train optimizer.", {"optimizer.lr=", "optimizer.eps=", "optimizer.bias_lr_factor="}),
        ("segbench train -m optimizer._target_=torch.optim.RAdam optimizer.d", {"optimizer.decoupled_weight_decay="}),
        ("segbench train optimizer._target_=torch.optim.RA", {"optimizer._target_=torch.optim.RAdam"}),
        ("segbench train trainer.", {"trainer.max_steps=", "trainer.limit_val_batches=", "trainer.profiler="}),
        ("segbench train callbacks.panels.c", {"callbacks.panels.count="}),
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


HELP = [
    (["evaluate", "run=x", "--help"], "usage: segbench evaluate", "# best | last; null: best if there is one"),
    (["predict", "-h"], "usage: segbench predict", "overwrite: false"),
    (["export", "--help"], "usage: segbench export", "# onnx | pt2"),
    (["data", "--help"], "usage: segbench data prepare NAME", "segbench data check NAME"),
    (["data", "prepare", "--help"], "usage: segbench data prepare NAME", "voc2011, [voc2012]"),
    (["data", "check", "-h"], "usage: segbench data check NAME", "data sets: dic_hela, image_folder"),
    (
        ["data", "check", "isbi_em", "--help"],
        "usage: segbench data check NAME",
        "  root=data/isbi_em\n  protocol=default",
    ),
    (["sweep", "--help"], "usage: segbench sweep", "status"),
    (["sweep", "status", "--help"], "usage: segbench sweep status", "as printed by segbench train -m"),
    (["sweep", "retry", "DIR", "-h"], "usage: segbench sweep retry", "--jobs N"),
    (["compare", "A", "--help"], "usage: segbench compare", "metric=A,B"),
    (["report", "A", "-h"], "usage: segbench report", "output=FILE"),
    (["reproduce", "--list", "--help"], "usage: segbench reproduce", "seeds=0,1,2"),
    (["list", "model", "--help"], "usage: segbench list", "--config-dir DIR"),
    (["completion", "--help"], "usage: eval", "segbench completion fish"),
]


@pytest.mark.parametrize(("arguments", "start", "among"), HELP, ids=[" ".join(arguments) for arguments, _, _ in HELP])
def test_every_command_has_help(run, arguments, start, among):
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    assert out.startswith(start)
    assert among in out


REFUSED = [
    (["model.widht=3"], "no model.widht in the config (model.widht=3)", "did you mean model.width=3?"),
    (["modle=unet"], "no modle in the config", "did you mean model=unet?"),
    (["lr=3"], "no lr in the config", "did you mean optimizer.lr=3?"),
    (["hydra.sweep.dri=x"], "no hydra.sweep.dri in the config", "did you mean hydra.sweep.dir=x?"),
    (["model=unte"], "no model=unte", "did you mean model=unet?"),
    (["experiment=unet_isbi"], "no experiment=unet_isbi", "did you mean experiment=unet_isbi_em?"),
    (["-m", "model=unet,unte"], "no model=unte", "did you mean model=unet?"),
    (["-m", "model.widht=3,4"], "no model.widht in the config (model.widht=3,4)", "did you mean model.width=3,4?"),
    (["a=[1,"], "a=[1,, which Hydra cannot read: ", "quote the text: a="),
    (["seed=['"], "seed=[', which Hydra cannot read", "quote the text: seed="),
    (["=3"], "=3", "write KEY=3"),
    (["seed"], "seed", "write seed=VALUE"),
    (["quickstart"], "quickstart", "did you mean experiment=quickstart?"),
    (["callbacks=null"], "callbacks=null, which is not an option", "leave out callbacks="),
    (["scheduler=3"], "scheduler=3, which is not an option", "leave out scheduler="),
    (["augment=null"], "augment=null, which is not an option", "did you mean augment=none?"),
    (["-m", "callbacks=null,default"], "callbacks=null,default, which is not an option", "leave out callbacks="),
    (["~callbacks"], "a config without callbacks (~callbacks)", "leave out ~callbacks"),
    (["~calbacks"], "~calbacks: no calbacks in the config", "did you mean ~callbacks?"),
    (["+seed=1"], "+seed=1: seed exists already", "write seed=1"),
    (["seed=0,1"], "seed=0,1: several values for one run", "segbench train -m seed=0,1 for a sweep"),
    (["seed=range(1,3)"], "seed=range(1,3): several values for one run", "segbench train -m seed=range(1,3)"),
    (["seed=${nope}"], "seed=${nope}: no key nope", "segbench train --cfg job shows every key"),
    (["seed=${modle.width}"], "seed=${modle.width}: no key modle.width", "did you mean ${model.width}?"),
    (["seed=${foo:1}"], "seed=${foo:1}: Unsupported interpolation type foo", "correct seed"),
    (["seed=${oc.env:NOT_SET}"], "the environment variable NOT_SET is not set", "export NOT_SET=..."),
    (["-m", "seed=${nope}"], "seed=${nope}: no key nope", "segbench train --cfg job shows every key"),
    (["data=image_folder"], "data.images is not given", "add data.images=... to the command"),
    (["hydra.job.chdir=true"], "hydra.job.chdir=true", "leave out hydra.job.chdir"),
    (["hydra.run.dir=file"], "file: File exists", "correct the path"),
    (["hydra.run.dir=file/run"], "file/run: Not a directory", "correct the path"),
    (["-m", "seed=0,1", "hydra.sweep.dir=file/x"], "file/x: Not a directory", "correct the path"),
    (["hydra.run.dir=" + "a" * 300], "a name of 300 bytes in a path: aaaa", "shorten hydra.run.dir"),
    (
        [
            "-m",
            "seed=0,1",
            "hydra.sweep.dir=outputs",
            "name=" + "a" * 300,
            "hydra.sweep.subdir=${hydra:job.override_dirname}",
        ],
        "a name of 312 bytes in a path: name=aaaa",
        "hydra.job.config.override_dirname.exclude_keys=[KEY]",
    ),
    (["hydra.run.dir=a\0b"], "a path with a NUL byte", "remove the byte"),
    (["hydra/launcher=joblib"], "no hydra/launcher=joblib", "pip install hydra-joblib-launcher"),
    (["hydra.searchpath=[nowhere]"], "path=nowhere is not available", "correct hydra.searchpath="),
    (["--config-dir", "nowhere"], "no folder nowhere", "correct --config-dir"),
    (["--config-name", "evaluate"], "a config without metrics, data", "leave out --config-name evaluate"),
    (["--config-name", "nope"], "Cannot find primary config 'nope'", "correct --config-name"),
    (["-m", "--cfg", "job"], "--multirun and --cfg together", "leave out --multirun"),
    (["--resolve"], "--resolve without --cfg", "add --cfg job"),
    (["--cfg", "jbo"], "segbench train: argument -c/--cfg: invalid choice: 'jbo'", "segbench train -h"),
    (["--cfg", "job", "-p", "nope"], "--package nope", "correct it, or leave it out"),
    (["--mutlirun"], "unknown flag --mutlirun", "did you mean --multirun?"),
    (["-x"], "segbench train: unrecognized arguments: -x", "segbench train -h"),
    (["--resume=nowhere"], "no run in nowhere: config.yaml is missing", "give run=DIR"),
]


@pytest.mark.parametrize(("given", "found", "action"), REFUSED, ids=[" ".join(given)[:40] for given, _, _ in REFUSED])
def test_a_command_line_that_cannot_run_is_refused_in_three_parts(call, tmp_path, monkeypatch, given, found, action):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGBENCH_OUTPUTS", "outputs")
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    Path("file").touch()
    code, out, err = call("train", *given)
    assert (code, out) == (1, "")
    first, expected, to_do = err.splitlines()
    assert first.startswith("error: ") and found in first
    assert expected.startswith("  expected: ") and len(expected) > len("  expected: ")
    assert to_do.startswith("  to do:    ") and action in to_do
    # Neither a directory nor a part of one is left behind; a sweep's own may be.
    assert sorted(path.name for path in Path().iterdir() if path.name != "outputs") == ["file"]
    assert not list(Path().rglob("config.yaml"))


OTHERS = [
    (["evaluate", "spilt=val"], "no spilt in the config", "did you mean split=val?"),
    (["evaluate", "--run=nowhere"], "no run in nowhere: config.yaml is missing", "give run=DIR"),
    (["predict", "run=r", "output=o", "fromat=masks"], "no fromat in the config", "did you mean format=masks?"),
    (["export", "run=r"], "format is not given", "add format=... to the command"),
    (["data", "chekc", "isbi_em"], "segbench data chekc", "did you mean segbench data check?"),
    (["data", "check", "isbi"], "no data set isbi", "did you mean isbi_em?"),
    (["data", "check", "isbi_em", "protcol=x"], "protcol=x", "did you mean protocol=x?"),
    (["list", "--foo"], "segbench list: unrecognized arguments: --foo", "segbench list -h"),
    (["sweep"], "segbench sweep: the following arguments are required: COMMAND", "segbench sweep -h"),
    (["sweep", "resume", "x", "--jobs=a"], "argument --jobs: invalid int value: 'a'", "segbench sweep resume -h"),
    (["sweep", "status", "nowhere"], "no sweep in nowhere", "give the directory"),
    (["reproduce", "unet_isbi"], "no experiment=unet_isbi", "did you mean experiment=unet_isbi_em?"),
    (["reproduce", "unet_isbi_em", "callbacks=null"], "callbacks=null, which is not an option", "leave out callbacks="),
]


@pytest.mark.parametrize(("given", "found", "action"), OTHERS, ids=[" ".join(given) for given, _, _ in OTHERS])
def test_so_does_every_other_command(call, tmp_path, monkeypatch, given, found, action):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    code, out, err = call(*given)
    assert (code, out) == (1, "")
    first, expected, to_do = err.splitlines()
    assert first.startswith("error: ") and found in first
    assert expected.startswith("  expected: ")
    assert to_do.startswith("  to do:    ") and action in to_do


def test_the_axes_are_listed_without_private_options(run):
    _, out, err = run("train", "experiment=unet_isbi")
    assert "fcn32s_voc" in err
    assert " _fcn" not in err
    _, out, _ = run("train", "--help")
    assert "synthetic_em*" in out and "_loader" not in out and " _fcn" not in out


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
    assert code == 1
    assert err == (
        'error: segbench completion\n  expected: bash, zsh or fish\n  to do:    eval "$(segbench completion bash)"\n'
    )


def test_an_entry_point_starts_as_a_module_too(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train", "--cfg", "job", "name=module"])
    monkeypatch.delitem(sys.modules, "segbench.train", raising=False)
    runpy.run_module("segbench.train", run_name="__main__")
    assert "name: module" in capsys.readouterr().out


def test_ranks_started_by_lightning_run_the_entry_points_file(run):
    run("train", "--cfg", "job")
    assert Path(sys.argv[0]).name == "train.py"
    assert sys.argv[1:] == ["--cfg", "job"]


def test_completion_knows_a_replaced_class_and_the_users_own_configs(run, tmp_path):
    offered = run("completion", "query", "segbench train optimizer._target_=torch.optim.SGD optimizer.")[1].split()
    assert {"optimizer.nesterov=", "optimizer.momentum=", "optimizer.bias_layers="} <= {*offered}
    # What AdamW took, and what a run gives itself.
    assert not {"optimizer.betas=", "optimizer.params="} & {*offered}
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "ours.yaml").write_text("_target_: segbench.models.unet.UNet\nwidth: 3\n")
    line = f"segbench train --config-dir {tmp_path} model="
    assert "model=ours" in run("completion", "query", line)[1].split()
    # A class that there is not is no error.
    assert run("completion", "query", "segbench train model._target_=nowhere.Net model.")[1].split() == []
