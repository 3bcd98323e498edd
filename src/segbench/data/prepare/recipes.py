"""The files of each data set, where they are published, and how they are laid out as the data sets read them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from segbench.data.prepare.downloads import Listener, Remote
from segbench.data.prepare.unpack import unpack

Convert = Callable[[Sequence[Path], Path, Listener], None]
"""Makes the data set's layout in a root from the fetched files."""


def _unpack_all(paths: Sequence[Path], root: Path, listener: Listener) -> None:
    for path in paths:
        listener.say(f"{path.name}: {unpack(path, root, listener)} entries unpacked into {root}")


@dataclass(frozen=True)
class Part:
    """Some files that belong together.

    Attributes:
        remotes: the files to fetch.
        gives: glob patterns under the root that each match something once the part is ready.
        convert: makes it ready.
        default: fetched unless other parts are requested.
    """

    remotes: tuple[Remote, ...]
    gives: tuple[str, ...]
    convert: Convert = _unpack_all
    default: bool = True

    def is_ready(self, root: Path) -> bool:
        """Whether every pattern in `gives` matches."""
        return all(any(root.glob(pattern)) for pattern in self.gives)


def _copy_to(place: str, paths: Sequence[Path], root: Path, listener: Listener) -> None:
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(paths[0], root / place)


def _nyudv2(paths: Sequence[Path], root: Path, listener: Listener) -> None:
    from segbench.data.prepare.hdf5 import convert_nyudv2

    listener.say(f"{convert_nyudv2(paths[0], paths[1], root, listener)} images converted into {root}, without HHA")


def _isbi(paths: Sequence[Path], root: Path, listener: Listener) -> None:
    from segbench.data.prepare.hdf5 import convert_isbi

    convert_isbi(paths[0], root)
    listener.say(f"train-volume.tif and train-labels.tif written into {root}; the mirror has no test volume")


def _file(digest: str | None, *urls: str) -> Remote:
    return Remote(urls[0].rpartition("/")[2], urls, digest)


_VOC = "http://host.robots.ox.ac.uk/pascal/VOC"
_SBD = "Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz"
_VOC2012 = "VOCtrainval_11-May-2012.tar"
_MAPPING = "https://raw.githubusercontent.com/ankurhanda/nyuv2-meta-data/master/classMapping40.mat"
_CONTEXT = "https://www.cs.stanford.edu/~roozbeh/pascal-context"
_CELLS = "http://data.celltrackingchallenge.net/training-datasets"

PARTS: dict[str, dict[str, Part]] = {
    "pascal_voc": {
        "voc2011": Part(
            (_file("md5:6c3384ef61512963050cb5d687e5bf1e", f"{_VOC}/voc2011/VOCtrainval_25-May-2011.tar"),),
            ("TrainVal/VOCdevkit/VOC2011/JPEGImages", "TrainVal/VOCdevkit/VOC2011/SegmentationClass"),
        ),
        "voc2012": Part(
            (
                _file(
                    "md5:6cd6e144f989b92b3379bac3b3de84fd",
                    f"{_VOC}/voc2012/{_VOC2012}",
                    f"http://pjreddie.com/media/files/{_VOC2012}",
                ),
            ),
            ("VOCdevkit/VOC2012/JPEGImages", "VOCdevkit/VOC2012/SegmentationClass"),
            default=False,
        ),
        "sbd": Part(
            (
                _file(
                    "md5:82b4d87ceb2ed10f6038a1cba92111cb",
                    f"http://www.eecs.berkeley.edu/{_SBD}",
                    f"https://www2.eecs.berkeley.edu/{_SBD}",
                ),
            ),
            ("benchmark_RELEASE/dataset/cls", "benchmark_RELEASE/dataset/train.txt"),
        ),
        "sbd_noval": Part(
            (
                _file(
                    "md5:79bff800c5f0b1ec6b21080a3c066722", "http://home.bharathh.info/pubs/codes/SBD/train_noval.txt"
                ),
            ),
            ("benchmark_RELEASE/dataset/train_noval.txt",),
            partial(_copy_to, "benchmark_RELEASE/dataset/train_noval.txt"),
            default=False,
        ),
    },
    "nyudv2": {
        "release": Part(
            (_file(None, "http://dl.caffe.berkeleyvision.org/nyud.tar.gz"),),
            ("**/data/images/img_*.png", "**/segmentation/img_*"),
        ),
        "official": Part(
            (
                _file(None, "http://horatio.cs.nyu.edu/mit/silberman/nyu_depth_v2/nyu_depth_v2_labeled.mat"),
                _file("sha256:ff177194cce9a2163517f1e1e6f1c64c50987162f542dedddc04bbf6ebe6d851", _MAPPING),
            ),
            ("data/images/img_*.png", "segmentation/img_*"),
            _nyudv2,
            default=False,
        ),
    },
    "sift_flow": {
        "all": Part(
            (_file(None, "http://www.cs.unc.edu/~jtighe/Papers/ECCV10/siftflow/SiftFlowDataset.zip"),),
            ("**/Images/spatial_envelope*", "**/SemanticLabels/spatial_envelope*", "**/GeoLabels/spatial_envelope*"),
        ),
    },
    "pascal_context": {
        "voc2010": Part(
            (_file("md5:da459979d0c395079b5c75ee67908abb", f"{_VOC}/voc2010/VOCtrainval_03-May-2010.tar"),),
            ("VOCdevkit/VOC2010/JPEGImages", "VOCdevkit/VOC2010/ImageSets/Main/train.txt"),
        ),
        "labels": Part((_file(None, f"{_CONTEXT}/trainval.tar.gz"),), ("**/trainval/*.mat", "**/labels.txt")),
        "names": Part(
            (_file(None, f"{_CONTEXT}/59_labels.txt"),), ("**/59_labels.txt",), partial(_copy_to, "59_labels.txt")
        ),
    },
    "isbi_em": {
        "train": Part(
            (
                Remote(
                    "isbi.h5",
                    ("https://oc.embl.de/index.php/s/h0TkwqxU0PJDdMd/download",),
                    "sha256:0e10fe909a1243084d91773470856993b7d40126a12e85f0f1345a7a9e512f29",
                    "The challenge's own stacks, with the test volume, need a registration at its site",
                ),
            ),
            ("train-volume.tif", "train-labels.tif"),
            _isbi,
        ),
    },
    "cell_tracking": {
        name: Part((_file(digest, f"{_CELLS}/{folder}.zip"),), (f"{folder}/01_GT/SEG", f"{folder}/02_GT/SEG"))
        for name, folder, digest in (
            (
                "dic_hela",
                "DIC-C2DH-HeLa",
                "sha256:832fed2d05bb7488cf9c51a2994b75f8f3f53b3c3098856211f2d39023c34e1a",
            ),
            (
                "phc_u373",
                "PhC-C2DH-U373",
                "sha256:b18185c18fce54e8eeb93e4bbb9b201d757add9409bbf2283b8114185a11bc9e",
            ),
        )
    },
}
"""Parts by data set, with their publishers' addresses and the digests that torchvision, torch-em or the project's own
copies pin."""
