"""What all entry points share: Hydra started on the packaged configs, errors told without a traceback, the log."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, ParamSpec, TypeVar

from segbench.cli.arguments import quoted, unquoted
from segbench.config.packaged import conf_root
from segbench.errors import SegbenchError
from segbench.runs.directory import not_writable
from segbench.runtime.closed_pipe import ends_quietly

if TYPE_CHECKING:
    from omegaconf import DictConfig


Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")


def fail(error: SegbenchError) -> NoReturn:
    """Print an error's three parts and leave with exit code 1."""
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(1) from None


def job(function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """A function that Hydra calls, whose `SegbenchError` is printed without a traceback; so ends a closed pipe."""

    @functools.wraps(function)
    def told(*arguments: Parameters.args, **named: Parameters.kwargs) -> Returned:
        try:
            # Here too: Hydra shows the traceback of what leaves the function.
            with ends_quietly():
                return function(*arguments, **named)
        except SegbenchError as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            fail(error)

    return told


def _experiment_name(*, _root_: DictConfig) -> str:
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    # A sweeper asks before Hydra has set its own config, a job after that was taken out of the root.
    chosen = OmegaConf.select(_root_, "hydra.runtime.choices.experiment")
    return str(chosen or HydraConfig.get().runtime.choices["experiment"])


def hydra_entry(function: Callable[[DictConfig], None], config_name: str, writes: bool = True) -> None:
    """Compose `config_name` from the packaged configs and sys.argv, and run `function` with it.

    Args:
        function: takes the composed config.
        config_name: a file at the top of the packaged configs.
        writes: whether it fills a run directory.
    """
    import hydra
    from omegaconf import OmegaConf

    if writes and not any(argument.split("=")[0] in _SHOWING for argument in sys.argv[1:]):
        _check_directories(sys.argv[1:])
    sys.argv[1:] = quoted(sys.argv[1:])
    OmegaConf.register_new_resolver("experiment_name", _experiment_name, replace=True)
    hydra.main(version_base="1.3", config_path=str(conf_root()), config_name=config_name)(function)()


_SHOWING = ("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc")


def _check_directories(arguments: list[str]) -> None:
    # Hydra makes the directory before any of our code runs, and fails with a traceback.
    given = [a.split("=", 1)[1] for a in arguments if a.startswith(("hydra.run.dir=", "hydra.sweep.dir="))]
    for name in given or [os.environ.get("SEGBENCH_OUTPUTS", "outputs")]:
        path = Path(unquoted(name))
        if "${" in name:
            continue
        try:
            existing = next(parent for parent in [path, *path.parents] if parent.exists() or parent == parent.parent)
            if not existing.is_dir():
                raise NotADirectoryError(20, f"{existing} is no directory")
            if not os.access(existing, os.W_OK | os.X_OK):
                raise PermissionError(13, "permission denied")
        except OSError as error:
            fail(not_writable(path, error))


def overrides() -> list[str]:
    """The overrides of this job, as Hydra understood them."""
    from hydra.core.hydra_config import HydraConfig

    return list(HydraConfig.get().overrides.task)


def relative(path: Path) -> Path:
    """The path as a user would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
