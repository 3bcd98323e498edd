import pytest
import torch

from segbench.errors import SegbenchError
from segbench.inference.symmetries import symmetries


@pytest.mark.parametrize(("tta", "count"), [("none", 1), ("rot4", 4), ("d4", 8)])
def test_a_group_holds_distinct_symmetries_and_the_identity_first(tta, count):
    image = torch.arange(9).reshape(3, 3)
    images = [symmetry.apply(image) for symmetry in symmetries(tta)]
    assert torch.equal(images[0], image)
    assert len({tuple(image.flatten().tolist()) for image in images}) == count


def test_a_quarter_turn_and_a_mirrored_one():
    image = torch.tensor([[1, 2, 3], [4, 5, 6]])
    by_name = {symmetry.name: symmetry for symmetry in symmetries("d4")}
    assert by_name["turned by 90 degrees"].apply(image).tolist() == [[3, 6], [2, 5], [1, 4]]
    assert by_name["mirrored, turned by 0 degrees"].apply(image).tolist() == [[3, 2, 1], [6, 5, 4]]


@pytest.mark.parametrize("tta", ["none", "rot4", "d4"])
def test_undoing_returns_the_image_of_any_shape(tta):
    image = torch.arange(2 * 3 * 5).reshape(2, 3, 5)
    for symmetry in symmetries(tta):
        assert torch.equal(symmetry.undo(symmetry.apply(image)), image), symmetry.name


def test_an_unknown_group_is_refused():
    with pytest.raises(SegbenchError, match=r"tta=rot7\n  expected: none or rot4 or d4"):
        symmetries("rot7")
