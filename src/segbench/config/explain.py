"""Errors of the operating system, of torch and of Hydra in three parts."""

from __future__ import annotations

import errno
import re

import yaml

from segbench.config.hydra_errors import SHOWS, Composing, joined, of_composition, of_option, of_value
from segbench.errors import FULL, SegbenchError, memory_ran_out


def explained(error: BaseException, composing: Composing | None = None) -> SegbenchError | None:
    """The error in three parts; None for a fault of the program.

    Args:
        error: of anything.
        composing: what was being composed.
    """
    if isinstance(error, SegbenchError):
        return error
    if isinstance(error, OSError) and error.errno in FULL:
        return SegbenchError(
            f"{error.filename or 'a file'} cannot be written: {error.strerror}",
            "a disk, and a limit of what this user may fill, with room for it",
            "free it, or choose another place, and run the command again",
        )
    if (told := of_torch(error)) is not None:
        return told
    if isinstance(error, OSError) and error.filename is not None and not hasattr(error, "missing_cfg_file"):
        return _of_system(error)
    if isinstance(error, FileNotFoundError) and "No usable temporary directory" in str(error):
        return SegbenchError(
            f"{error.strerror}: they are full, or cannot be written",
            "a folder for temporary files, with room",
            "free one, or set TMPDIR=DIR",
        )
    if isinstance(error, ValueError) and "null byte" in str(error):
        return SegbenchError("a path with a NUL byte", "a path that a file system can hold", "remove the byte")
    if isinstance(error, UnicodeEncodeError):
        return SegbenchError(
            f"a name that is no text: {error.object[:200]}", "a name that a file system can hold", "rename it"
        )
    if isinstance(error, RuntimeError) and "torchvision::" in str(error):
        return of_torchvision(error)
    if isinstance(error, yaml.MarkedYAMLError):
        return _of_yaml(error)
    if type(error).__name__ == "MisconfigurationException":
        # What a class of theirs finds in the run that it is part of.
        return SegbenchError(joined(error), "settings that Lightning takes together", "correct what it names")
    if isinstance(error, ModuleNotFoundError) and error.name is None:
        # Raised in words, by a class that needs a package which is not there.
        return SegbenchError(joined(error), "the packages that what the config names needs", "install it")
    # Cheap here: an error of theirs means that both are imported.
    from hydra.errors import CompactHydraException, HydraException, InstantiationException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, OmegaConfBaseException):
        return of_value(error, composing)
    if not isinstance(error, HydraException) or isinstance(error, InstantiationException):
        return of_option(composing) if composing is not None and "Config group override" in str(error) else None
    if not str(error) and error.__cause__ is not None:
        return explained(error.__cause__, composing)
    if composing is not None and isinstance(error, CompactHydraException):
        return of_composition(error, composing)
    return SegbenchError(joined(error), "a config that can be composed", SHOWS)


def of_torch(error: BaseException) -> SegbenchError | None:
    """Memory that ran out, a loading process that ended, an operation that is not deterministic; None for others."""
    if memory_ran_out(error):
        if "DataLoader worker process" in str(error):
            return SegbenchError(
                "a loading process ran out of memory", "room for what each loading process holds", _LESS_MEMORY
            )
        if "start new thread" in str(error):
            return SegbenchError(
                "a thread cannot be started: memory ran out, or the number of processes that this user may have",
                "room for it; ulimit -u shows that number",
                f"set threads=1 and fewer data.num_workers or hydra.launcher.jobs, or raise the limit; {_GO_ON}",
            )
        on_gpu = type(error).__name__ == "OutOfMemoryError" or "CUDA" in str(error)
        instead = "see that no other program uses the GPU" if on_gpu else "set fewer data.num_workers"
        asked = re.search(r"(?:[Tt]ried to|Unable to|Failed to) allocate ([\d.]+ \w+)", str(error))
        return SegbenchError(
            f"the {'GPU' if on_gpu else 'machine'}'s memory ran out"
            + (f": {asked[1]} more were needed" if asked else ""),
            "a batch whose feature maps fit" + ("" if on_gpu else ", beside what loading processes hold"),
            "set data.batch_size=auto, which finds one that fits, a smaller data.tile= or data.batch_size= with "
            "trainer.accumulate_grad_batches=N for the same step, or trainer.precision=bf16-mixed; of whole images set "
            f"tile= and data.eval_batch_size=1; {instead}; {_GO_ON}",
        )
    if not isinstance(error, RuntimeError):
        return None
    if str(error).startswith("DataLoader worker (pid"):
        return worker_ended(str(error).splitlines()[0].removeprefix("DataLoader worker ").split(". ")[0])
    if found := re.match(r"(\S+) does not have a deterministic implementation", str(error)):
        return SegbenchError(
            f"trainer.deterministic=true and {found[1]}, of which torch has no deterministic form on a GPU",
            "a network and a loss without it; those of segbench have none",
            "set trainer.deterministic=warn, which allows it and says so, or choose another network",
        )
    return None


_GO_ON = "continue a run with: segbench train resume=RUN"
_LESS_MEMORY = (
    f"set fewer data.num_workers (0: none), a smaller data.batch_size= or data.tile=, or give it more memory; {_GO_ON}"
)


def worker_ended(how: str) -> SegbenchError:
    """That a loading process ended.

    Args:
        how: which one and by what, e.g. `(pid 12) is killed by signal: Killed`.
    """
    return SegbenchError(
        f"a loading process ended: {how}",
        "loading processes that live as long as the run; the system kills one where memory, or a container's shared "
        "memory, ran out",
        _LESS_MEMORY,
    )


def of_torchvision(error: BaseException) -> SegbenchError:
    """That the installed torchvision is of another build of torch: torchmetrics imports it, and Lightning both."""
    from importlib.metadata import distributions

    versions = {each.name: each.version for each in distributions()}
    return SegbenchError(
        f"torchvision {versions.get('torchvision', '')} cannot be imported beside torch {versions.get('torch', '')} "
        f"({joined(error)}), and torchmetrics and lightning import it",
        "no torchvision, which segbench does not need, or the build that belongs to this torch",
        "pip uninstall torchvision, or install both from one index",
    )


def _of_system(error: OSError) -> SegbenchError:
    path = str(error.filename)
    if error.errno == errno.ENAMETOOLONG:
        long = max(path.split("/"), key=len)
        return SegbenchError(
            f"a name of {len(long.encode())} bytes in a path: {long[:60]}...",
            "names of up to 255 bytes",
            "shorten hydra.run.dir or hydra.sweep.subdir: ${hydra:job.num}, or leave keys out of override_dirname with "
            "hydra.job.config.override_dirname.exclude_keys=[KEY]",
        )
    return SegbenchError(
        f"{path}: {error.strerror or error}",
        "a path that this user can read, or create and fill",
        "correct the path (of a run hydra.run.dir=DIR), or its permissions",
    )


def _of_yaml(error: yaml.MarkedYAMLError) -> SegbenchError:
    mark = error.problem_mark
    place = f"{mark.name}, line {mark.line + 1}: " if mark is not None else ""
    return SegbenchError(f"{place}{error.problem or 'not YAML'}", "valid YAML", "correct that line")
