"""Pages generated from the code: networks, configuration, modules, the ledger, and what readers and commands make."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

from gallery import shown
from mkdocs.structure.files import File, Files
from network_pages import network_pages
from tutorial import followed

from segbench.papers import ledger

REPO = Path(__file__).resolve().parents[2]
CONF = REPO / "conf"
HOME, GALLERY, TUTORIAL = "index.md", "data/gallery.md", "tutorials/own_images.md"
QUICK = "SEGBENCH_DOCS_WITHOUT_RUNS"
"""Set to build the site in seconds: without cards, and without the tutorial's output and pictures."""
PACKAGE = REPO / "src" / "segbench"


def on_config(config: Any) -> Any:
    """Write the generated sections into the navigation."""
    made = {"networks/": network_pages(), "config/": config_pages(), "api/": api_pages()}
    config["generated_pages"] = {path: text for pages in made.values() for path, text in pages.items()}
    config["filled_pages"] = {}
    for path, fill in ((GALLERY, shown), (TUTORIAL, followed)) if QUICK not in os.environ else ():
        text, pictures = fill((REPO / "docs" / path).read_text(), Path(path).stem)
        config["filled_pages"][path] = text
        folder = Path(path).parent
        config["generated_pages"] |= {f"{folder}/{name}": content for name, content in pictures.items()}
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


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Fill the pages whose text is partly generated."""
    filled: str = config["filled_pages"].get(page.file.src_uri, markdown)
    if page.file.src_uri == HOME:
        filled = filled.replace("<!-- ledger -->", ledger.markdown(ledger.read_rows(ledger.default_folder())))
    return filled


def config_pages() -> dict[str, str]:
    """A page for each axis: every option with its header and its keys."""
    commands = sorted(path for path in CONF.glob("*.yaml"))
    text = (
        "# Configuration\n\nEvery key is in one of these files. `segbench train --cfg job` shows the composed config.\n"
    )
    for path in commands:
        text += f"\n## segbench {path.stem}\n\n```yaml\n{path.read_text()}```\n"
    pages = {"config/index.md": text}
    for folder in sorted({path.parent for path in CONF.glob("*/**/*.yaml")}):
        axis = folder.relative_to(CONF).as_posix()
        text = f"# {axis}\n\n{_use(axis)}\n"
        # What can be picked comes first, then what it is made of.
        for path in sorted(folder.glob("*.yaml"), key=lambda each: (each.stem.startswith("_"), each.stem)):
            chosen = f"`{axis}={path.stem}`" if not path.stem.startswith("_") else f"shared by others: {path.stem}"
            if axis in _NO_AXES:
                chosen = f"`conf/{axis}/{path.name}`"
            text += f"\n## {chosen}\n\n```yaml\n{path.read_text()}```\n"
        pages[f"config/{axis.replace('/', '_')}.md"] = text
    return pages


_NO_AXES = {
    "run_directory": "Where runs are written: part of every command, not an axis.",
    "sweep": "Searches for the W&B agent: run `wandb sweep FILE`. Not an axis of `segbench train`.",
}


def _use(axis: str) -> str:
    how = f"`{axis}=NAME` picks one; `segbench train --cfg job` shows the whole composed config."
    return _NO_AXES.get(axis, how)


def api_pages() -> dict[str, str]:
    """The commands as functions, and a page for each package whose parts a user's own classes meet."""
    folders = [PACKAGE / name for name in _OF_USERS]
    files = {_dotted(folder): [folder / "__init__.py", *sorted(folder.glob("[!_]*.py"))] for folder in folders}
    files = {"spec": [PACKAGE / "spec.py"], "errors": [PACKAGE / "errors.py"]} | files
    pages = {
        f"api/{name}.md": f"# {name}\n\n" + "\n".join(f"::: segbench.{_dotted(path)}\n" for path in paths)
        for name, paths in files.items()
    }
    rows = [f"| [`segbench.{name}`]({name}.md) | {_first_line(paths[0])} |" for name, paths in files.items()]
    text = (
        "# API\n\n`import segbench` gives the commands as functions. `examples/python_api.py` and "
        "`examples/notebook.ipynb` go the whole way; [Your own code](../own_code.md#from-python) shows each in "
        "a line.\n"
    )
    face = "".join(f"\n::: segbench.{name}\n" for name in _FACE)
    compare = "\n::: segbench.compare.comparing.compare\n"
    further = "\n## What your own classes meet\n\n| package | |\n| --- | --- |\n" + "\n".join(rows) + "\n"
    return {"api/index.md": text + face + compare + further} | pages


_FACE = (
    *("api.compose", "api.train", "api.evaluate", "api.load", "experiment.predictor.Predictor"),
    *("experiment.predictor.Prediction", "api.build", "api.Parts"),
)
"""What `segbench` itself offers; `segbench.compare` is in its own package."""
_OF_USERS = ("data", "models", "losses", "metrics", "inference", "compare")
"""Packages whose classes a config or a user's own code names; the others are the program's inside."""


def _dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def _first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
