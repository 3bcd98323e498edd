"""What modules define and what classes take, read from their source: nothing is imported, so it is quick."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_DEFINED = (ast.ClassDef, ast.FunctionDef)
_Definition = ast.ClassDef | ast.FunctionDef
_DEEP = 12
"""Imports and base classes that are followed one after another."""


def arguments(target: str) -> list[str]:
    """The names of the arguments of a class or function, its base classes' if it passes any on.

    Args:
        target: its dotted name.

    Returns:
        empty if its source is not found or takes none.
    """
    found = _found(*_split(target), _DEEP)
    return [] if found is None else list(dict.fromkeys(_taken(*found, _DEEP)))


def names(prefix: str) -> list[str]:
    """The dotted names that begin like this: modules and packages with a dot at the end, classes and functions.

    Args:
        prefix: `torch.optim.RA`.
    """
    above, _, last = prefix.rpartition(".")
    if not above:
        return sorted(f"{name}." for name in _tops() if name.startswith(last))
    found = set[str]()
    if (file := _file(above)) is not None:
        found |= {name for name in _members(above, _DEEP) if name[:1] != "_"}
        if file.name == "__init__.py":
            inside = (path for path in file.parent.iterdir() if not path.name.startswith(("_", ".")))
            found |= {f"{path.stem}." for path in inside if path.suffix == ".py" or (path / "__init__.py").is_file()}
    return sorted(f"{above}.{name}" for name in found if name.startswith(last))


def _tops() -> set[str]:
    folders = [Path(place or ".") for place in sys.path if Path(place or ".").is_dir()]
    paths = (path for folder in folders for path in folder.iterdir() if path.stem.isidentifier())
    return {path.stem for path in paths if path.suffix == ".py" or (path / "__init__.py").is_file()}


@cache
def _file(module: str) -> Path | None:
    """The source of a module; its packages are not imported."""
    places: list[str] | None = None
    spec = None
    for part in module.split("."):
        if places is None:
            spec = _top(part)
        else:
            spec = importlib.machinery.PathFinder.find_spec(part, places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or [])
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None


def _top(name: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None


@cache
def _tree(module: str) -> ast.Module | None:
    file = _file(module)
    try:
        return None if file is None else ast.parse(file.read_text(errors="replace"))
    except (OSError, SyntaxError, ValueError):
        return None


def _statements(module: str) -> Iterator[ast.stmt]:
    """What stands at the top of a module, within `if` and `try` too."""
    tree = _tree(module)
    left = list(tree.body) if tree is not None else []
    while left:
        each = left.pop(0)
        yield each
        if isinstance(each, (ast.If, ast.Try)):
            left += [
                *each.body,
                *each.orelse,
                *(part for handler in getattr(each, "handlers", ()) for part in handler.body),
            ]


def _source_of(module: str, statement: ast.ImportFrom) -> str:
    if not statement.level:
        return statement.module or ""
    file = _file(module)
    parts = module.split(".")
    package = parts if file is not None and file.name == "__init__.py" else parts[:-1]
    above = package[: len(package) - statement.level + 1]
    return ".".join([*above, *([statement.module] if statement.module else [])])


def _members(module: str, deep: int) -> Iterator[str]:
    """The names of classes and functions of a module, those that it imports from elsewhere included."""
    for each in _statements(module):
        if isinstance(each, _DEFINED):
            yield each.name
        elif isinstance(each, ast.ImportFrom):
            source = _source_of(module, each)
            if source.partition(".")[0] != module.partition(".")[0]:
                # What it uses of others is not what it offers.
                continue
            for alias in each.names:
                if alias.name == "*" and deep:
                    yield from _members(source, deep - 1)
                elif alias.name != "*" and _file(f"{source}.{alias.name}") is None:
                    yield alias.asname or alias.name


def _split(target: str) -> tuple[str, str]:
    module, _, name = target.rpartition(".")
    return module, name


def _found(module: str, name: str, deep: int) -> tuple[str, _Definition] | None:
    """Where a class or function is defined, through imports."""
    if not deep:
        return None
    for each in _statements(module):
        if isinstance(each, _DEFINED) and each.name == name:
            return module, each
        if isinstance(each, ast.ImportFrom):
            source = _source_of(module, each)
            for alias in each.names:
                if (alias.asname or alias.name) == name and (found := _found(source, alias.name, deep - 1)) is not None:
                    return found
                if alias.name == "*" and (found := _found(source, name, deep - 1)) is not None:
                    return found
    return None


def _taken(module: str, definition: _Definition, deep: int) -> Iterator[str]:
    if not deep:
        return
    if isinstance(definition, ast.FunctionDef):
        yield from _parameters(definition)
        return
    made = [each for each in definition.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
    if made:
        yield from list(_parameters(made[-1]))[1:]
    if not made or made[-1].args.kwarg is not None:
        for base in definition.bases:
            text = _text(base)
            found = _found(module, text, deep - 1) if "." not in text else _through(module, text, deep - 1)
            if found is not None:
                yield from _taken(*found, deep - 1)
    if not made and any(_text(each).endswith("dataclass") for each in definition.decorator_list):
        yield from _fields(definition)


def _fields(definition: ast.ClassDef) -> Iterator[str]:
    for each in definition.body:
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            if not _text(each.annotation).endswith("ClassVar"):
                yield each.target.id


def _through(module: str, dotted: str, deep: int) -> tuple[str, _Definition] | None:
    """A class named by its module: `nn.Module` where `from torch import nn`."""
    first, _, rest = dotted.partition(".")
    for each in _statements(module):
        if isinstance(each, ast.ImportFrom):
            for alias in each.names:
                if (alias.asname or alias.name) == first:
                    return _found(*_split(f"{_source_of(module, each)}.{alias.name}.{rest}"), deep)
    return _found(*_split(dotted), deep)


def _text(node: ast.expr) -> str:
    return ast.unparse(
        node.value if isinstance(node, ast.Subscript) else node.func if isinstance(node, ast.Call) else node
    )


def _parameters(function: ast.FunctionDef) -> Iterator[str]:
    given = function.args
    yield from (each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs))
