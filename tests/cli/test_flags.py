import pytest

from segbench.cli.flags import read_flags
from segbench.errors import SegbenchError


@pytest.mark.parametrize(
    ("given", "overrides"),
    [
        (["a=1", "-m", "b=2,3"], ["a=1", "b=2,3"]),
        (["--optimizer.lr=0.01", "--seed=1"], ["optimizer.lr=0.01", "seed=1"]),
        # A flag that takes no value is a key where it has one.
        (["--run=outputs/x=y", "a=1"], ["run=outputs/x=y", "a=1"]),
        (["--config-dir=mine", "a=1", "--cfg", "job"], ["a=1"]),
        (["seed=-1", "~callbacks", "+a=1"], ["seed=-1", "~callbacks", "+a=1"]),
    ],
)
def test_overrides_keep_their_order(given, overrides):
    assert read_flags("evaluate", given).overrides == overrides


def test_flags_are_read_wherever_they_stand():
    flags = read_flags("train", ["a=1", "--config-dir", "mine", "b=2", "-m", "c=3"])
    assert (flags.config_dir, flags.multirun, flags.cfg) == ("mine", True, None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--foo"], r"unknown flag --foo\n.*one of --help, --multirun, (.|\n)*did you mean --info\?"),
        (["--zzzz"], r"unknown flag --zzzz\n(.|\n)*write zzzz=VALUE for a key"),
        (["--config-dir"], r"argument -cd/--config-dir: expected one argument\n"),
        (["--info", "all", "-m"], r"--multirun and --info together\n"),
        (["--mult"], r"unknown flag --mult\n(.|\n)*did you mean --multirun\?"),
        (["--config-path", "mine"], r"unknown flag --config-path\n(.|\n)*--config-dir DIR adds"),
        (["--config-path=mine"], r"unknown flag --config-path\n(.|\n)*--config-dir DIR adds"),
        (["--shell-completion", "install=bash"], r"unknown flag --shell-completion\n(.|\n)*segbench completion bash"),
        (["--experimental-rerun", "x"], r"unknown flag --experimental-rerun\n(.|\n)*segbench train resume=RUN"),
    ],
)
def test_a_flag_that_cannot_be_is_refused(given, message):
    with pytest.raises(SegbenchError, match=message):
        read_flags("train", given)
