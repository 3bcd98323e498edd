"""The challenge's layout, partial annotations, classes and void by hand, and SEG of a run counted from scratch."""

import json

import cv2
import numpy as np
import pytest

from segbench.data.cell_tracking import CellTracking, label_of
from segbench.data.weights import LossWeights
from segbench.errors import SegbenchError
from segbench.metrics import Decoding, decode_instances, seg

SHAPE = (40, 48)
BY_SEQUENCE = {"train": "01:0-5", "val": "01:8-9", "test": "02"}
BY_TIME = {"train": "0-5", "val": "6-7", "test": "8-9"}
NAME = "DIC-C2DH-HeLa"


def cells_of(frame):
    """Four cells, the first two touching; ids as a tracking gives them, with gaps."""
    ids = np.zeros(SHAPE, np.uint16)
    ids[8:20, 6 + frame % 3 : 16] = 3
    ids[8:20, 16:26] = 5
    ids[24:34, 10:22] = 6
    ids[22:36, 30:42] = 9
    return ids


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array)  # LZW-compressed, as the files are


def write_sequence(root, name, frames=10, silver=True, gold=(2, 8)):
    rng = np.random.default_rng(int(name))
    for frame in range(frames):
        ids = cells_of(frame)
        noise = rng.integers(0, 30, SHAPE)
        write(root / name / f"t{frame:03d}.tif", (100 + 60 * (ids > 0) + noise).astype(np.uint8))
        if silver:
            write(root / f"{name}_ST" / "SEG" / f"man_seg{frame:03d}.tif", ids)
        markers = np.zeros(SHAPE, np.uint16)
        for cell in (3, 5, 6, 9):
            row, column = np.argwhere(ids == cell).mean(0).astype(int)
            markers[row - 1 : row + 2, column - 1 : column + 2] = cell
        write(root / f"{name}_GT" / "TRA" / f"man_track{frame:03d}.tif", markers)
        if frame in gold:
            # Numbered by themselves; one cell was not annotated, and the others are a column narrower.
            own = np.select([ids == 3, ids == 5, ids == 6], [1, 2, 3], 0)
            own[:, 15] = 0
            write(root / f"{name}_GT" / "SEG" / f"man_seg{frame:03d}.tif", own.astype(np.uint16))
    (root / f"{name}_GT" / "TRA" / "man_track.txt").write_text("3 0 9 0\n5 0 9 0\n6 0 9 0\n9 0 9 0\n")


@pytest.fixture
def both(tmp_path):
    """Both sequences, in the challenge's layout."""
    for name in ("01", "02"):
        write_sequence(tmp_path / NAME, name)
    return tmp_path


@pytest.fixture
def one(tmp_path):
    """Sequence 01 alone."""
    write_sequence(tmp_path / NAME, "01")
    return tmp_path


def tracked(root, **given):
    settings = {"dataset": NAME, "mean": 120.0, "std": 30.0, "by_sequence": BY_SEQUENCE, "by_time": BY_TIME} | given
    return CellTracking(root, **settings)


def test_by_sequence_where_both_are_there(both):
    data = tracked(both)
    assert data.split("train").ids == tuple(f"01-00{frame}" for frame in range(6))
    assert data.split("val").ids == ("01-008", "01-009")
    assert data.split("test").ids == tuple(f"02-00{frame}" for frame in range(10))
    assert data.split("predict") is None
    assert "silver truth, by sequence: train 01: 0-5; val 01: 8-9; test 02: 0-9" in data.spec.protocol
    assert "gold masks of 2 test frames score seg_gold" in data.spec.protocol


def test_by_time_where_one_is_there_also_from_within_its_folder(one):
    for root in (one, one / NAME):
        data = tracked(root)
        assert [data.split(split).ids[0] for split in ("train", "val", "test")] == ["01-000", "01-006", "01-008"]
        assert "blocks of time of one sequence, so frames are correlated" in data.spec.protocol
        assert data.spec.name == "dic_hela"
        assert data.spec.dependence == "frames of one sequence"


