"""Every command in the README and the tutorials is one that works."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from segbench.cli.main import COMMANDS

REPO = Path(__file__).resolve().parents[2]
PAGES = [REPO / "README.md", *sorted((REPO / "docs").rglob("*.md"))]
TUTORIALS = sorted((REPO / "docs" / "tutorials").glob("*.md"))
HYDRA = {"train": "train", "evaluate": "evaluate", "predict": "predict", "export": "export"}


def commands(page):
    """The lines of a page's code blocks, and the code in its tables, that call segbench."""
    text = page.read_text()
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    lines = [line for language, block in blocks if not language for line in block.splitlines()]
    lines += re.findall(r"^\| `(segbench [^`]*)`", text, re.MULTILINE)
    return [line for line in lines if line.startswith("segbench ")]


ALL = [(page, command) for page in PAGES for command in commands(page)]


def label(value):
    return value if isinstance(value, str) else value.name


def test_the_pages_show_commands():
    assert len(ALL) > 30
    assert all(commands(page) for page in TUTORIALS)


@pytest.mark.parametrize(("page", "command"), ALL, ids=label)
def test_a_command_is_parsed_and_composed(page, command, compose):
    words = shlex.split(command, comments=True)[1:]
    assert words[0] in COMMANDS
    if words[0] == "reproduce" and "--list" not in words:
        compose(
            f"experiment={words[1]}",
            "name=x",
            *_for_hydra(words[2:], ("seeds", "folds", "output", "ledger", "allow_dirty")),
        )
    if words[0] == "data":
        assert words[1] in ("prepare", "check", "import")
    if words[0] not in HYDRA or "--config-dir" in words or "--cfg" in words or words[1:2] == ["resume=RUN"]:
        return
    composed = _for_hydra(words[1:])
    sweeper = [each for each in composed if each.startswith("hydra")]
    config = compose(*(["name=x"] if words[0] != "predict" else []), *composed, config=HYDRA[words[0]])
    assert config
    assert all(each.split("=")[0] in ("hydra/sweeper", "hydra/launcher") or "." in each for each in sweeper)


def _for_hydra(words, own=()):
    """Overrides of one job: the first value of each list."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    given = [word for word in words if not word.startswith("-") and word.split("=")[0] not in own]
    parsed = OverridesParser.create().parse_overrides(given)
    first = []
    for override in parsed:
        if override.is_sweep_override():
            value = next(iter(override.sweep_string_iterator()), None) if override.is_choice_sweep() else None
            first.append(f"{override.get_key_element()}={value if value is not None else '1e-3'}")
        else:
            first.append(override.input_line)
    return first


def build_site(folder, **environment):
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONWARNINGS": "default"} | environment
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_the_site_shows_what_readers_and_commands_make(tmp_path):
    build_site(tmp_path)
    tutorial = (tmp_path / "tutorials" / "own_images" / "index.html").read_text()
    assert "1 RGB are read as grey" in tutorial and "val/mean_iu" in tutorial and "multiples of 16" in tutorial
    assert "<code>unet_isbi_em_cpu</code>" in (tmp_path / "index.html").read_text()
    for page in (".", "tutorials/own_images", "data/gallery"):
        text = (tmp_path / page / "index.html").read_text()
        assert not re.search("<!-- (printed|picture|gallery|ledger)", text)
        for picture in re.findall(r'<img [^>]*src="([^"#]+)', text):
            assert (tmp_path / page / picture).resolve().is_file()


@pytest.fixture
def hook(monkeypatch):
    monkeypatch.syspath_prepend(REPO / "docs" / "hooks")
    return importlib.import_module


@pytest.fixture
def gallery(hook):
    return hook("gallery")


FOLLOWED = """
```python
# draw.py
import sys
from pathlib import Path
print("drawn in", Path(sys.argv[1]).resolve() / "cells")
```
```
python draw.py .   # not a word of it
```
Text between.

<!-- printed -->

