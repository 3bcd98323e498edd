import zipfile

import pytest
import torch

from segbench.errors import SegbenchError
from segbench.models.published.state_dict import read_state_dict
from segbench.training.checkpoint import read_checkpoint

WEIGHTS = {"model.w": torch.zeros(2)}


class Code:
    def __reduce__(self):
        return (print, ("ran",))


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"state_dict": WEIGHTS},
        {"state_dict": torch.zeros(2), "global_step": 3},
        {"state_dict": {"w": 3}, "global_step": 3},
        {"state_dict": {3: torch.zeros(2)}, "global_step": 3},
        {"state_dict": WEIGHTS, "global_step": torch.zeros(0)},
        {"state_dict": WEIGHTS, "global_step": -1},
        {"state_dict": WEIGHTS, "global_step": 3, "epoch": "1"},
        {"state_dict": WEIGHTS, "global_step": 3, "averaged_model": torch.zeros(2)},
        {"state_dict": WEIGHTS, "global_step": 3, "averaged_model": "a"},
        {"state_dict": WEIGHTS, "global_step": 3, "hyper_parameters": Code()},
    ],
)
def test_what_is_no_checkpoint_is_told(tmp_path, capsys, content):
    path = tmp_path / "last.ckpt"
    torch.save(content, path)
    with pytest.raises(SegbenchError, match=rf"{path} (holds|cannot be read)"):
        read_checkpoint(path)
    assert capsys.readouterr().out == ""


def test_a_checkpoint_is_read(tmp_path):
    torch.save({"state_dict": WEIGHTS, "global_step": 3, "epoch": 0, "averaged_model": {}}, tmp_path / "last.ckpt")
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 3


@pytest.mark.parametrize("read", [read_checkpoint, read_state_dict])
def test_packed_entries_are_refused_before_they_are_unpacked(tmp_path, read):
    torch.save({"state_dict": {"a": torch.zeros(2**18)}, "global_step": 1}, tmp_path / "whole.pth")
    with zipfile.ZipFile(tmp_path / "whole.pth") as whole, zipfile.ZipFile(tmp_path / "a.pth", "w", 8) as packed:
        for entry in whole.infolist():
            packed.writestr(entry.filename, whole.read(entry))
    with pytest.raises(SegbenchError, match="its entries are packed"):
        read(tmp_path / "a.pth")