def test_time_of_one_of_two_sequences_is_named(both):
    with pytest.raises(SegbenchError, match=r"data.by_time.train=0-5, and sequences 01, 02"):
        tracked(both, protocol="by_time")
    named = tracked(both, protocol="by_time", by_time={"train": "02:0-3,02:6-7", "test": "02:8-9"})
    assert named.split("train").ids == ("02-000", "02-001", "02-002", "02-003", "02-006", "02-007")
    assert named.split("val") is None
    assert "train 02: 0-3 and 6-7" in named.spec.protocol


def test_a_frame_as_it_stands_in_its_files(one):
    test = tracked(one).split("test")
    annotated, other = test.read(0), test.read(1)
    folder = one / NAME
    assert annotated.images["image"].dtype == np.uint8
    assert (annotated.images["image"] == cv2.imread(str(folder / "01" / "t008.tif"), -1)).all()
    assert (annotated.instances == cells_of(8)).all()
    assert annotated.instances.dtype == np.int32
    assert (annotated.references["gold"] == cv2.imread(str(folder / "01_GT" / "SEG" / "man_seg008.tif"), -1)).all()
    assert not other.references["gold"].any()


def test_gold_truth_takes_the_frames_that_have_it_and_voids_the_cell_that_was_left_out(one):
    data = tracked(one, truth="gold", by_time={"train": "0-5", "test": "6-9"})
    assert data.split("train").ids == ("01-002",)
    assert data.split("test").ids == ("01-008",)
    assert "gold truth" in data.spec.protocol
    assert "train 01: 0-5 (1 with a mask)" in data.spec.protocol
    raw = data.split("test").read(0)
    label, silver = raw.labels["semantic"], cells_of(8)
    assert set(np.unique(raw.instances)) == {0, 1, 2, 3}
    assert (label[silver == 9] == 255).all()
    assert (label[raw.instances == 3] == 1).all()
    # Far from the marker and nearer to an annotated cell: background.
    assert label[5, 20] == 0


def test_touching_cells_are_parted_by_a_background_pixel_of_each():
    ids = np.array([[1, 1, 1, 2, 2, 2, 0, 0, 3]], np.int32).repeat(3, 0)
    assert label_of(ids)[1].tolist() == [1, 1, 0, 0, 1, 1, 0, 0, 1]


def test_the_border_class_is_the_rim_towards_another_cell():
    ids = np.array([[1, 1, 1, 2, 2, 2, 0, 0, 3]], np.int32).repeat(5, 0)
    assert label_of(ids, border=2)[2].tolist() == [1, 2, 2, 2, 2, 1, 0, 0, 1]
    assert label_of(ids, border=3)[2].tolist() == [2, 2, 2, 2, 2, 2, 0, 0, 2]


def test_outside_the_field_of_interest_only_objects_are_known():
    ids = np.zeros((10, 12), np.int32)
    ids[0:5, 4:7] = 1
    label = label_of(ids, field_of_interest=3)
    assert (label[ids == 1] == 1).all()
    assert (label[3:7, 3:9][ids[3:7, 3:9] == 0] == 0).all()
    frame = np.ones_like(label, bool)
    frame[3:7, 3:9] = False
    assert (label[frame & (ids == 0)] == 255).all()


@pytest.mark.parametrize(("covered", "void"), [(4, True), (5, False)])
def test_a_marker_counts_as_annotated_if_more_than_half_of_it_is(covered, void):
    ids, markers = np.zeros((8, 30), np.int32), np.zeros((8, 30), np.int32)
    markers[4, 4:12] = 7
    ids[4, 4 : 4 + covered] = 2
    assert (label_of(ids, markers_HW=markers) == 255).any() == void


