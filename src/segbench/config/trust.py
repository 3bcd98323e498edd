"""Trust: what a config may name.

A user's own configs (the command line, `--config-dir`, Python) are a program and may name anything. A config that is
handed over, out of a run directory, a sweep or a checkpoint, is data: it may name what the packaged configs name,
classes of the kinds that the axes take out of installed packages, and names that the user trusts.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from segbench.config.packaged import conf_root, read_yaml
from segbench.errors import SegbenchError, as_typed

VARIABLE = "SEGBENCH_TARGETS"
"""Names joined by commas that handed-over configs may use, for this process and its children."""
KINDS = (
    "torch.nn.modules.module.Module",
    "torch.optim.optimizer.Optimizer",
    "torch.optim.lr_scheduler.LRScheduler",
    "albumentations.core.transforms_interface.BasicTransform",
    "albumentations.core.composition.BaseCompose",
    "lightning.pytorch.callbacks.callback.Callback",
    "lightning.fabric.loggers.logger.Logger",
    "lightning.pytorch.strategies.strategy.Strategy",
    "lightning.pytorch.profilers.profiler.Profiler",
    "segbench.metrics.measure.Measure",
    "segbench.data.raw.DataSet",
)
"""The classes whose subclasses the axes take."""
_WRITING = ("callbacks", "logger", "trainer", "loss", "optimizer", "scheduler", "metrics")
"""Sections whose parts may write files or send something. Paths of data, networks and weights are read."""
_PLACE = re.compile(r"(^|_)(dir|dirpath|directory|path|folder|root|uri|url|host|space_id)$")
"""Arguments that name a place, whatever they hold."""
_PROTOCOLS = (("infos", "counts", "scores"), ("spec", "split"))
"""What a measure and a data set have that are subclasses of neither."""
_trusted: ContextVar[frozenset[str]] = ContextVar("trusted", default=frozenset())
_asked: ContextVar[tuple[str, tuple[str, ...]]] = ContextVar("asked", default=("", ()))
_reading: ContextVar[bool] = ContextVar("reading", default=False)


def targets_in(config: Any) -> Iterator[str]:
    """Every `_target_` inside nested containers."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            if key == "_target_":
                yield str(value)
            else:
                yield from targets_in(value)
    elif isinstance(config, (list, tuple)):
        for value in config:
            yield from targets_in(value)


def places_in(config: Any) -> Iterator[tuple[str, str]]:
    """Dotted keys and values of places that a training with a config may write to, or send to.

    Args:
        config: nested, plain containers; a whole config.
    """
    for section in _WRITING if isinstance(config, Mapping) else ():
        for key, value in _texts(section, config.get(section)):
            if value and key != "trainer.default_root_dir" and _is_place(key, value):
                yield key, value


