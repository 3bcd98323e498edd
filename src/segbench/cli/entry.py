"""What all entry points share: starting Hydra on the packaged configs, and printing every error."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from segbench.cli.arguments import quoted
from segbench.config.explain import explained
from segbench.config.hydra_errors import Composing
from segbench.config.own_targets import opened
from segbench.config.packaged import conf_root
from segbench.config.trust import typed
from segbench.errors import SegbenchError, printable, say
from segbench.runtime.closed_pipe import ends_quietly
from segbench.runtime.frameworks import in_a_command
from segbench.runtime.log import TRACEBACK_IN

if TYPE_CHECKING:
    import argparse

    from hydra._internal.hydra import Hydra
    from omegaconf import DictConfig


Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")


class Broken(BaseException):
    """An error of a function that Hydra called. Hydra prints or swallows every `Exception`, but lets this one pass.

    Args:
        error: what the function raised.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def job(function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """A function that Hydra calls, whose errors reach `boundary` as they are."""

    @functools.wraps(function)
    def passed(*arguments: Parameters.args, **named: Parameters.kwargs) -> Returned:
        try:
            return function(*arguments, **named)
        except Exception as error:
            raise Broken(error) from error

    return passed


@contextlib.contextmanager
def boundary() -> Iterator[None]:
    """Where a command's errors end: printed without a traceback, exit code 1; HYDRA_FULL_ERROR=1 lets them pass.

    Raises:
        SystemExit: with 1 for any error, 130 for Ctrl-C, 141 for a pipe that nobody reads.
    """
    in_a_command()
    warnings.formatwarning = _printable_warning
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks ends no command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # What it cannot decode is told in our own sentence.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    try:
        with ends_quietly():
            try:
                yield
            except Broken as broken:
                raise broken.error from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        # What the functions hold that it left; the explanation needs memory too.
        traceback.clear_frames(error.__traceback__)
        say(f"error: {explained(error) or printable(_one_line(error))}", file=sys.stderr)
        raise SystemExit(1) from None


_FORMAT_WARNING = warnings.formatwarning


def _printable_warning(*arguments: Any, **named: Any) -> str:
    # Libraries warn of names that strangers chose, such as a letter that a font lacks.
    return printable(_FORMAT_WARNING(*arguments, **named))


def _one_line(error: BaseException) -> str:
    from hydra.errors import InstantiationException

    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        return _one_line(error.__cause__)
    text = " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    place = f", at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith(TRACEBACK_IN)]
    where = notes[0] if notes else "HYDRA_FULL_ERROR=1 shows the traceback"
    return f"{type(error).__name__}: {text[:400]}{'...' if text[400:] else ''}{place}; {where}"


def hydra_entry(function: Callable[[DictConfig], None], verb: str) -> None:
    """Compose a command's config from the packaged configs, the user's and sys.argv, and run `function` with it.

    Args:
        function: takes the composed config.
        verb: the command, which is also the name of its config.
    """
    # A training's own configs are trusted; the other commands take `trust=`.
    with boundary(), typed(verb, sys.argv[1:]) if verb != "train" else contextlib.nullcontext():
        from segbench.cli.flags import read_flags

        flags = read_flags(verb, sys.argv[1:])
        flags.overrides = opened(quoted(flags.overrides))
        own = None if flags.config_dir is None else Path(flags.config_dir)
        if flags.help:
            from segbench.cli.help import help_text

            say(help_text(verb, own), end="")
            return
        from segbench.config.composing import composing

        name = flags.config_name or verb
        with composing(name, flags.overrides, own) as hydra:
            try:
                _run(hydra, job(function), verb, flags)
            except Broken as broken:
                # Jobs of a sweep and stages are composed by functions that Hydra called.
                context = Composing(hydra.config_loader, name, tuple(flags.overrides))
                raise explained(broken.error, context) or broken  # noqa: B904 - the traceback is the error's own


def _run(hydra: Hydra, function: Callable[[DictConfig], None], verb: str, flags: argparse.Namespace) -> None:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from segbench.cli.flags import parser

    name, overrides = flags.config_name or verb, list(flags.overrides)
    if flags.hydra_help:
        hydra.hydra_help(name, parser(verb), flags)
    elif flags.cfg:
        if flags.package not in (None, "_global_"):
            _check_part(hydra.compose_config(name, overrides, RunMode.RUN), flags.package)
        hydra.show_cfg(name, overrides, flags.cfg, flags.package, flags.resolve)
    else:
        # Composed as a sweep, which allows several values of a key: the config, too, may ask for one.
        config = hydra.compose_config(name, overrides, RunMode.MULTIRUN, validate_sweep_overrides=False)
        if flags.info:
            hydra.show_info(flags.info, name, overrides)
            return
        sweeps = flags.multirun or config.hydra.mode == RunMode.MULTIRUN
        _check(config, verb, flags)
        if flags.dry:
            _show_sweep(hydra, function, name, overrides, sweeps)
            return
        if not sweeps:
            _resolve(config, verb)
        if sweeps:
            # A sweeper reads hydra.sweep.dir, which may contain ${hydra:...}.
            HydraConfig.instance().set_config(config)
            hydra.multirun(name, function, [*overrides, "hydra.mode=MULTIRUN"])
        else:
            hydra.run(name, function, [*overrides, "hydra.mode=RUN"])