def test_void_around_a_cell_that_was_left_out_by_hand():
    # One annotated cell of 4 pixels, so a typical width of 2 sqrt(4 / pi) = 2.26; the marker at column 10.
    ids, markers = np.zeros((1, 21), np.int32), np.zeros((1, 21), np.int32)
    ids[0, 3:7] = 1
    markers[0, 10] = 4
    markers[0, 5] = 1
    # Column 8 is 2 from both, and within the width; column 7 is nearer to the cell and 3 from the marker.
    assert label_of(ids, markers_HW=markers)[0].tolist() == [0, 0, 0, 1, 1, 1, 1, 0] + [255] * 13


def test_a_frame_where_every_cell_was_left_out_is_void():
    markers = np.zeros((5, 6), np.int32)
    markers[2, 2] = 1
    assert (label_of(np.zeros((5, 6), np.int32), markers_HW=markers) == 255).all()


def test_objects_and_classes_and_back(one):
    """What the labels say is what the decoding reads, but for the rim of a cell that lies wholly in it."""
    for border in (0, 1, 2, 3):
        frames = tracked(one, border=border).split("train")
        raw = [frames.read(index) for index in range(len(frames))]
        prob = [np.eye(3, dtype=np.float32)[image.labels["semantic"]].transpose(2, 0, 1) for image in raw]
        found = np.stack([decode_instances(each, Decoding(grow=5)) for each in prob])
        score = seg(np.stack([image.instances for image in raw]), found)
        assert score == pytest.approx(1.0) if border else 0.9 < score < 1


@pytest.mark.parametrize("border", [0, 2])
def test_cores_and_classes_and_back(one, border):
    """Cells that touch and have no border are still told apart."""
    data = tracked(one, border=border, core=0.5)
    assert data.spec.heads["semantic"].class_names == ("background", "cell", *["border"] * (border > 0), "core")
    frames = data.split("train")
    raw = [frames.read(index) for index in range(len(frames))]
    labels = [image.labels["semantic"] for image in raw]
    if not border:
        # As if the network had not seen the line between two cells.
        labels = [
            np.where((image.instances > 0) & (label == 0), 1, label) for image, label in zip(raw, labels, strict=True)
        ]
    classes = data.spec.heads["semantic"].num_classes
    prob = [np.eye(classes, dtype=np.float32)[label].transpose(2, 0, 1) for label in labels]
    truth = np.stack([image.instances for image in raw])

    def score(method):
        decoding = Decoding(method, core_class=-1, grow=5)
        return seg(truth, np.stack([decode_instances(each, decoding) for each in prob]))

    # The two meet midway between what is not in dispute, which need not be where the wider one ends.
    assert score("cores") > 0.97
    assert border or score("components") < 0.9


def test_the_weight_map_lies_between_touching_cells(one):
    for border, core in ((0, None), (2, None), (2, 0.5)):
        data = tracked(one, border=border, core=core, field_of_interest=5)
        raw = data.split("train").read(0)
        weight = LossWeights(data.spec, w0=10, sigma=5, balance="none")(raw)
        assert weight[14, 16] > 5  # between 3 and 5, which touch
        assert weight[14, 10] == 1  # in a cell
        assert (weight[raw.labels["semantic"] == 255] == 0).all()
        assert LossWeights(data.spec, balance="none").of_warped(raw.labels, raw.instances) == pytest.approx(weight)


