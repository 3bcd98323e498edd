"""Errors of Hydra, OmegaConf and the operating system in three parts, with the name that was meant."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from segbench.errors import FULL, SegbenchError, memory_ran_out, not_given

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override

_PLUGINS = {
    "hydra/launcher": {
        **dict.fromkeys(("joblib",), "hydra-joblib-launcher"),
        **dict.fromkeys(("submitit_local", "submitit_slurm"), "hydra-submitit-launcher"),
        **dict.fromkeys(("ray", "ray_aws"), "hydra-ray-launcher"),
        **dict.fromkeys(("rq",), "hydra-rq-launcher"),
    },
    "hydra/sweeper": {"ax": "hydra-ax-sweeper", "nevergrad": "hydra-nevergrad-sweeper"},
}
"""Packages of Hydra's own options that are not installed with it."""
_SHOWS = "segbench train --cfg job shows every key"


@dataclass(frozen=True)
class Composing:
    """What was being composed.

    Attributes:
        loader: of the Hydra application.
        config_name: the config at the top.
        overrides: of the command line.
    """

    loader: ConfigLoader
    config_name: str
    overrides: tuple[str, ...]

    def parsed(self) -> list[Override]:
        """The overrides that can be read."""
        from hydra.core.override_parser.overrides_parser import OverridesParser
        from hydra.errors import HydraException

        parser, read = OverridesParser.create(config_loader=self.loader), []
        for override in self.overrides:
            try:
                read += parser.parse_overrides([override])
            except HydraException:
                continue
        return read

    def of(self, key: str) -> str | None:
        """The override of a key, as typed."""
        return next((text for text in self.overrides if text.lstrip("+~").partition("=")[0] == key), None)

    def options(self, group: str) -> list[str]:
        """The options of a group; empty if there is no such group."""
        try:
            # The top of the configs is not a group.
            return (
                [] if not group else [name for name in self.loader.get_group_options(group) if not name.startswith("_")]
            )
        except OSError:
            return []

    def keys(self) -> tuple[list[str], list[str]]:
        """The axes, and the keys that the picked options have, nested ones dotted."""
        from hydra.types import RunMode
        from omegaconf import OmegaConf

        parsed = [each for each in self.parsed() if not each.is_sweep_override() and not each.is_delete()]
        picks = [each for each in parsed if isinstance(each.value(), str) and self.options(each.key_or_group)]
        for chosen in ([each.input_line or "" for each in picks], []):
            try:
                config = self.loader.load_configuration(self.config_name, chosen, RunMode.RUN)
                axes = [str(axis) for axis in config.hydra.runtime.choices]
                return axes, list(_dotted(OmegaConf.to_container(config, resolve=False)))
            except Exception:
                # Another override may be wrong too; names are still suggested without it.
                continue
        return [], []

    def meant(self, key: str) -> str | None:
        """The axis or key that was probably meant; Hydra's own where one of them is given."""
        from segbench.config.own_targets import TRAINER

        axes, keys = self.keys()
        names = [
            name
            for name in (*axes, *keys, *(f"trainer.{name}" for name in TRAINER))
            if name.startswith("hydra") == key.startswith("hydra")
        ]
        return near(key, [name for name in names if name != key])


def _dotted(node: Any, above: str = "") -> Iterator[str]:
    if isinstance(node, Mapping):
        for name, value in node.items():
            key = f"{above}.{name}" if above else str(name)
            yield key
            yield from _dotted(value, key)


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
        return SegbenchError(_joined(error), "settings that Lightning takes together", "correct what it names")
    if isinstance(error, ModuleNotFoundError) and error.name is None:
        # Raised in words, by a class that needs a package which is not there.
        return SegbenchError(_joined(error), "the packages that what the config names needs", "install it")
    # Cheap here: an error of theirs means that both are imported.
    from hydra.errors import CompactHydraException, HydraException, InstantiationException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, OmegaConfBaseException):
        return _of_value(error, composing)
    if not isinstance(error, HydraException) or isinstance(error, InstantiationException):
        return _of_option(composing) if composing is not None and "Config group override" in str(error) else None
    if not str(error) and error.__cause__ is not None:
        return explained(error.__cause__, composing)
    if composing is not None and isinstance(error, CompactHydraException):
        return _of_composition(error, composing)
    return SegbenchError(_joined(error), "a config that can be composed", _SHOWS)


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
        f"({_joined(error)}), and torchmetrics and lightning import it",
        "no torchvision, which segbench does not need, or the build that belongs to this torch",
        "pip uninstall torchvision, or install both from one index",
    )


