"""FCN-8s learns real images from drawn weights: a quarter of its width, on the VOC sample, by a run's own pieces.

`pytest -m slow -s tests/end_to_end/test_learning_voc.py` prints the figures; minutes on one thread.
"""

import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from segbench.data.files.labelled import write_indices
from segbench.data.pascal_voc import CLASSES, PascalVOC, voc_palette
from segbench.experiment.build import build_data, build_dataset, build_task
from segbench.experiment.evaluate import evaluate
from segbench.experiment.train import train
from segbench.inference.forward import geometry_of
from segbench.training.checkpoint import load_weights

pytestmark = pytest.mark.slow

SIDE, STRIDE, VOID = 224, 8, 255
CROPPED = "2007_001185"
"""Its middle shows a person, a cat and a dining table before a background."""

# From drawn weights: a rate for Adam, no dropout. Everything else is the experiment's.
SETTINGS = (
    *("experiment=fcn8s_voc", "name=learning", "stages=null", "weights=null", "paper=null"),
    *("loss=cross_entropy", "optimizer=adamw", "scheduler=cosine", "model.width=0.25", "model.dropout=0"),
    *("trainer=cpu", "trainer.log_every_n_steps=50", "threads=1", "data.num_workers=0", "callbacks.panels=null"),
)


@pytest.fixture(scope="module")
def sample():
    root = Path(__file__).resolve().parents[3] / "shared" / "data" / "voc2012"
    if not root.is_dir():
        pytest.skip(f"no VOC sample in {root}")
    return root


def middle(array_HW):
    y, x = ((side - SIDE) // 2 for side in array_HW.shape[:2])
    return np.ascontiguousarray(array_HW[y : y + SIDE, x : x + SIDE])


def write_crop(root, source, split, name):
    """The image's middle as a data set of VOC's layout, without loss."""
    raw = source.read(source.ids.index(name))
    folder = root / "VOCdevkit" / "VOC2012"
    (folder / "JPEGImages").mkdir(parents=True, exist_ok=True)
    (folder / "ImageSets" / "Segmentation").mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / "JPEGImages" / f"{name}.png"), middle(raw.images["rgb"])[..., ::-1])
    label_HW = middle(raw.labels["semantic"])
    write_indices(folder / "SegmentationClass" / f"{name}.png", label_HW, voc_palette(256))
    (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(name)
    return label_HW


def coarse(label_HW):
    """Each 8 x 8 block filled with the label that most of its labelled pixels have: down-sampled and up again."""
    filled_HW = np.empty_like(label_HW)
    for y in range(0, SIDE, STRIDE):
        for x in range(0, SIDE, STRIDE):
            block = label_HW[y : y + STRIDE, x : x + STRIDE]
            counts = np.bincount(block[block != VOID], minlength=len(CLASSES))
            filled_HW[y : y + STRIDE, x : x + STRIDE] = counts.argmax()
    return filled_HW


def mean_iu(label_HW, pred_HW):
    known = label_HW != VOID
    scores = []
    for label in range(len(CLASSES)):
        ours, theirs = (pred_HW == label) & known, (label_HW == label) & known
        if (ours | theirs).any():
            scores.append((ours & theirs).sum() / (ours | theirs).sum())
    return float(np.mean(scores))


def test_it_overfits_a_crop_to_what_its_stride_allows(sample, compose, tmp_path):
    source = PascalVOC(sample, protocol="voc2012", partial=True).split("train")
    label_HW = write_crop(tmp_path, source, "train", CROPPED)
    write_crop(tmp_path, source, "val", next(name for name in source.ids if name != CROPPED))
    ceiling = mean_iu(label_HW, coarse(label_HW))

    given = (*SETTINGS, f"data.root={tmp_path}", "data.protocol=voc2012", "optimizer.lr=1e-3", "trainer.max_steps=200")
    started = time.process_time()
    train(compose(*given), tmp_path / "run", list(given))
    seconds = time.process_time() - started
    asked = compose(f"run={tmp_path / 'run'}", "split=train", "trainer=cpu", "name=learning", config="evaluate")
    reached = evaluate(asked, tmp_path / "evaluated", [])["train/mean_iu"]
    print(f"\na crop: mean IU {reached:.4f}; of its label {STRIDE} down and up again {ceiling:.4f}; {seconds:.0f} s")
    assert 0.8 < ceiling < 1
    assert reached > ceiling - 0.03


def mean_losses(config, checkpoint):
    """Of the whole training images: their number, the network's mean cross-entropy, the best constant prediction's."""
    dataset = build_dataset(config.data, config.weights)
    task = build_task(config, dataset.spec).eval()
    load_weights(task.model, checkpoint)
    loader = build_data(config, dataset, geometry_of(task.model)).evaluation_loader("train")
    total, counts_K = 0.0, np.zeros(len(CLASSES))
    with torch.inference_mode():
        for batch in loader:
            target_BHW = batch.targets["semantic"]
            labelled = target_BHW[target_BHW != VOID].numpy()
            total += float(task.losses["semantic"](task(batch.images)["semantic"], target_BHW)) * len(labelled)
            counts_K += np.bincount(labelled, minlength=len(CLASSES))
    # No constant has a lower cross-entropy than the classes' frequencies, whose own is their entropy.
    frequency_K = counts_K[counts_K > 0] / counts_K.sum()
    return len(loader), total / counts_K.sum(), float(-(frequency_K * np.log(frequency_K)).sum())


def test_on_forty_images_it_does_better_than_the_best_constant(sample, compose, tmp_path):
    tested = tmp_path / "tested.txt"
    tested.write_text(PascalVOC(sample, protocol="voc2012", partial=True).split("test").ids[0])
    given = (
        *(*SETTINGS, f"data.root={sample}", "data.partial=true", "data.train=voc2012_train", f"data.test={tested}"),
        *("data.tile=320", "optimizer.lr=1e-4", "trainer.max_steps=600", "task.channels_last=true"),
    )
    started = time.process_time()
    train(compose(*given), tmp_path / "run", list(given))
    seconds = time.process_time() - started
    images, loss, entropy = mean_losses(compose(*given), tmp_path / "run" / "checkpoints" / "last.ckpt")
    print(f"\n{images} images: loss {loss:.4f}; of the best constant prediction {entropy:.4f}; {seconds:.0f} s")
    assert images == 40
    assert loss < entropy
