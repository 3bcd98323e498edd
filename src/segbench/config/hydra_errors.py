"""Errors of Hydra and OmegaConf in three parts, with the name that was meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segbench.errors import SegbenchError, not_given

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
SHOWS = "segbench train --cfg job shows every key"


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


def of_hydra(error: Exception, config_name: str) -> SegbenchError:
    """An error inside Hydra, in three parts."""
    if isinstance(error, RecursionError):
        return SegbenchError(
            "configs that build on one another in a circle",
            "a file that builds on others, not on itself",
            "check the defaults of your own files: one named like a packaged file replaces it",
        )
    if isinstance(error, UserWarning):
        return SegbenchError(joined(error), "existing folders", "correct hydra.searchpath=")
    return SegbenchError(
        f"{type(error).__name__}: {joined(error)}",
        "overrides that Hydra can compose",
        f"correct the command; segbench {config_name} --help lists keys and options, HYDRA_FULL_ERROR=1 the traceback",
    )


def joined(error: BaseException) -> str:
    """An error in one line, with its cause, without what Hydra adds."""
    text = str(error).split("\nConfig search path")[0].split("\nSee https://")[0]
    cause = error.__cause__
    return " ".join((text if cause is None or not str(cause) else f"{text}: {str(cause).splitlines()[0]}").split())


def near(name: str, names: Sequence[str]) -> str | None:
    """The name that was probably meant; of dotted ones also that with the same last part."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.75)
    last = [each for each in names if "." in each and each.rpartition(".")[2] == name.rpartition(".")[2]]
    return next(iter([*close, *last, *difflib.get_close_matches(name, names, n=1)]), None)


def of_value(error: Any, composing: Composing | None) -> SegbenchError:
    """An error of OmegaConf."""
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
            f"did you mean ${{{meant}}}?" if meant else SHOWS,
        )
    return SegbenchError(f"{given}: {text}", "a value that can be resolved", f"correct {key or 'it'}; {SHOWS}")


def of_composition(error: Any, composing: Composing) -> SegbenchError:
    """An error of overrides, or of the configs that they pick."""
    from hydra.errors import MissingConfigException, OverrideParseException

    if isinstance(error, OverrideParseException):
        return _of_grammar(error.override, joined(error), composing)
    if isinstance(error, MissingConfigException):
        return _of_missing(error, composing)
    for pattern, explain in _KNOWN.items():
        if found := re.search(pattern, str(error)):
            return explain(found, composing)
    return SegbenchError(joined(error), "overrides that can be composed", SHOWS)


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
        return SegbenchError(joined(error), "an existing config", action)
    parent = re.match(r"In '(.*?)': ", str(error))
    where = f" (defaults of {parent[1]})" if parent and parent[1] not in (composing.config_name, "hydra/config") else ""
    where = where or ("" if composing.of(group) else " (defaults of a config)")
    meant = near(name, options)
    action = f"did you mean {group}={meant}?" if meant else f"segbench list {group}"
    if package := _PLUGINS.get(group, {}).get(name):
        action = f"pip install {package}, or leave out {group}="
        action += "; hydra.launcher.jobs=N runs N jobs at once" if group == "hydra/launcher" else ""
    return SegbenchError(f"no {group}={name}{where}", f"one of {', '.join(options)}", action)


def of_option(composing: Composing) -> SegbenchError:
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
    action = f"did you mean {meant}={value}?" if meant else f"{SHOWS}; +{key}={value} adds one that its class takes"
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
