import hashlib
import io
import shutil
import tarfile
import zipfile

import numpy as np
import pytest
import tifffile

from segbench.data.prepare import recipes
from segbench.data.prepare.downloads import Listener, Remote
from segbench.data.prepare.prepare import prepare
from segbench.data.prepare.recipes import PARTS
from segbench.errors import SegbenchError


def packed(folder, kind):
    """The folder's content as an archive of `gz` or `zip`."""
    target = io.BytesIO()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if kind == "zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in files:
                archive.write(path, path.relative_to(folder))
    else:
        with tarfile.open(fileobj=target, mode=f"w:{kind}") as archive:
            for path in files:
                archive.add(path, str(path.relative_to(folder)))
    return target.getvalue()


@pytest.fixture
def published(monkeypatch, server, closed_url):
    """`published(name, part, *contents)`: a recipe's files are on the loopback, with their digests pinned."""

    def publish(name, part, *contents):
        old = PARTS[name][part]
        remotes = tuple(
            Remote(r.name, (f"{closed_url}/{r.name}", server.put(r.name, content)), _pin(r, content))
            for r, content in zip(old.remotes, contents, strict=True)
        )
        new = recipes.Part(remotes, old.gives, old.convert, old.default)
        monkeypatch.setitem(PARTS, name, PARTS[name] | {part: new})

    return publish


def _pin(remote, content):
    algorithm = remote.digest.split(":")[0] if remote.digest else None
    return algorithm and f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


@pytest.fixture
def said():
    return []


@pytest.fixture
def run(said):
    return lambda *arguments, **settings: prepare(*arguments, **settings, listener=Listener(said.append), wait=0)


def test_voc_and_sbd_from_their_archives(voc, tmp_path, published, run, said, server):
    from segbench.data.pascal_voc import PascalVOC

    for part, inside in (("voc2011", "TrainVal"), ("sbd", "benchmark_RELEASE"), ("voc2012", "VOCdevkit")):
        folder = tmp_path / part
        shutil.copytree(voc / inside, folder / inside)
        published("pascal_voc", part, packed(folder, "gz"))
    root = tmp_path / "new"
    run("pascal_voc", root)
    assert not (root / "VOCdevkit").exists(), "VOC 2012 comes on request"
    before = PascalVOC(voc, partial=True)
    after = PascalVOC(root, partial=True)
    for index in range(4):
        for a, b in ((s.split("train"), t.split("train")) for s, t in [(before, after)]):
            np.testing.assert_array_equal(a.read(index).labels["semantic"], b.read(index).labels["semantic"])
    run("pascal_voc", root, ["voc2012"])
    assert PascalVOC(root, protocol="voc2012", partial=True).split("train")
    server.asked.clear()
    said.clear()
    run("pascal_voc", root)
    assert not server.asked and all("ready in" in line for line in said)


def test_what_was_unpacked_halfway_is_unpacked_again(sift, tmp_path, published, run, server, monkeypatch):
    published("sift_flow", "all", packed(sift, "zip"))
    root = tmp_path / "new"
    part = PARTS["sift_flow"]["all"]

    def killed(paths, root, listener):
        shutil.copytree(sift / "Images", root / "Images")
        for folder in ("SemanticLabels", "GeoLabels"):
            (root / folder / "spatial_envelope_256x256_static_8outdoorcategories").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setitem(PARTS["sift_flow"], "all", recipes.Part(part.remotes, part.gives, killed))
    with pytest.raises(KeyboardInterrupt):
        run("sift_flow", root)
    monkeypatch.setitem(PARTS["sift_flow"], "all", part)
    server.asked.clear()
    run("sift_flow", root)
    assert not server.asked, "the archive is there"
    from segbench.data.sift_flow import SiftFlow

    assert len(SiftFlow(root, partial=True).split("test").read(1).labels) == 2


def test_a_data_set_placed_by_hand_is_left_alone(sift, run, said, server):
    run("sift_flow", sift)
    assert said == [f"sift_flow all: ready in {sift}"]


def test_pascal_context_from_its_archives(context, tmp_path, published, run):
    from segbench.data.pascal_context import PascalContext

    shutil.copytree(context / "VOCdevkit", tmp_path / "voc2010" / "VOCdevkit")
    shutil.copytree(context / "trainval", tmp_path / "labels" / "trainval")
    shutil.copyfile(context / "labels.txt", tmp_path / "labels" / "labels.txt")
    for part in ("voc2010", "labels"):
        published("pascal_context", part, packed(tmp_path / part, "gz"))
    published("pascal_context", "names", (context / "59_labels.txt").read_bytes())
    run("pascal_context", tmp_path / "new")
    before, after = (PascalContext(root).split("test").read(1) for root in (context, tmp_path / "new"))
    np.testing.assert_array_equal(before.labels["semantic"], after.labels["semantic"])


def test_nyud_release(nyud, tmp_path, published, run):
    from segbench.data.nyudv2 import NYUDv2

    published("nyudv2", "release", packed(nyud.parent, "gz"))
    run("nyudv2", tmp_path / "new")
    assert NYUDv2(tmp_path / "new", modalities=["rgb", "depth", "hha"], partial=True).split("train")


def test_cell_tracking_zip(tmp_path, published, run):
    for sequence in ("01", "02"):
        path = tmp_path / "zip" / "DIC-C2DH-HeLa" / f"{sequence}_GT" / "SEG" / "man_seg002.tif"
        path.parent.mkdir(parents=True)
        tifffile.imwrite(path, np.zeros((8, 8), np.uint16))
    published("cell_tracking", "dic_hela", packed(tmp_path / "zip", "zip"))
    run("cell_tracking", tmp_path / "new", ["dic_hela"])
    assert (tmp_path / "new/DIC-C2DH-HeLa/02_GT/SEG/man_seg002.tif").is_file()


def test_an_archive_of_another_layout(tmp_path, published, run):
    (tmp_path / "zip").mkdir()
    (tmp_path / "zip" / "readme").write_text("moved")
    published("sift_flow", "all", packed(tmp_path / "zip", "zip"))
    with pytest.raises(SegbenchError, match=r"SiftFlowDataset\.zip gave no .*SemanticLabels"):
        run("sift_flow", tmp_path / "new")


def test_unknown_names(tmp_path, run):
    with pytest.raises(SegbenchError, match="no recipe for data set cityscapes"):
        run("cityscapes", tmp_path)
    with pytest.raises(SegbenchError, match="parts=voc2010"):
        run("pascal_voc", tmp_path, ["voc2010"])
