import hashlib
import io
import shutil
import tarfile
import zipfile

import cv2
import h5py
import numpy as np
import pytest
import scipy.io
import tifffile

from segbench.data.prepare import recipes
from segbench.data.prepare.downloads import Listener, Remote
from segbench.data.prepare.hdf5 import convert_isbi, convert_nyudv2
from segbench.data.prepare.prepare import prepare
from segbench.data.prepare.recipes import PARTS
from segbench.data.prepare.unpack import unpack
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


def test_nyud_release(nyud, tmp_path, published, run):
    from segbench.data.nyudv2 import NYUDv2

    published("nyudv2", "release", packed(nyud.parent, "gz"))
    run("nyudv2", tmp_path / "new")
    assert NYUDv2(tmp_path / "new", modalities=["rgb", "depth", "hha"], partial=True).split("train")


def official(path, count=2):
    """nyu_depth_v2_labeled.mat: MATLAB's axes reversed, depth in metres."""
    rng = np.random.default_rng(0)
    images = np.zeros((count, 3, 640, 480), np.uint8)
    images[:, 0, 50:, 60:] = 200  # red but for a frame
    images[-1, 2] = 77
    depths = np.full((count, 640, 480), 2.5504, np.float32)
    raw = depths.copy()
    raw[:, 100, 50] = 0
    labels = rng.integers(0, 895, (count, 640, 480)).astype(np.uint16)
    with h5py.File(path, "w") as file:
        file["images"], file["depths"], file["rawDepths"], file["labels"] = images, depths, raw, labels
        file["names"] = np.zeros((1, 894), np.uint64)
    return images, depths, raw, labels


def mapping(path):
    classes = np.random.default_rng(1).integers(1, 41, (1, 894)).astype(np.uint8)
    scipy.io.savemat(path, {"mapClass": classes})
    return classes.ravel()


def test_nyud_official(tmp_path, published, run):
    from segbench.data.nyudv2 import NYUDv2

    images, _, raw_metres, labels = official(tmp_path / "labeled.mat")
    classes = mapping(tmp_path / "map.mat")
    published("nyudv2", "official", *((tmp_path / name).read_bytes() for name in ("labeled.mat", "map.mat")))
    root = tmp_path / "new"
    run("nyudv2", root, ["official"])
    dataset = NYUDv2(root, modalities=["rgb", "depth"], depth="rawdepth", partial=True)
    # 5001 and 5002 are test images; the crop of Gupta et al. starts at row 45 and column 40.
    raw = dataset.split("test").read(dataset.split("test").ids.index("5002"))
    np.testing.assert_array_equal(raw.images["rgb"], images[1].transpose(2, 1, 0)[45:470, 40:600])
    label = labels[1].T[45:470, 40:600]
    expected = np.where(label == 0, 255, classes[label.astype(int) - 1].astype(int) - 1)
    np.testing.assert_array_equal(raw.labels["semantic"], expected)
    millimetres = np.rint(raw_metres[1].T[45:470, 40:600] * 1000)
    assert millimetres[50 - 45, 100 - 40] == 0 and raw.images["depth"][5, 60] == np.float32(7.844)
    np.testing.assert_allclose(raw.images["depth"][6:], np.log(2550), rtol=1e-6)
    with pytest.raises(SegbenchError, match=r"modality hha reads"):
        NYUDv2(root, modalities=["hha"], partial=True)


def test_nyud_official_bad_input(tmp_path):
    official(tmp_path / "labeled.mat", 1)
    mapping(tmp_path / "map.mat")
    (tmp_path / "cut.mat").write_bytes((tmp_path / "labeled.mat").read_bytes()[:5000])
    with pytest.raises(SegbenchError, match=r"cut\.mat \(5000 bytes\) cannot be read as HDF5"):
        convert_nyudv2(tmp_path / "cut.mat", tmp_path / "map.mat", tmp_path)
    with h5py.File(tmp_path / "other.mat", "w") as file:
        file["images"] = np.zeros((1, 3, 4))
    with pytest.raises(SegbenchError, match=r"images is \(1, 3, 4\); at the top are images"):
        convert_nyudv2(tmp_path / "other.mat", tmp_path / "map.mat", tmp_path)
    scipy.io.savemat(tmp_path / "map.mat", {"mapClass": np.ones((1, 9), np.uint8)})
    with pytest.raises(SegbenchError, match="labels to 9"):
        convert_nyudv2(tmp_path / "labeled.mat", tmp_path / "map.mat", tmp_path / "root")
    assert not (tmp_path / "root" / "data").exists(), "nothing half made is left where a data set is looked for"
    (tmp_path / "root" / "data").mkdir()
    with pytest.raises(SegbenchError, match="is there"):
        convert_nyudv2(tmp_path / "labeled.mat", tmp_path / "map.mat", tmp_path / "root")