def of_hydra(error: Exception, config_name: str) -> SegbenchError:
    """An error inside Hydra, in three parts."""
    if isinstance(error, RecursionError):
        return SegbenchError(
            "configs that build on one another in a circle",
            "a file that builds on others, not on itself",
            "check the defaults of your own files: one named like a packaged file replaces it",
        )
    if isinstance(error, UserWarning):
        return SegbenchError(_joined(error), "existing folders", "correct hydra.searchpath=")
    return SegbenchError(
        f"{type(error).__name__}: {_joined(error)}",
        "overrides that Hydra can compose",
        f"correct the command; segbench {config_name} --help lists keys and options, HYDRA_FULL_ERROR=1 the traceback",
    )


def _joined(error: BaseException) -> str:
    text = str(error).split("\nConfig search path")[0].split("\nSee https://")[0]
    cause = error.__cause__
    return " ".join((text if cause is None or not str(cause) else f"{text}: {str(cause).splitlines()[0]}").split())


def near(name: str, names: Sequence[str]) -> str | None:
    """The name that was probably meant; of dotted ones also that with the same last part."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.75)
    last = [each for each in names if "." in each and each.rpartition(".")[2] == name.rpartition(".")[2]]
    return next(iter([*close, *last, *difflib.get_close_matches(name, names, n=1)]), None)


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


def _of_value(error: Any, composing: Composing | None) -> SegbenchError:
    from omegaconf import MissingMandatoryValue

    key = str(getattr(error, "full_key", None) or "")
    text = str(error).splitlines()[0]
    if isinstance(error, MissingMandatoryValue):
        return not_given(key)
    given = (composing and composing.of(key)) or key or "a value"
    if variable := re.search(r"Environment variable '(.*?)' not found", text):
        name = variable[1]
        return SegbenchError(
            f"{given}: the environment variable {name} is not set",
            "a variable that is set, or a default for it",
            f"export {name}=..., or write ${{oc.env:{name},DEFAULT}}",
        )
    if missing := re.search(r"Interpolation key '(.*?)' not found", text):
        meant = composing.meant(missing[1]) if composing is not None else None
        return SegbenchError(
            f"{given}: no key {missing[1]}",
            "an interpolation of a key that the config has",
            f"did you mean ${{{meant}}}?" if meant else _SHOWS,
        )
    return SegbenchError(f"{given}: {text}", "a value that can be resolved", f"correct {key or 'it'}; {_SHOWS}")


def _of_composition(error: Any, composing: Composing) -> SegbenchError:
    from hydra.errors import MissingConfigException, OverrideParseException

    if isinstance(error, OverrideParseException):
        return _of_grammar(error.override, _joined(error), composing)
    if isinstance(error, MissingConfigException):
        return _of_missing(error, composing)
    for pattern, explain in _KNOWN.items():
        if found := re.search(pattern, str(error)):
            return explain(found, composing)
    return SegbenchError(_joined(error), "overrides that can be composed", _SHOWS)


def _of_grammar(override: str, text: str, composing: Composing) -> SegbenchError:
    if "=" not in override.lstrip("~+"):
        group = next((axis for axis in composing.keys()[0] if override in composing.options(axis)), None)
        action = f"did you mean {group}={override}?" if group else f"write {override or 'KEY'}=VALUE"
        return SegbenchError(override or "an empty override", "overrides of the form key=value", action)
    key, _, value = override.partition("=")
    reason = text.removeprefix(f"Error parsing override '{override}' ")
    return SegbenchError(
        f"{override}, which Hydra cannot read: {reason}",
        "key=value; a list as [1,2], a mapping as {a: 1}, text with spaces or any of ,=:()[]{} in quotes",
        f"correct it, or quote the text: {key}='\"{value}\"'",
    )


def _of_missing(error: Any, composing: Composing) -> SegbenchError:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    options = composing.options(group) if group else []
    if not options:
        action = "correct its name; segbench list shows the existing ones" if group else "correct --config-name"
        return SegbenchError(_joined(error), "an existing config", action)
    parent = re.match(r"In '(.*?)': ", str(error))
    where = f" (defaults of {parent[1]})" if parent and parent[1] not in (composing.config_name, "hydra/config") else ""
    where = where or ("" if composing.of(group) else " (defaults of a config)")
    meant = near(name, options)
    action = f"did you mean {group}={meant}?" if meant else f"segbench list {group}"
    if package := _PLUGINS.get(group, {}).get(name):
        action = f"pip install {package}, or leave out {group}="
        action += "; hydra.launcher.jobs=N runs N jobs at once" if group == "hydra/launcher" else ""
    return SegbenchError(f"no {group}={name}{where}", f"one of {', '.join(options)}", action)


def _of_option(composing: Composing) -> SegbenchError:
    """A group's option that is not a name, such as null."""
    if nameless := next((text for text in composing.overrides if text.startswith("=")), None):
        return SegbenchError(nameless, "overrides of the form key=value", f"write KEY{nameless}")
    given = [each for each in composing.parsed() if composing.options(each.key_or_group)]
    # In a sweep a null stands among other values.
    wrong = [each for each in given if each.is_sweep_override() or not isinstance(each.value(), (str, list, dict))]
    group, line = (wrong[0].key_or_group, wrong[0].input_line) if wrong else ("a group", "a group without an option")
    options = composing.options(group)
    meant = difflib.get_close_matches("none", options, n=1, cutoff=0.9)
    leave = f"leave out {group}=, or pick one; segbench list {group.rpartition('/')[2]} describes them"
    return SegbenchError(
        f"{line}, which is not an option",
        f"one of {', '.join(options)}" if options else "an option of the group",
        f"did you mean {group}={meant[0]}?" if meant else leave,
    )


