"""`segbench schema DIR [--config-dir DIR]`: JSON schemas of config files, for an editor's completion and checks."""

from __future__ import annotations

import json
import os
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from segbench.cli.arguments import write_output
from segbench.cli.flags import Parser
from segbench.config.installed import roots
from segbench.errors import SegbenchError, say


def main() -> None:
    """The entry point; sys.argv holds the folder."""
    parser = Parser("segbench schema", description="JSON schemas of config files, for an editor.")
    parser.add_argument("output", type=Path, metavar="DIR", help="where they are written, a file for each axis")
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="your own configs, whose classes are known too")
    given = parser.parse_args()
    own: Path | None = given.config_dir
    if own is not None and not own.is_dir():
        raise SegbenchError(f"no folder {own}", "a config directory", "correct --config-dir")
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    from segbench.config.requests import RECORDS
    from segbench.config.schema import CONFIG, schemas

    made = schemas(roots(own))
    made |= {"hydra_launcher": _of_launcher(), "hydra_sweeper": _of_sweepers()}
    for name, schema in made.items():
        write_output(given.output / f"{name}.json", json.dumps(schema) + "\n")
    folder = own or Path("FOLDER")
    files = {
        name: f"{folder}/{name}.yaml" if name in RECORDS else f"{folder}/{name.replace('_', '/')}/*.yaml"
        for name in made
    }
    files[CONFIG] = f"{folder}/experiment/*.yaml"
    settings = ",\n".join(f'  "{given.output}/{name}.json": "{place}"' for name, place in files.items())
    say(f"{len(made)} schemas in {given.output}; for VS Code, in .vscode/settings.json:")
    say(f'"yaml.schemas": {{\n{settings}\n}}')
    say("or as the first line of a file, from where it is:")
    say(f"# yaml-language-server: $schema=../../{given.output}/optimizer.json")


def _of_launcher() -> dict[str, Any]:
    from segbench.sweep.settings import Launching
    from segbench.sweep.slurm import SlurmOptions

    launcher = _settings(Launching)
    launcher["properties"]["slurm"] = _settings(SlurmOptions)
    whole = {"defaults": True, "launcher": launcher, "callbacks": True}
    return {"type": "object", "properties": whole, "additionalProperties": False}


def _of_sweepers() -> dict[str, Any]:
    from segbench.sweep.search import Searching

    searching = _settings(Searching)
    return {**searching, "properties": {**searching["properties"], "max_batch_size": {"type": ["integer", "null"]}}}


def _settings(kind: type) -> dict[str, Any]:
    assert is_dataclass(kind)
    made = TypeAdapter(kind).json_schema()
    properties = {field.name: made["properties"].get(field.name, True) for field in fields(kind)}
    return {"type": "object", "properties": {"_target_": True, **properties}, "additionalProperties": False}