BAD = {
    "a frame in two splits": (
        {"by_time": {"train": "0-5", "test": "5-9"}},
        "data.by_time.train and data.by_time.test share 1 of 5 images, first 01-005: a score on them would be a leak",
    ),
    "frames that are not there": (
        {"by_time": {"train": "0-12"}},
        "data.by_time.train=0-12, and sequence 01 has frames 0-9",
    ),
    "an end before its beginning": ({"by_time": {"train": "7-3"}}, "data.by_time.train=7-3"),
    "no range": ({"by_time": {"train": "first half"}}, "data.by_time.train=first half"),
    "no such sequence": ({"by_time": {"train": "02:0-3"}}, "data.by_time.train=02:0-3, and sequences 01 in"),
    "no frame with a mask": (
        {"truth": "gold", "by_time": {"train": "3-5"}},
        r"no frame of data.by_time.train has a gold mask \(GT/SEG\); frames with one: 01: 2 and 8",
    ),
    "no such truth": ({"truth": "bronze"}, "data.truth=bronze"),
    "no such protocol": ({"protocol": "random"}, "data.protocol=random"),
    "a negative border": ({"border": -1}, "data.border=-1"),
    "another data set": ({"dataset": "PhC-C2DH-U373"}, "no PhC-C2DH-U373 with folders 01 or 02 in"),
}


@pytest.mark.parametrize("case", BAD)
def test_settings_that_cannot_be(one, case):
    given, found = BAD[case]
    with pytest.raises(SegbenchError, match=found):
        tracked(one, **given)


def test_files_that_cannot_be(one):
    folder = one / NAME
    frames = tracked(one).split("test")
    write(folder / "01_ST" / "SEG" / "man_seg008.tif", cells_of(8)[:-2])
    with pytest.raises(SegbenchError, match=r"man_seg008.tif is 38 x 48, image 01-008 is 40 x 48"):
        frames.read(0)
    write(folder / "01" / "t009.tif", np.zeros(SHAPE, np.uint16))
    with pytest.raises(SegbenchError, match=r"t009.tif is uint16"):
        frames.read(1)
    path = folder / "01_ST" / "SEG" / "man_seg000.tif"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(SegbenchError, match=r"man_seg000.tif, of image 01-000, cannot be decoded"):
        tracked(one).split("train").read(0)


@pytest.mark.parametrize("twice", ["01/t0005.tif", "01_ST/SEG/man_seg05.tif", "01_GT/TRA/MAN_TRACK005.TIF"])
def test_two_files_of_one_frame(one, twice):
    write(one / NAME / twice, cells_of(5))
    with pytest.raises(SegbenchError, match=r"05\.tif(.|\n)*one file of frame 5\n"):
        tracked(one)


def test_empty_folders(tmp_path):
    with pytest.raises(SegbenchError, match="segbench data prepare cell_tracking parts=dic_hela"):
        tracked(tmp_path)
    (tmp_path / NAME / "01").mkdir(parents=True)
    with pytest.raises(SegbenchError, match="no image in"):
        tracked(tmp_path)


def test_data_check_reads_every_file(one, capsys):
    from segbench.cli.data import run

    given = ["check", "dic_hela", f"root={one}", f"by_time={json.dumps(BY_TIME)}", "field_of_interest=4"]
    assert run(given) == 0
    assert "blocks of time" in " ".join(capsys.readouterr().out.split())
    write(one / NAME / "01_ST" / "SEG" / "man_seg003.tif", np.zeros((9, 9), np.uint16))
    assert run(given) == 1
    assert "man_seg003.tif is 9 x 9" in " ".join(capsys.readouterr().out.split())


