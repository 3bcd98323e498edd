"""Several networks as one: hand-checked means, every way through the inference, common sizes."""

import pytest
import torch
from torch import nn

from segbench.errors import SegbenchError
from segbench.inference.ensemble import Ensemble, common_geometry, scales_between
from segbench.inference.forward import geometry_of
from segbench.inference.stream import predict_image
from segbench.models.sliding_window import SlidingWindow
from segbench.models.unet import UNet
from segbench.spec import ModalitySpec, TileGeometry

SCALED = {"em": ModalitySpec(1, (0.0,), (1.0,), "1")}


class Says(nn.Module):
    """The same logits for every pixel, or the image's own values."""

    def __init__(self, logits=None):
        super().__init__()
        self.logits = None if logits is None else torch.tensor(logits)

    def forward(self, image_BCHW):
        if self.logits is None:
            return {"semantic": torch.cat([image_BCHW, -image_BCHW], 1)}
        return self.logits[None, :, None, None].expand(len(image_BCHW), -1, *image_BCHW.shape[2:])


def ensemble(*members, scales=None):
    return Ensemble(
        members, [geometry_of(each) for each in members], ("semantic",), scales or [{} for _ in members]
    ).eval()


def drawn(seed, **given):
    torch.manual_seed(seed)
    return UNet(1, 2, **({"width": 4, "depth": 2, "padding": "same", "dropout": 0.0} | given)).eval()


def test_the_mean_is_of_probabilities_not_of_scores():
    members = Says([0.0, 0.0]), Says([200.0, -200.0]), Says([-1.0, 1.0])
    found = predict_image(ensemble(*members), {"em": torch.zeros(1, 3, 2)}, ("semantic",))["semantic"]
    expected = (torch.tensor([0.5, 0.5]) + torch.tensor([1.0, 0.0]) + torch.tensor([-1.0, 1.0]).softmax(0)) / 3
    assert torch.allclose(found, expected[:, None, None].expand(2, 3, 2), atol=1e-7)


def test_scores_of_certain_networks_stay_finite():
    output = ensemble(Says([300.0, -300.0]), Says([300.0, -300.0]))(torch.zeros(1, 1, 2, 2))["semantic"]
    assert output.isfinite().all()
    assert torch.allclose(output.softmax(1)[0, :, 0, 0], torch.tensor([1.0, 0.0]), atol=1e-37)


@pytest.mark.parametrize("how", [{}, {"tile": 32}, {"tta": "rot4"}, {"overlap": 0.25, "tile": 32}], ids=str)
def test_every_way_gives_the_mean_of_its_members(how):
    members = [drawn(seed) for seed in range(3)]
    image = {"em": torch.randn(1, 70, 52, generator=torch.Generator().manual_seed(0))}
    found = predict_image(ensemble(*members), image, ("semantic",), **how)["semantic"]
    each = [predict_image(member, image, ("semantic",), **how)["semantic"] for member in members]
    assert torch.allclose(found, torch.stack(each).mean(0), atol=1e-6)


def test_large_images_go_through_in_strips(monkeypatch, caplog):
    from segbench.inference import forward

    members = [drawn(seed) for seed in range(2)]
    image = {"em": torch.randn(1, 90, 64, generator=torch.Generator().manual_seed(0))}
    whole = predict_image(ensemble(*members), image, ("semantic",))["semantic"]
    monkeypatch.setattr(forward, "WHOLE_PIXELS", 2**10)
    strips = predict_image(ensemble(*members), image, ("semantic",))["semantic"]
    assert torch.allclose(strips, whole, atol=1e-6)
    assert "strips" not in caplog.text


def test_padded_networks_of_unlike_depth_give_the_mean_of_what_each_gives():
    members = drawn(0), drawn(1, depth=3), drawn(2, depth=1)
    joint = ensemble(*members)
    image = {"em": torch.randn(1, 48, 40, generator=torch.Generator().manual_seed(0))}
    found = predict_image(joint, image, ("semantic",), tile=16)["semantic"]
    each = [predict_image(member, image, ("semantic",))["semantic"] for member in members]
    assert torch.allclose(found, torch.stack(each).mean(0), atol=1e-6)


def test_sides_that_suit_one_suit_all():
    one = TileGeometry(step=4, offset=2, margin=3, minimum=2, context=9)
    other = TileGeometry(step=6, offset=4, margin=3, context=5)
    joint = common_geometry([one, other])
    valid = [side for side in range(200) if one.is_valid(side) and other.is_valid(side)]
    assert [side for side in range(200) if joint.is_valid(side)] == valid
    assert (joint.margin, joint.context) == (3, 9)


@pytest.mark.parametrize(
    "others", [TileGeometry(), TileGeometry(step=4, offset=1, margin=3), TileGeometry(step=4, offset=2, margin=2)]
)
def test_networks_of_unlike_tiles_are_refused(others):
    with pytest.raises(SegbenchError, match="the same tiles"):
        common_geometry([TileGeometry(step=4, offset=2, margin=3), others])


@pytest.mark.parametrize("tile", [None, 9])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)], ids=str)
def test_windows_of_unlike_sides_give_the_mean_of_what_each_gives(order, tile):
    # The submission of the sliding-window paper: one network of window 95, the others of 65, some with a wider field.
    torch.manual_seed(0)
    made = [
        SlidingWindow(window=19, kernels=(4, 3), maps=2, hidden=3),
        SlidingWindow(window=13, kernels=(4, 2), maps=2, hidden=3),
        SlidingWindow(window=13, kernels=(4, 2), maps=2, hidden=3, field=17, foveation=1.0),
    ]
    members = [made[number].eval() for number in order]
    image = {"em": torch.randn(1, 22, 14, generator=torch.Generator().manual_seed(0))}
    scales = [{}, scales_between(SCALED, SCALED | {"em": ModalitySpec(1, (1.0,), (2.0,), "1")}), {}]
    found = predict_image(ensemble(*members, scales=scales), image, ("semantic",), tile=tile)["semantic"]
    seen = [image, {"em": (image["em"] - 1) / 2}, image]
    each = [predict_image(member, own, ("semantic",)) for member, own in zip(members, seen, strict=True)]
    assert torch.allclose(found, torch.stack([own["semantic"] for own in each]).mean(0), atol=1e-6)


def test_windows_beside_an_unpadded_unet_see_what_they_see_alone():
    window = SlidingWindow(window=13, kernels=(4, 2), maps=2, hidden=3).eval()
    members = drawn(0, padding="valid"), window
    image = {"em": torch.randn(1, 40, 33, generator=torch.Generator().manual_seed(0))}
    found = predict_image(ensemble(*members), image, ("semantic",))["semantic"]
    each = [predict_image(member, image, ("semantic",))["semantic"] for member in members]
    assert torch.allclose(found, torch.stack(each).mean(0), atol=1e-6)


def test_each_network_gets_its_own_scale():
    ours = {"em": ModalitySpec(1, (100.0,), (20.0,), "grey level, 0 to 255")}
    theirs = {"em": ModalitySpec(1, (90.0,), (40.0,), "grey level, 0 to 255")}
    raw = torch.tensor([[[[30.0, 250.0]]]])
    member = Says()
    joint = ensemble(member, member, scales=[{}, scales_between(ours, theirs)])
    found = joint((raw - 100) / 20)["semantic"].softmax(1)
    each = [member((raw - mean) / std)["semantic"].softmax(1) for mean, std in ((100, 20), (90, 40))]
    assert torch.allclose(found, torch.stack(each).mean(0), atol=1e-6)
    assert scales_between(ours, ours) == {}