def _texts(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """Strings inside nested containers, lists of lists too, by the keys of `flatten`."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _texts(f"{key}.{name}", each)
    elif isinstance(value, (list, tuple)):
        numbered = any(isinstance(each, Mapping) for each in value)
        for number, each in enumerate(value):
            yield from _texts(f"{key}.{number}" if numbered else key, each)
    elif isinstance(value, str):
        yield key, value


def _is_place(key: str, value: str) -> bool:
    leads = value.startswith(("/", "~", "\\")) or "://" in value or ".." in re.split(r"[/\\]", value)
    # A positional argument may be any of a class's, so also a place.
    return leads or "_args_" in key.split(".") or _PLACE.search(key.rpartition(".")[2]) is not None


@contextlib.contextmanager
def trusting(names: Iterable[str]) -> Iterator[None]:
    """Trust some exact names within the block, and in the processes that are started there."""
    token = _trusted.set(_trusted.get() | {name for name in names if name})
    try:
        yield
    finally:
        _trusted.reset(token)


@contextlib.contextmanager
def own(*configs: Any) -> Iterator[None]:
    """Trust what a user's own configs name within the block, classes and places: nested, plain containers."""
    places = (key for config in configs for key, _ in places_in(config))
    with trusting([] if _reading.get() else [*targets_in(configs), *places]):
        yield


@contextlib.contextmanager
def handed_over() -> Iterator[None]:
    """Within the block no config is the user's own: what is composed is a command read from a file."""
    token = _reading.set(True)
    try:
        yield
    finally:
        _reading.reset(token)


@cache
def packaged_targets() -> frozenset[str]:
    """What the packaged configs name."""
    return frozenset(target for path in conf_root().rglob("*.yaml") for target in targets_in(read_yaml(path)))


def added_targets() -> frozenset[str]:
    """The exact names trusted now beside the packaged ones: children inherit them as `SEGBENCH_TARGETS`."""
    given = (name.strip() for name in os.environ.get(VARIABLE, "").split(","))
    return (_trusted.get() | {name for name in given if name}) - packaged_targets()


def is_trusted(target: str) -> bool:
    """Whether a config may name a target here: packaged, trusted by name, or an installed class of an axis's kind."""
    return target in packaged_targets() or target in added_targets() or _is_installed_kind(target)


def refuse_untrusted(config: Any) -> None:
    """Refuse targets that are not trusted, wherever they stand.

    Args:
        config: nested, plain containers.

    Raises:
        SegbenchError: lists them, and the command that trusts them.
    """
    foreign = [target for target in dict.fromkeys(targets_in(config)) if not is_trusted(target)]
    if foreign:
        raise SegbenchError(
            f"_target_: {', '.join(foreign)}, which a config that was handed over may not name",
            "a packaged target, or a network, loss, optimiser, schedule, transform, callback, logger, metric or data "
            "set that is a class of an installed package",
            f"if you trust the code of that name: {_trusts(foreign)}",
        )


def refuse_handed_over(configs: Sequence[Mapping[str, Any]]) -> None:
    """As `refuse_untrusted`, and refuse places that a training with such configs would write or send to.

    Args:
        configs: whole ones, nested, plain containers.

    Raises:
        SegbenchError: lists them, and the command that trusts them.
    """
    refuse_untrusted(configs)
    found = dict(place for config in configs for place in places_in(config))
    if foreign := {key: value for key, value in found.items() if key not in added_targets()}:
        named = ", ".join(f"{key}={value}" for key, value in foreign.items())
        raise SegbenchError(
            f"{named}: a place that a config which was handed over may not write or send to",
            "the run's own directory: paths out of a config are for reading data and weights",
            f"if you trust that place: {_trusts(list(foreign))}",
        )


def _trusts(names: Sequence[str]) -> str:
    """The command that trusts further names."""
    again, given = _asked.get()
    joined = ",".join([*given, *names])
    # Names out of a config are a stranger's.
    listed = f"[{joined}]" if "," in joined else joined
    return f"{again} {as_typed('trust', listed)}" if again else f"set {VARIABLE}={as_typed(joined)}"


@contextlib.contextmanager
def asked(by: str, names: Iterable[str] = ()) -> Iterator[None]:
    """Within the block, errors repeat what was asked for, with `trust=` and the names that it lacks.

    Args:
        by: a command or a call that takes `trust=`, without it.
        names: those that it trusts already.
    """
    token = _asked.set((by, tuple(names)))
    try:
        yield
    finally:
        _asked.reset(token)


@contextlib.contextmanager
def typed(verb: str, arguments: Sequence[str]) -> Iterator[None]:
    """`asked` by a command line."""
    given = [word for word in arguments if word.startswith("trust=")]
    names = names_in(",".join(word.removeprefix("trust=").strip("[]") for word in given))
    with asked(shlex.join(["segbench", verb, *(word for word in arguments if word not in given)]), names):
        yield


def names_in(given: str | Iterable[str] | None) -> tuple[str, ...]:
    """The names of a value of `trust=`: one, a list, or several joined by commas."""
    listed = given.strip("[] ").split(",") if isinstance(given, str) else given or ()
    return tuple(name.strip() for name in listed if name.strip())


@cache
def _is_installed_kind(target: str) -> bool:
    # Nothing is imported before its file is known to be an installed one; a package's __main__ is a program.
    if not all(part.isidentifier() and not part.startswith("__") for part in target.split(".")):
        return False
    if not _is_installed(target.partition(".")[0]):
        return False
    try:
        found = resolve_name(target)
    except (ImportError, AttributeError, ValueError):
        return False
    if not isinstance(found, type):
        return False
    names = {f"{base.__module__}.{base.__qualname__}" for base in found.__mro__}
    return bool(names & set(KINDS)) or any(all(hasattr(found, name) for name in each) for each in _PROTOCOLS)


@cache
def _is_installed(top: str) -> bool:
    """Whether a module at the top is a file that an installed distribution lists, this package's own included."""
    if top == "segbench":
        return True
    loaded = sys.modules.get(top)
    try:
        spec = getattr(loaded, "__spec__", None) or importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return False
    origin = Path(spec.origin)
    root = origin.parents[1] if spec.submodule_search_locations else origin.parent
    line = f"{origin.relative_to(root).as_posix()},"
    records = root.glob("*.dist-info/RECORD")
    return any(f"\n{line}" in f"\n{record.read_text(errors='replace')}" for record in records)
