"""Pages that are made from what they describe: networks, configuration and modules."""

from __future__ import annotations

import os
import pkgutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from mkdocs.structure.files import File, Files
from network_pages import network_pages

REPO = Path(__file__).resolve().parents[2]
CONF = REPO / "conf"


def on_config(config: Any) -> Any:
    """Write the generated sections into the navigation."""
    made = {"networks/": network_pages(), "config/": config_pages(), "api/": api_pages()}
    config["generated_pages"] = {path: text for pages in made.values() for path, text in pages.items()}
    for entry in config["nav"]:
        if isinstance(entry, dict):
            for title, target in entry.items():
                if isinstance(target, str) and target in made:
                    entry[title] = [path for path in made[target] if path.endswith(".md")]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    for path, text in config["generated_pages"].items():
        files.append(File.generated(config, path, content=text))
    return files


def config_pages() -> dict[str, str]:
    """A page an axis: every option with its header and its keys."""
    commands = sorted(path for path in CONF.glob("*.yaml"))
    text = (
        "# Configuration\n\nEvery key stands in one of these files; `segbench train --cfg job` shows them composed.\n"
    )
    for path in commands:
        text += f"\n## segbench {path.stem}\n\n```yaml\n{path.read_text()}```\n"
    pages = {"config/index.md": text}
    for folder in sorted({path.parent for path in CONF.glob("*/**/*.yaml")}):
        axis = folder.relative_to(CONF).as_posix()
        text = f"# {axis}\n\n{_use(axis)}\n"
        # What can be picked first, then what it is made of.
        for path in sorted(folder.glob("*.yaml"), key=lambda each: (each.stem.startswith("_"), each.stem)):
            chosen = f"`{axis}={path.stem}`" if not path.stem.startswith("_") else f"shared by others: {path.stem}"
            if axis in _NO_AXES:
                chosen = f"`conf/{axis}/{path.name}`"
            text += f"\n## {chosen}\n\n```yaml\n{path.read_text()}```\n"
        pages[f"config/{axis.replace('/', '_')}.md"] = text
    return pages


_NO_AXES = {
    "run_directory": "Where runs go: part of every command, and nothing to pick.",
    "sweep": "Searches for the agent of W&B: `wandb sweep FILE`, not an axis of `segbench train`.",
}


def _use(axis: str) -> str:
    how = f"`{axis}=NAME` picks one; `segbench train --cfg job` shows what it comes to with all other axes."
    return _NO_AXES.get(axis, how)


def api_pages() -> dict[str, str]:
    """A page a package or module, its members from the docstrings."""
    import segbench

    pages = {
        "api/index.md": "# API\n\nWhat can be used from Python, by module; the docstrings give shapes and types.\n"
    }
    for module in pkgutil.iter_modules(segbench.__path__, "segbench."):
        name = module.name.removeprefix("segbench.")
        if name == "bench":
            continue
        modules = [module.name]
        if module.ispkg:
            folder = Path(segbench.__path__[0]) / name
            modules += [inner.name for inner in pkgutil.iter_modules([str(folder)], f"{module.name}.")]
        blocks = "\n".join(f"::: {each}\n" for each in modules)
        pages[f"api/{name}.md"] = f"# {name}\n\n{blocks}"
    return pages