def _unknown(found: re.Match[str], composing: Composing) -> SegbenchError:
    key = found[1].split("@")[0]
    keys = composing.keys()[1]
    given = composing.of(found[1]) or key
    value = given.partition("=")[2] or "..."
    parent = key.rpartition(".")[0]
    while parent and parent not in keys:
        parent = parent.rpartition(".")[0]
    beside = [each.removeprefix(f"{parent}.") for each in keys if each.startswith(f"{parent}.")] if parent else []
    beside = [each for each in beside if "." not in each and not each.startswith("_")]
    if parent and not beside:
        inside = "".join(f"{part}: {{" for part in key.removeprefix(f"{parent}.").split(".")[:-1])
        whole = f"{parent}={{{inside}{key.rpartition('.')[2]}: {value}{'}' * inside.count('{')}}}"
        return SegbenchError(
            f"no {key} in the config ({given}): {parent} is null or a single value",
            f"a value for the whole of {parent}",
            f"write '{whole}', with all that belongs to it",
        )
    expected = f"a key of {parent}: {', '.join(beside)}" if beside else "a key of the config, or an axis of it"
    meant = composing.meant(key)
    action = f"did you mean {meant}={value}?" if meant else f"{_SHOWS}; +{key}={value} adds one that its class takes"
    return SegbenchError(f"no {key} in the config ({given})", expected, action)


def _not_deleted(found: re.Match[str], composing: Composing) -> SegbenchError:
    key = found[1].partition("=")[0]
    meant = composing.meant(key)
    action = f"did you mean ~{meant}?" if meant else f"leave out ~{key}"
    return SegbenchError(f"~{key}: no {key} in the config", "a key of the config", action)


def _already(found: re.Match[str], composing: Composing) -> SegbenchError:
    key = found[1]
    given = (composing.of(key) or key).lstrip("+")
    return SegbenchError(f"+{given}: {key} exists already", "+ with new keys only", f"write {given}")


def _several(found: re.Match[str], composing: Composing) -> SegbenchError:
    key, _, values = found[1].partition("=")
    return SegbenchError(
        f"{found[1]}: several values for one run",
        "one value, or a sweep",
        f"segbench {composing.config_name} -m {found[1]} for a sweep; '{key}=[{values}]' for a list",
    )


_KNOWN: dict[str, Callable[[re.Match[str], Composing], SegbenchError]] = {
    r"Could not override '(.*?)'": _unknown,
    r"config group '(.*?)' does not exist": _unknown,
    r"Could not delete (?:'|from config\. ')(.*?)'": _not_deleted,
    r"An item is already at '(.*?)'": _already,
    r"Ambiguous value for argument '(.*?)'\n": _several,
    r"Sweep parameters '(.*?)' requires": _several,
}
"""What Hydra reports, and how it is explained."""
