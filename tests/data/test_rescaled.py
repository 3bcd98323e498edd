import pytest

from segbench.data.nyudv2 import MODALITIES
from segbench.data.rescaled import IMAGENET_STD, colours_as, rescaled
from segbench.models.published.sets import IMAGENET, WEIGHT_SETS
from segbench.spec import DatasetSpec, HeadSpec, ModalitySpec

VGG = "VGG_ILSVRC_16_layers"


class OfSpec:
    def __init__(self, **modalities):
        heads = {"semantic": HeadSpec(tuple("abcd"), ((0, 0, 0),) * 4)}
        self.spec = DatasetSpec("d", modalities, heads, "", "", "")

    def split(self, name):
        return name


def nyud():
    return OfSpec(rgb=MODALITIES["rgb"], hha=MODALITIES["hha"])


@pytest.mark.parametrize(
    ("modality", "weights", "std"),
    [
        (ModalitySpec(1, (126.0,), (44.0,), "grey level, 0 to 255"), VGG, 1.0),
        (ModalitySpec(3, (90.0,) * 3, (50.0,) * 3, "value, 0 to 255"), VGG, 1.0),
        # ImageNet's deviation, whatever the unit.
        (ModalitySpec(1, (9000.0,), (5760.0,), "value, 0 to 65535"), VGG, 5760 / IMAGENET_STD),
        # torchvision's nets take a deviation of 1, as the data set gives it.
        (ModalitySpec(1, (9000.0,), (5760.0,), "value, 0 to 65535"), "torchvision-vgg16", 5760.0),
        (ModalitySpec(1, (7.8,), (1.0,), "ln(millimetres)"), VGG, 1.0),
    ],
    ids=["em", "own images", "16 bit", "torchvision", "depth"],
)
def test_images_come_on_the_scale_of_the_weights(modality, weights, std):
    ours = rescaled(OfSpec(image=modality), WEIGHT_SETS[weights].inputs).spec.modalities["image"]
    assert ours.std == pytest.approx((std,) * modality.channels, rel=1e-3)
    assert (ours.mean, ours.unit) == (modality.mean, modality.unit)


def test_weights_of_another_scale_bring_theirs_along():
    # torchvision: ((value / 255) - 0.485) / 0.229 for red.
    ours = rescaled(nyud(), WEIGHT_SETS["torchvision-vgg16"].inputs)
    red = (ours.spec.modalities["rgb"].mean[0], ours.spec.modalities["rgb"].std[0])
    assert (200 - red[0]) / red[1] == pytest.approx((200 / 255 - 0.485) / 0.229)
    assert ours.spec.modalities["hha"] == MODALITIES["hha"]
    assert (ours.spec.heads, ours.split("train")) == (nyud().spec.heads, "train")


def test_colours_under_any_name_are_as_weights_of_no_named_set_expect_them():
    colours = ModalitySpec(3, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), "value, 0 to 255")
    grey = ModalitySpec(1, (9.0,), (4.0,), "value, 0 to 255")
    deep = ModalitySpec(3, (9e3,) * 3, (5760.0,) * 3, "value, 0 to 65535")
    dataset = OfSpec(image=colours, hha=colours, grey=grey, deep=deep)
    ours = rescaled(dataset, colours_as(IMAGENET, dataset.spec)).spec.modalities
    assert ours["image"].mean == pytest.approx((123.675, 116.28, 103.53))
    assert ours["image"].std == pytest.approx((58.395, 57.12, 57.375))
    # (0.229 + 0.224 + 0.225) / 3 * 255 = 57.63; HHA and grey keep their mean.
    assert ours["hha"].mean == colours.mean and ours["hha"].std == pytest.approx((57.63,) * 3)
    assert ours["grey"].mean == grey.mean and ours["grey"].std == pytest.approx((57.63,))
    # 16 bit: to ImageNet's deviation of 57.6 / 57.63.
    assert ours["deep"].std == pytest.approx((5760 * 57.63 / 57.6,) * 3)


@pytest.mark.parametrize("name", [name for name in WEIGHT_SETS if name != "torchvision-vgg16"])
def test_weights_of_its_scale_leave_a_data_sets_means(name):
    dataset = nyud()
    assert rescaled(dataset, WEIGHT_SETS[name].inputs) is dataset