def test_the_crop_and_the_map_on_the_real_first_image(shared_data):
    meta, layout = shared_data("nyudv2", "meta"), shared_data("nyudv2", "fcn_layout")
    with tarfile.open(meta / "nyuv2_test_class40.tgz") as archive:
        content = archive.extractfile("new_nyu_class40_0001.png").read()
    whole = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    released = cv2.imread(str(layout / "segmentation_png/img_5001.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(whole[45:470, 40:600], released)
    digest = hashlib.sha256((meta / "classMapping40.mat").read_bytes()).hexdigest()
    assert PARTS["nyudv2"]["official"].remotes[1].digest == f"sha256:{digest}"


@pytest.mark.parametrize("cell", [0, 1], ids=["membranes are 1", "membranes are 0"])
def test_isbi_from_its_mirror(tmp_path, published, run, drawn_isbi, cell):
    from segbench.data.isbi_em import IsbiEM

    volume = tifffile.imread(drawn_isbi / "train-volume.tif")
    labels = tifffile.imread(drawn_isbi / "train-labels.tif")
    with h5py.File(tmp_path / "isbi.h5", "w") as file:
        file["raw"] = volume
        file["labels/membranes"] = (labels > 0) == cell
        file["labels/gt_segmentation"] = labels.astype(np.uint32)
    published("isbi_em", "train", (tmp_path / "isbi.h5").read_bytes())
    run("isbi_em", tmp_path / "new")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "new" / "train-labels.tif"), labels)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "new" / "train-volume.tif"), volume)
    assert len(IsbiEM(tmp_path / "new").split("test")) == 6


def test_isbi_labels_that_are_no_membranes(tmp_path):
    with h5py.File(tmp_path / "isbi.h5", "w") as file:
        file["raw"] = (100 + 50 * np.eye(4, dtype=np.uint8))[np.newaxis]
        file["labels/membranes"] = np.eye(4, dtype=np.uint8)[np.newaxis]
    with pytest.raises(SegbenchError, match=r"label 0 covers 75% and is darker"):
        convert_isbi(tmp_path / "isbi.h5", tmp_path)


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


def test_every_address_is_of_the_web_and_every_digest_well_formed():
    for part in (part for parts in PARTS.values() for part in parts.values()):
        for remote in part.remotes:
            assert all(url.startswith(("http://", "https://")) for url in remote.urls)
            if remote.digest:
                algorithm, digest = remote.digest.split(":")
                assert len(digest) == {"md5": 32, "sha256": 64}[algorithm] and int(digest, 16)


def evil_tar(path, **changes):
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo(changes.pop("name", "a"))
        for key, value in changes.items():
            setattr(member, key, value)
        archive.addfile(member, io.BytesIO(b""))
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../outside"},
        {"name": "a/../../outside"},
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"type": tarfile.SYMTYPE, "linkname": "../../outside"},
        {"type": tarfile.LNKTYPE, "linkname": "../outside"},
        {"type": tarfile.CHRTYPE},
    ],
)
def test_a_tar_that_leaves_its_folder_is_refused(tmp_path, changes):
    with pytest.raises(SegbenchError, match="an entry that leaves its folder"):
        unpack(evil_tar(tmp_path / "a.tar", **changes), tmp_path / "in")
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside", "..\\outside", "C:\\outside", "link"])
def test_a_zip_that_leaves_its_folder_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        entry = zipfile.ZipInfo(name)
        if name == "link":
            entry.external_attr = 0o120777 << 16
        archive.writestr("good", "x")
        archive.writestr(entry, "../outside")
    with pytest.raises(SegbenchError, match="an entry that leaves its folder"):
        unpack(tmp_path / "a.zip", tmp_path / "in")
    assert not any((tmp_path / "in").iterdir()), "it is refused before anything is written"


def test_damaged_archives(tmp_path):
    (tmp_path / "a.tgz").write_bytes(b"no archive")
    with pytest.raises(SegbenchError, match=r"a\.tgz cannot be unpacked"):
        unpack(tmp_path / "a.tgz", tmp_path / "in")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "noise").write_bytes(np.random.default_rng(0).bytes(50_000))
    (tmp_path / "b.tgz").write_bytes(packed(folder, "gz")[:20_000])
    with pytest.raises(SegbenchError, match=r"b\.tgz cannot be unpacked"):
        unpack(tmp_path / "b.tgz", tmp_path / "in")
