"""What all entry points share: Hydra started on the packaged configs, errors told without a traceback, the log."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

from segbench.closed_pipe import ends_quietly
from segbench.config import conf_root
from segbench.errors import SegbenchError
from segbench.runs import not_writable

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
    OmegaConf.register_new_resolver("experiment_name", _experiment_name, replace=True)
    hydra.main(version_base="1.3", config_path=str(conf_root()), config_name=config_name)(function)()


_SHOWING = ("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc")


def _check_directories(arguments: list[str]) -> None:
    # Hydra makes the directory before any of our code runs, and fails with a traceback.
    given = [a.split("=", 1)[1] for a in arguments if a.startswith(("hydra.run.dir=", "hydra.sweep.dir="))]
    for name in given or [os.environ.get("SEGBENCH_OUTPUTS", "outputs")]:
        path = Path(name.strip("'\""))
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


def plain(config: DictConfig) -> dict[str, Any]:
    """The config as plain containers, every interpolation resolved.

    Raises:
        SegbenchError: a key that must be given is not.
    """
    from omegaconf import MissingMandatoryValue, OmegaConf

    try:
        container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = error.full_key
        raise SegbenchError(f"{key} is not given", f"a value for {key}", f"add {key}=... to the command") from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def overrides() -> list[str]:
    """The overrides of this job, as Hydra understood them."""
    from hydra.core.hydra_config import HydraConfig

    return list(HydraConfig.get().overrides.task)


def relative(path: Path) -> Path:
    """The path as a user would type it here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def is_main_process() -> bool:
    """Whether this is the process that writes: rank 0, known before any process group is."""
    ranks = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    return next((rank for rank in ranks if rank is not None), "0") == "0"


class _RunLog(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        # A full disk stops the run where it writes something that counts.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


@contextlib.contextmanager
def log_to(path: Path | None) -> Iterator[None]:
    """Log to standard error and to a file; a rank without a file keeps to warnings.

    Args:
        path: the run's log, appended to; None on ranks other than 0.
    """
    import lightning  # noqa: F401  - it sets its loggers up at import, which would undo what is set below

    root = logging.getLogger()
    before, root.handlers = root.handlers, []
    console = logging.StreamHandler(sys.stderr)
    console.setFormatter(logging.Formatter("%(message)s"))
    console.addFilter(lambda record: not getattr(record, "file_only", False))
    handlers: list[logging.Handler] = [console]
    if path is not None:
        file = _RunLog(path)
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handlers.append(file)
    level = root.level
    root.setLevel(logging.INFO if path is not None else logging.WARNING)
    for handler in handlers:
        root.addHandler(handler)
    for name in ("lightning.pytorch", "lightning.fabric"):
        # Device tables and advertisements; its warnings stay.
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            _silence_known()
            yield
    finally:
        root.setLevel(level)
        root.handlers = before
        for handler in handlers:
            handler.close()


def _silence_known() -> None:
    # Lightning asks for more loading processes; on small data they cost more than they bring.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # An epoch may be shorter than the logging interval: steps are counted over the whole run.
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    # Values are gathered by the states before they are logged.
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
    # The logger takes its name and version from the run directory, which is never empty when it starts.
    warnings.filterwarnings("ignore", message=".*Experiment logs directory.*exists and is not empty.*")
    # On a login node of a cluster a run may well be meant for this machine.
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
    # A protocol without validation split gives no loader, which is meant.
    warnings.filterwarnings("ignore", message=".*`list` across ranks is zero.*")
    # Lightning 2.6 gathers by a function that torch 2.13 renames.
    warnings.filterwarnings("ignore", message=".*nn.functional.all_gather is deprecated.*")
    # Lightning 2.6 calls torch's pytree by its former name.
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
    # Evaluation on several processes is exact here: padding is dropped before it reaches a metric.
    warnings.filterwarnings("ignore", message=".*it is recommended to use a single device.*", category=UserWarning)
