from importlib import import_module

from segbench.config.former import with_current_targets, with_former_targets
from segbench.config.trust import packaged_targets

NAMES_OF_0_1_0 = (
    "segbench.callbacks.checkpoints.Checkpoints",
    "segbench.callbacks.csv_log.RunCsv",
    "segbench.callbacks.curves.Curves",
    "segbench.callbacks.ema.AveragedWeights",
    "segbench.callbacks.energy.Energy",
    "segbench.callbacks.extremes.Extremes",
    "segbench.callbacks.guard.FiniteLoss",
    "segbench.callbacks.pictures.Inspect",
    "segbench.callbacks.pictures.Panels",
    "segbench.callbacks.progress.RunProgress",
    "segbench.data.augment.Augmentation",
    "segbench.data.cell_tracking.CellTracking",
    "segbench.data.elastic.RigidElastic",
    "segbench.data.image_folder.ImageFolder",
    "segbench.data.isbi_em.IsbiEM",
    "segbench.data.nyudv2.NYUDv2",
    "segbench.data.pascal_voc.PascalVOC",
    "segbench.data.sift_flow.SiftFlow",
    "segbench.data.synthetic_em.SyntheticEM",
    "segbench.data.weights.LossWeights",
    "segbench.losses.CrossEntropy",
    "segbench.losses.Dice",
    "segbench.losses.Focal",
    "segbench.losses.LovaszSoftmax",
    "segbench.losses.Sum",
    "segbench.losses.WeightedCrossEntropy",
    "segbench.metrics.confusion.Overlap",
    "segbench.metrics.decoding.Decoding",
    "segbench.metrics.information.VInfo",
    "segbench.metrics.instances.InstanceOverlap",
    "segbench.metrics.instances.Seg",
    "segbench.metrics.pixel.PixelError",
    "segbench.metrics.rand.RandError",
    "segbench.metrics.splits_and_merges.WarpingError",
    "segbench.metrics.thinned_rand.VRand",
    "segbench.metrics.threshold_baseline.ThresholdBaseline",
    "segbench.models.fcn.fcn16s",
    "segbench.models.fcn.fcn32s",
    "segbench.models.fcn.fcn8s",
    "segbench.models.fcn.fcn8s_at_once",
    "segbench.models.fcn.fcn_alexnet",
    "segbench.models.fcn.fcn_googlenet",
    "segbench.models.unet.UNet",
    "segbench.models.unet_vgg16.UNetVGG16",
    "segbench.optim.adamw",
    "segbench.optim.constant",
    "segbench.optim.cosine",
    "segbench.optim.poly",
    "segbench.optim.sgd",
)
"""Every class and function of ours that the packaged configs of version 0.1.0 named."""


def test_whatever_an_old_run_names_is_there_and_allowed():
    for old in NAMES_OF_0_1_0:
        module, _, name = with_current_targets({"_target_": old})["_target_"].rpartition(".")
        assert hasattr(import_module(module), name), old
        assert f"{module}.{name}" in packaged_targets()


def test_names_are_found_at_any_depth_and_nothing_else_changes():
    config = {"a": [{"_target_": "segbench.optim.sgd", "path": "segbench.optim.sgd"}], "_target_": 3}
    assert with_current_targets(config) == {
        "a": [{"_target_": "segbench.training.optim.sgd", "path": "segbench.optim.sgd"}],
        "_target_": 3,
    }


def test_the_former_names_come_back():
    config = {"a": [{"_target_": "segbench.training.optim.sgd", "lr": 1}], "b": {"_target_": "torch.nn.Linear"}}
    assert with_current_targets(with_former_targets(config)) == config
    assert with_former_targets(config)["a"][0]["_target_"] == "segbench.optim.sgd"