def _show_sweep(
    hydra: Hydra, function: Callable[[DictConfig], None], name: str, overrides: list[str], sweeps: bool
) -> None:
    """Print what a sweep would run; as `Hydra.multirun`, but no callback is told and nothing is written."""
    from hydra._internal.callbacks import Callbacks
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.plugins import Plugins
    from hydra.types import HydraContext, RunMode
    from omegaconf import OmegaConf

    if not sweeps:
        raise SegbenchError("--dry without -m", "a sweep", "add -m; --cfg job shows the config of one run")
    config = hydra.compose_config(name, [*overrides, "hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
    HydraConfig.instance().set_config(config)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks())
    sweeper = Plugins.instance().instantiate_sweeper(config=config, hydra_context=context, task_function=function)
    if not hasattr(sweeper, "show"):
        raise SegbenchError(
            f"--dry with hydra/sweeper={config.hydra.runtime.choices['hydra/sweeper']}",
            "the grid or hydra/sweeper=optuna",
            "leave out hydra/sweeper=, or --dry",
        )
    sweeper.show(OmegaConf.to_container(config.hydra.overrides.task, resolve=False))


def _check(config: DictConfig, verb: str, flags: argparse.Namespace) -> None:
    """Refuse what cannot run, before anything is written."""
    from segbench.cli.help import axes_of

    if config.hydra.job.chdir:
        raise SegbenchError(
            "hydra.job.chdir=true",
            "a run that stays in the working directory: relative paths, such as data.root, are read from there",
            "leave out hydra.job.chdir; what a run writes is in hydra.run.dir",
        )
    choices = config.hydra.runtime.choices
    axes = [axis for axis, default in axes_of(verb).items() if default is not None]
    # Hydra lists no choice where there are several: logger=[wandb,tensorboard].
    several = {"logger"} if config.get("logger") else set()
    without = [axis for axis in axes if choices.get(axis) is None and axis not in several]
    if without:
        given = [f"--config-name {flags.config_name}"] if flags.config_name else []
        given += [override for override in flags.overrides if override.lstrip("~").partition("=")[0] in without]
        raise SegbenchError(
            f"a config without {', '.join(without)}" + (f" ({' '.join(given)})" if given else ""),
            f"an option of every axis of segbench {verb}: {', '.join(axes)}",
            (f"leave out {' '.join(given)}" if given else "correct the defaults of your own configs")
            + f"; segbench list {without[0]} shows the options",
        )
    _warn_of_hidden(config)


def _check_part(config: DictConfig, key: str) -> None:
    from omegaconf import OmegaConf

    if OmegaConf.select(config, key) is None:
        raise SegbenchError(f"--package {key}", "a key of the config that is not null", "correct it, or leave it out")


def _warn_of_hidden(config: DictConfig) -> None:
    for source in config.hydra.runtime.config_sources:
        if source.provider.startswith("hydra.searchpath") and source.schema == "file":
            files = sorted(path.relative_to(source.path) for path in Path(source.path).rglob("*.yaml"))
            for hidden in (file for file in files if (conf_root() / file).is_file()):
                say(
                    f"{source.path}/{hidden} is not used: in hydra.searchpath the packaged file of that name comes "
                    f"first; with --config-dir {source.path} yours does",
                    file=sys.stderr,
                )


def _resolve(config: DictConfig, verb: str) -> None:
    """Make the record of the config once, so that errors are found before the run's directory is made."""
    import copy

    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict, read_write

    from segbench.config.composed import resolved
    from segbench.config.requests import RECORDS

    own = copy.deepcopy(config)
    HydraConfig.instance().set_config(own)
    with read_write(own.hydra.runtime), open_dict(own.hydra.runtime):
        own.hydra.runtime.output_dir = os.path.abspath(str(own.hydra.run.dir))
    HydraConfig.instance().set_config(own)
    with read_write(own), open_dict(own):
        del own["hydra"]
    RECORDS[verb].of(resolved(own))


def overrides() -> list[str]:
    """The overrides of this job, as Hydra understood them."""
    from hydra.core.hydra_config import HydraConfig

    return list(HydraConfig.get().overrides.task)


def relative(path: Path) -> Path:
    """The path as a user would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
