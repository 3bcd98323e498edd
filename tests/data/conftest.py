"""Miniatures of VOC, SBD, NYUDv2 and SIFT Flow in their official layouts, and a server that can break off."""

import contextlib
import hashlib
import http.server
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
import scipy.sparse

SCENES = "spatial_envelope_256x256_static_8outdoorcategories"


def voc_ids():
    from segbench.data.id_lists import shipped

    return shipped("pascal_seg11valid")


def picture(seed, height, width):
    """A smooth colour picture: JPEG keeps it nearly as it is."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def write_jpeg(path, seed=0, height=12, width=16):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture(seed, height, width), [cv2.IMWRITE_JPEG_QUALITY, 100])


def write_label(path, label):
    from segbench.data.decode import write_indices
    from segbench.data.pascal_voc import voc_palette

    write_indices(path, np.asarray(label, np.uint8), voc_palette(256))


def write_sbd(path, label):
    """As SBD's cls/: a struct with fields that we do not read beside the one we do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    boundaries = np.empty((20, 1), object)
    boundaries[:] = [[scipy.sparse.csc_matrix(np.zeros(np.shape(label)))] for _ in range(20)]
    content = {"Boundaries": boundaries, "Segmentation": np.asarray(label, np.uint8), "CategoriesPresent": [[1]]}
    scipy.io.savemat(path, {"GTcls": content}, do_compression=True)


def label_of(seed, height=12, width=16, classes=21):
    label = np.random.default_rng(seed).integers(0, classes, (height, width))
    label[0, :3] = 255
    return label


@pytest.fixture
def voc(tmp_path):
    """VOC 2011 and 2012 and SBD: four training images each, four of seg11valid, sizes of two kinds."""
    root = tmp_path / "voc"
    valid = voc_ids()[:4]
    for base, year in (("VOCdevkit", 2012), ("TrainVal/VOCdevkit", 2011)):
        folder = root / base / f"VOC{year}"
        train = [f"{year}_00000{n}" for n in range(1, 5)]
        for seed, name in enumerate((*train, *valid)):
            height = 12 if seed % 2 else 15
            write_jpeg(folder / "JPEGImages" / f"{name}.jpg", seed, height)
            write_label(folder / "SegmentationClass" / f"{name}.png", label_of(seed, height))
        lists = folder / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True)
        (lists / "train.txt").write_text("".join(f"{name}\n" for name in train))
        (lists / "val.txt").write_text("".join(f"{name}\n" for name in valid))
    sbd = root / "benchmark_RELEASE" / "dataset"
    names = [f"2008_00000{n}" for n in range(1, 5)]
    for seed, name in enumerate((*names, valid[0])):
        write_jpeg(sbd / "img" / f"{name}.jpg", 50 + seed)
        write_sbd(sbd / "cls" / f"{name}.mat", np.where(label_of(seed) == 255, 0, label_of(seed)))
    (sbd / "train.txt").write_text("".join(f"{name}\n" for name in names))
    (sbd / "val.txt").write_text(f"{valid[0]}\n")
    return root


@pytest.fixture
def nyud(tmp_path):
    """The FCN release: two images of each of the authors' lists; .mat labels 0 to 40, void 0."""
    from segbench.data.id_lists import shipped

    root = tmp_path / "nyud"
    for folder in ("images", "depth", "rawdepth", "hha"):
        (root / "data" / folder).mkdir(parents=True)
    (root / "segmentation").mkdir()
    for seed, name in enumerate(name for part in ("train", "val", "test") for name in shipped(f"nyud_{part}")[:2]):
        rng = np.random.default_rng(seed)
        depth = rng.integers(500, 9000, (12, 16), dtype=np.uint16)
        cv2.imwrite(str(root / "data" / "images" / f"img_{name}.png"), picture(seed, 12, 16))
        cv2.imwrite(str(root / "data" / "hha" / f"img_{name}.png"), picture(seed + 9, 12, 16))
        cv2.imwrite(str(root / "data" / "depth" / f"img_{name}.png"), depth)
        depth[0] = 0
        cv2.imwrite(str(root / "data" / "rawdepth" / f"img_{name}.png"), depth)
        label = rng.integers(0, 41, (12, 16)).astype(np.uint8)
        label[0, :3] = 0, 1, 40
        scipy.io.savemat(root / "segmentation" / f"img_{name}.mat", {"segmentation": label})
    return root


def write_sift(root, name, semantic, geometric, seed=0):
    """S is uint8 in one and double in the other folder, with the names beside it, as in the archive."""
    write_jpeg(root / "Images" / SCENES / f"{name}.jpg", seed, *np.shape(semantic))
    for folder, label, kind in (("SemanticLabels", semantic, np.uint8), ("GeoLabels", geometric, np.float64)):
        path = root / folder / SCENES / f"{name}.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        names = np.array([["a"], ["b"]], object)
        scipy.io.savemat(path, {"S": np.asarray(label, kind), "names": names, "metaData": {"fileList": name}})


@pytest.fixture
def sift(tmp_path):
    """Two training and two test images; the test ones show classes 1 to 30 and the geometric 1 and 3."""
    from segbench.data.id_lists import shipped

    root = tmp_path / "sift"
    names = (*shipped("siftflow_trainval")[:2], *shipped("siftflow_test")[:2])
    for seed, name in enumerate(names):
        rng = np.random.default_rng(seed)
        semantic = rng.permutation(np.resize(np.arange(34 if seed < 2 else 31), 256)).reshape(16, 16)
        geometric = rng.choice([-1, 0, 1, 2, 3] if seed < 2 else [-1, 0, 1, 3], (16, 16))
        write_sift(root, name, semantic, geometric, seed)
    return root


class Server:
    """What the loopback server gives, and what it was asked."""

    def __init__(self):
        self.files = {}
        self.asked = []  # (path, Range header or None)
        self.break_after = []  # bytes after which the next answers break off
        self.statuses = []  # statuses that the next answers have
        self.ranges = True
        self.etags = True
        self.url = ""

    def put(self, name, content):
        self.files[f"/{name}"] = content
        return f"{self.url}/{name}"


@pytest.fixture
def server():
    """A real HTTP server on the loopback with Range, If-Range and ETag."""
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            asked = self.headers.get("Range")
            state.asked.append((self.path, asked))
            if state.statuses:
                self.send_error(state.statuses.pop(0))
                return
            content = state.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            tag = f'"{hashlib.md5(content).hexdigest()}"'
            start = 0
            fresh = self.headers.get("If-Range") in (None, tag)
            if asked and state.ranges and fresh:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            if state.etags:
                self.send_header("ETag", tag)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            body = content[start:]
            if state.break_after:
                body = body[: state.break_after.pop(0)]
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(body)

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{httpd.server_address[1]}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield state
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.fixture
def closed_url():
    """An address where nobody listens."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def shared_data():
    """`shared_data(*parts)`: a folder of real samples, where the machine has them; the test is skipped otherwise."""

    def folder(*parts):
        path = Path(__file__).resolve().parents[3] / "shared" / "data" / Path(*parts)
        if not path.is_dir():
            pytest.skip(f"no real samples in {path}")
        return path

    return folder