def test_seg_of_a_run_is_that_of_its_frames(one, compose, tmp_path):
    """Trained, evaluated in batches, written and read: the same number as one walk over the test frames."""
    from segbench.data.tiles import normalise
    from segbench.experiment.build import build_dataset, build_decoding, build_task
    from segbench.experiment.train import train
    from segbench.runs.directory import Run
    from segbench.training.checkpoint import load_weights

    config = compose(
        *("name=cells", "data=dic_hela", f"data.root={one}", "metrics=cell_tracking", "decoding=watershed"),
        *("data.border=2", "data.field_of_interest=4", "data.by_time={train:0-5,val:6-7,test:8-9}", "data.tile=60"),
        *("data.batch_size=2", "data.repeats=40", "data.eval_batch_size=2", "decoding.grow=3", "decoding.min_size=8"),
        *("model=unet_same", "model.width=4", "model.depth=2", "loss=weighted_cross_entropy", "optimizer.lr=2e-2"),
        *("trainer=cpu", "trainer.precision=32-true", "trainer.max_steps=60", "trainer.val_check_interval=30"),
        *("callbacks.checkpoint.monitor=val/seg", "task.channels_last=false", "threads=1"),
    )
    directory = tmp_path / "run"
    scores = train(config, directory, [])
    assert {"test/seg", "test/seg_gold", "test/mean_iu", "test/instance_ap_50"} <= set(scores)
    assert scores["test/seg"] > 0.3

    run = Run.open(directory)
    data = build_dataset(config.data, config.weights)
    task = build_task(config, data.spec)
    load_weights(task.model, run.checkpoint())
    task.eval()
    frames = data.split("test")
    read = [frames.read(index) for index in range(len(frames))]
    (name, modality), *_ = data.spec.modalities.items()
    prob = [task.predict({name: normalise(raw.images[name], modality)})["semantic"].numpy() for raw in read]
    found = np.stack([decode_instances(each, build_decoding(run.config().decoding)) for each in prob])
    assert scores["test/seg"] == pytest.approx(seg(np.stack([raw.instances for raw in read]), found), abs=1e-12)
    gold = np.stack([raw.references["gold"] for raw in read])
    assert scores["test/seg_gold"] == pytest.approx(seg(gold, found), abs=1e-12)

    with np.load(directory / "per_image.npz", allow_pickle=False) as kept:
        keys = [key for key in kept.files if key.endswith("seg/objects") or key.endswith("seg_gold/objects")]
        counted = {key.split("/")[-2]: kept[key].tolist() for key in keys}
    assert counted == {"seg": [4, 4], "seg_gold": [3, 0]}


@pytest.mark.parametrize(
    ("name", "sizes", "objects"),
    [("PhC-C2DH-U373", (75, 10, 20), 111), ("DIC-C2DH-HeLa", (52, 8, 20), 291)],
)
def test_the_real_frames(shared_data, compose, name, sizes, objects):
    from segbench.experiment.build import build_dataset

    key = {"PhC-C2DH-U373": "phc_u373", "DIC-C2DH-HeLa": "dic_hela"}[name]
    root = shared_data("cell_tracking_challenge", name)
    data = build_dataset(compose(f"data={key}", f"data.root={root}", "name=real").data, None)
    assert tuple(len(data.split(split)) for split in ("train", "val", "test")) == sizes
    test = data.split("test")
    raw = [test.read(index) for index in range(len(test))]
    assert sum(len(np.unique(image.instances)) - 1 for image in raw) == objects
    outer = np.ones(raw[0].instances.shape, bool)
    outer[50:-50, 50:-50] = False
    for image in raw:
        # Why the strip is void: every annotated cell reaches out of it.
        assert set(np.unique(image.instances)) == set(np.unique(np.where(outer, 0, image.instances)))
        assert (image.labels["semantic"][outer & (image.instances == 0)] == 255).all()


def test_the_gold_masks_of_the_real_frames_are_partial(shared_data, compose):
    from segbench.experiment.build import build_dataset

    root = shared_data("cell_tracking_challenge", "PhC-C2DH-U373")
    data = build_dataset(compose("data=phc_u373", f"data.root={root}", "data.truth=gold", "name=real").data, None)
    assert [len(data.split(split)) for split in ("train", "val", "test")] == [14, 1, 2]
    frames = data.split("test")
    raw = frames.read(frames.ids.index("02-106"))
    assert len(np.unique(raw.instances)) - 1 == 3
    # Two cells have a marker and no mask: void at their markers, (row, column) found by eye in the tracking truth.
    assert raw.labels["semantic"][307, 54] == raw.labels["semantic"][318, 641] == 255