```
segbench below-the-last-comment
```
"""


def test_a_page_shows_what_its_commands_print_as_printed_in_the_readers_folder(hook):
    text, pictures = hook("tutorial").followed(FOLLOWED, "beside")
    assert text == FOLLOWED.replace("<!-- printed -->", "```text\ndrawn in cells\n```\n")
    assert pictures == {}
    with pytest.raises(RuntimeError, match=r"python draw.py: exit code 1"):
        hook("tutorial").followed("```python\n# draw.py\n1 / 0\n```\n```\npython draw.py\n```\n<!-- printed -->", "")


def test_the_gallery_shows_every_kind_of_file_and_names_keys_that_exist(gallery):
    from segbench.data.files.image_files import IMAGE_SUFFIXES

    kinds = [kind for section in gallery.GALLERY.values() for kind in section]
    assert sorted(suffix for kind in kinds for suffix in kind.suffixes) == sorted(IMAGE_SUFFIXES)
    assert len({kind.slug for kind in kinds}) == len(kinds)
    keys = set(yaml.safe_load((REPO / "conf" / "data" / "image_folder.yaml").read_text()))
    for kind in kinds:
        assert set(re.findall(r"data\.(\w+)", kind.what + kind.option)) <= keys
    page = (REPO / "docs" / "data" / "gallery.md").read_text()
    assert re.findall(r"<!-- gallery (\w+) -->", page) == list(gallery.GALLERY)


@pytest.mark.parametrize(
    ("title", "told"),
    [
        ("0 and 255", "PNG, values 0 background, 255 foreground"),
        ("Palette", "PNG, palette, indices 0, 1, 2"),
        # Half the rows by a third of the columns are a sixth.
        ("GeoTIFF with nodata", "no data in 4608 pixels (16.67%) of 4 images: void, and in no mean"),
        ("GeoTIFF with nodata", "GeoTIFF, values 0, 100, 200, 255 without data"),
        ("JPEG masks", "masks/cell_0.jpg is a JPEG, whose compression changes the values of a mask"),
        ("Groups", "split by whole groups (3, data.group=[^_]+)"),
    ],
)
def test_a_card_says_what_the_reader_makes_of_its_files(gallery, title, told, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (kind,) = (kind for section in gallery.GALLERY.values() for kind in section if kind.title == title)
    pictures = {}
    assert told in gallery.card(kind, tmp_path / "files", pictures, "beside")
    assert list(pictures) == [] if kind.shows_names else [f"beside/{kind.slug}.png"]


def test_the_site_builds_strictly(tmp_path):
    build_site(tmp_path / "site", SEGBENCH_DOCS_WITHOUT_RUNS="1")
    for page in (
        "index.html",
        "networks/fcn8s/index.html",
        "config/hydra_launcher/index.html",
        "api/metrics/index.html",
    ):
        assert (tmp_path / "site" / page).is_file()
    assert "134,362,751 parameters" in (tmp_path / "site" / "networks" / "fcn8s" / "index.html").read_text()


def test_every_data_set_and_every_metric_is_told(compose):
    from segbench.config.packaged import conf_root
    from segbench.experiment.build import build_dataset, build_measures

    def options(axis):
        return [path.stem for path in (conf_root() / axis).glob("*.yaml") if not path.stem.startswith("_")]

    pages = "".join(path.read_text() for path in (REPO / "docs" / "data").glob("*.md"))
    assert [name for name in options("data") if f"data={name}" not in pages] == []
    told = (REPO / "docs" / "metrics.md").read_text()
    for axis in options("metrics"):
        # The drawn cells have no background.
        other = ["metrics.confusion.without=cell"] if axis == "overlap_background" else []
        config = compose("name=x", f"metrics={axis}", *other)
        measures = build_measures(config.metrics, build_dataset(config.data, config.weights).spec)["semantic"]
        names = [info.name for each in measures for info in each.infos() if "/" not in info.name]
        names = [name.replace("_without_cell", "_without_background") for name in names]
        # Scores at one threshold are told as endings of a name.
        assert [name for name in names if f"`{name.removesuffix('_50').removesuffix('_75')}`" not in told] == []


OWN_CODE = REPO / "docs" / "own_code.md"
FEW = (
    *("trainer=cpu", "trainer.max_steps=2", "trainer.val_check_interval=2", "threads=1", "task.channels_last=false"),
    *("data.batch_size=2", "data.tile=32", "trainer.precision=32-true"),
)
FEW_DRAWN = ("data.train=2", "data.val=1", "data.test=1", "data.height=64", "data.width=64")


@pytest.mark.parametrize(
    "command", [each for each in commands(OWN_CODE) if "resume=" not in each and "run=" not in each]
)
def test_the_recipes_for_own_code_run(command, call, tmp_path, monkeypatch):
    (module,) = re.findall(r"```python\n# mine\.py\n(.*?)```", OWN_CODE.read_text(), re.DOTALL)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "mine.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path / "lib")
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command)[1:]
    drawn = () if any(word.startswith("data") for word in words) else FEW_DRAWN
    code, out, err = call(*words, *FEW, *drawn, "model.width=4", "hydra.run.dir=run", "metrics=overlap")
    assert code == 0, out + err


MINIATURE = (
    "trainer.max_steps=2",
    "trainer.accelerator=cpu",
    "model.width=4",
    "threads=1",
    "trainer.val_check_interval=1",
    "callbacks.checkpoint.every_n_train_steps=1",
)
QUICK = (
    "model.depth=2",
    "data.train=4",
    "data.val=1",
    "data.test=2",
    "data.height=64",
    "data.width=64",
    "data.tile=64",
)


def small(command, full):
    """A command of a tutorial on a miniature, two steps long; `full` leaves it as it is."""
    words = shlex.split(command, comments=True)
    if not full and words[1] in ("train", "reproduce") and "--list" not in words:
        words = [
            word for word in words if not word.startswith(("trainer.max_steps=", "trainer.val_check", "model.width="))
        ]
        # FCN's width is a fraction.
        words += ["model.width=0.05", "data.tile=32", "data.batch_size=1"] if "data.root=VOC" in words else []
        given = {word.split("=")[0] for word in words}
        quick = QUICK if not any(word.startswith(("experiment=", "unet_")) for word in words) else ()
        words += [each for each in (*MINIATURE, *quick) if each.split("=")[0] not in given]
        # Sides that the U-Net with valid convolutions takes, and the padded one.
        words += [f"data.tile={192 if 'modern' in command else 188}"] if "reproduce" in words else []
    return words


@pytest.fixture
def folders(tmp_path, drawn_isbi, voc, monkeypatch):
    """A working directory with IMAGES and MASKS, FOLDER with the stacks of ISBI EM, and VOC."""
    import cv2

    from segbench.data.drawn_em.slices import draw_slice

    for name in ("IMAGES", "MASKS"):
        (tmp_path / name).mkdir()
    for number in range(12):
        image, instances = draw_slice(0, number, 96, 96)
        cv2.imwrite(str(tmp_path / "IMAGES" / f"{number}.png"), image)
        cv2.imwrite(str(tmp_path / "MASKS" / f"{number}.png"), (instances > 0).astype("uint8"))
    (tmp_path / "FOLDER").symlink_to(drawn_isbi)
    (tmp_path / "VOC").symlink_to(voc)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def follow(page, full=False):
    """Save the files of a tutorial and run its commands one after another, as a reader would."""
    environment = os.environ | {"PYTHONPATH": str(REPO / "src")}
    for program, name in re.findall(r"^```python\n(# (\w+\.py)\n.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
        Path(name).write_text(program)
        subprocess.run([sys.executable, name], env=environment, check=True)
    for command in commands(page):
        words = small(command, full)
        if words[1] == "reproduce" and "--list" not in words:
            words += ["ledger=ledger", "allow_dirty=true"]
        call = [sys.executable, "-m", "segbench.cli.main", *words[1:]]
        done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
        # A module that only defines the command would end well too.
        assert done.stdout + done.stderr, f"{shlex.join(words)} printed nothing"
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=label)
def test_a_tutorial_can_be_followed(page, folders):
    follow(page)


@pytest.mark.slow
@pytest.mark.skipif("SEGBENCH_TUTORIALS_IN_FULL" not in os.environ, reason="hours; make test-tutorials")
@pytest.mark.parametrize("page", TUTORIALS, ids=label)
def test_a_tutorial_can_be_followed_in_full(page, folders):
    for name, data in (("FOLDER", "isbi2012"), ("VOC", "voc2012")):
        real = REPO.parent / "shared" / "data" / data
        if real.is_dir():
            (folders / name).unlink()
            (folders / name).symlink_to(real)
    follow(page, full=True)


def test_the_readmes_table_is_the_ledgers():
    from segbench.papers.ledger import default_folder, markdown, read_rows

    between = re.search(r"<!-- ledger -->\n(.*)<!-- /ledger -->", (REPO / "README.md").read_text(), re.DOTALL)
    assert between is not None
    assert between[1] == markdown(read_rows(default_folder())), "segbench reproduce --list format=markdown"
