"""Each part alone, and a training of two steps."""

from pathlib import Path

import numpy as np
import segbench
import torch

from starter.data import Discs
from starter.losses import Tversky
from starter.networks import ConvNet

CONF = Path(__file__).parents[1] / "starter" / "conf"


def test_images_are_a_function_of_their_index() -> None:
    """Two data sets read the same; masks hold the two classes."""
    one, other = (Discs(side=32).split("val").read(1) for _ in range(2))
    np.testing.assert_array_equal(one.images["grey"], other.images["grey"])
    assert one.images["grey"].shape == one.labels["kind"].shape == (32, 32)
    assert set(np.unique(one.labels["kind"])) <= {0, 1}


def test_the_network_keeps_the_size() -> None:
    """Logits BKHW of images BCHW."""
    assert ConvNet(1, 2, width=4)(torch.zeros(2, 1, 20, 24)).shape == (2, 2, 20, 24)


def test_the_loss_is_zero_for_a_sure_and_right_network() -> None:
    """And one for a sure and wrong one."""
    target = torch.randint(0, 2, (1, 8, 8), generator=torch.Generator().manual_seed(0))
    logits = 100.0 * torch.nn.functional.one_hot(target, 2).movedim(-1, 1)
    assert Tversky()(logits, target) < 1e-6
    assert Tversky()(-logits, target) > 1 - 1e-6


def test_it_trains(tmp_path: Path) -> None:
    """Two steps, a validation and the test, through the configs."""
    few = ["trainer.max_steps=2", "trainer.val_check_interval=2", "data.side=32", "data.test=2"]
    run = segbench.train(["experiment=starter", *few], config_dir=CONF, directory=tmp_path / "run")
    assert 0 <= run.results()["metrics"]["test/mean_iu"] <= 1
