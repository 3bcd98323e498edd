"""Networks of other packages through the commands, up to a run that is read back without a network."""

import json
import socket

import numpy as np
import pytest
import torch
from PIL import Image

from segbench.models import HF, SMP, FCNResNet, TimmUNet

SEGFORMER = "{depths: [1,1,1,1], hidden_sizes: [8,16,24,32], decoder_hidden_size: 16, num_attention_heads: [1,1,1,1]}"
MASK2FORMER = (
    "{backbone_config: {model_type: swin, embed_dim: 8, depths: [1,1,1,1], num_heads: [1,1,1,1], window_size: 4, "
    "out_features: [stage1,stage2,stage3,stage4]}, hidden_dim: 32, feature_size: 32, mask_feature_size: 32, "
    "num_queries: 6, num_attention_heads: 2, encoder_layers: 1, decoder_layers: 2, dim_feedforward: 32, "
    "encoder_feedforward_dim: 32}"
)
UPERNET = (
    "{backbone_config: {model_type: resnet, embedding_size: 8, hidden_sizes: [8,16,24,32], depths: [1,1,1,1], "
    "layer_type: basic, out_features: [stage1,stage2,stage3,stage4]}, hidden_size: 16}"
)
UNET = ("model=smp", "model.encoder=resnet18", "model.options={encoder_depth: 3, decoder_channels: [16, 8, 4]}")
MONAI = "{_target_: monai.networks.nets.UNet, channels: [4, 8, 8], strides: [2, 2]}"
PICKS = {
    "smp": ("segmentation_models_pytorch", UNET),
    "timm_unet": ("timm", ("model=timm_unet", "model.encoder=mobilenetv3_small_050", "model.width=4")),
    "segformer": ("transformers", ("model=hf", f"model.options={SEGFORMER}")),
    "upernet": ("transformers", ("model=hf", "model.architecture=upernet", f"model.options={UPERNET}")),
    "mask2former": ("transformers", ("model=hf", "model.architecture=mask2former", f"model.options={MASK2FORMER}")),
    "monai": ("monai", ("model._target_=segbench.models.wrapped.Wrapped", "model.step=4", f"model.network={MONAI}")),
}
SMALL = (
    *("trainer=cpu", "threads=1", "trainer.precision=32-true", "trainer.max_steps=3", "trainer.val_check_interval=3"),
    *("data.tile=64", "data.batch_size=2", "data.repeats=4", "callbacks.checkpoint.every_n_train_steps=1"),
    *("task.channels_last=false", "optimizer.lr=1e-3", "name=net"),
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Eight pictures of 64 x 80 pixels with lighter squares on a darker ground, and their masks."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for number in range(8):
        mask = np.kron(rng.random((4, 5)) > 0.5, np.ones((16, 16))).astype(np.uint8)
        image = rng.normal(90, 20, (64, 80, 3)) + mask[..., None] * (80, 20, -30)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{number}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
    return folder


@pytest.fixture
def offline(monkeypatch):
    """Whoever asks for a name or an address beyond this machine fails, and is remembered."""
    asked = []

    def refuse(*address, **_):
        asked.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: refuse(address))
    return asked


def read_back(call, run, photos, tmp_path):
    """Everything that reads a run; the scores of its test."""
    code, _, err = call("evaluate", f"run={run}", "split=test", f"hydra.run.dir={tmp_path / 'scored'}")
    assert code == 0, err
    code, _, err = call("predict", f"run={run}", f"input={photos / 'images'}", f"output={tmp_path / 'masks'}")
    assert code == 0 and len(list((tmp_path / "masks").glob("*.png"))) == 8, err
    scores = [json.loads((path / "results.json").read_text())["metrics"] for path in (run, tmp_path / "scored")]
    assert scores[0]["test/mean_iu"] == scores[1]["test/mean_iu"]
    code, _, err = call("train", f"resume={run}", "trainer.max_steps=4")
    assert code == 0, err
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4


def folders(photos):
    return ("data=image_folder", f"data.images={photos / 'images'}", f"data.masks={photos / 'masks'}")


@pytest.mark.slow
def test_fcn_resnet_from_a_file_of_torchvision(call, photos, offline, tmp_path):
    torch.save(FCNResNet(3, 21, width=1 / 32).state_dict(), tmp_path / "fcn.pth")
    given = ["model=fcn_resnet50", "model.width=0.03125", f"weights.path={tmp_path / 'fcn.pth'}", *SMALL]
    given += folders(photos)
    code, _, err = call("train", *given, f"hydra.run.dir={tmp_path / 'refused'}")
    assert code == 1 and "weights.leave=[...]" in err
    code, _, err = call("train", *given, "weights.leave=[classifier.4]", f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 0, err
    log = (tmp_path / "run" / "run.log").read_text()
    assert "input image: value, 0 to 255, less 123.675, 116.28, 103.53, over 58.395, 57.12, 57.375" in log
    assert "drawn: classifier.4.weight, classifier.4.bias" in log
    # Only the beginning of a run reads the file.
    (tmp_path / "fcn.pth").unlink()
    read_back(call, tmp_path / "run", photos, tmp_path)
    assert offline == []


@pytest.mark.networks
@pytest.mark.parametrize("pick", PICKS)
def test_trained_scored_predicted_with_and_continued(pick, call, photos, offline, tmp_path, monkeypatch, package):
    name, given = PICKS[pick]
    package(name)
    fetched = []

    def from_the_hub(self, path):
        fetched.append(path)
        return self.state_dict()

    for adapter in (SMP, TimmUNet, HF):
        monkeypatch.setattr(adapter, "published_weights", from_the_hub)
    own = (
        [] if pick == "monai" else ["model.pretrained=its/name", "model.mean=[0.1,0.2,0.3]", "model.std=[0.2,0.2,0.2]"]
    )
    code, _, err = call("train", *given, *own, *SMALL, *folders(photos), f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 0, err
    assert ("pixel by pixel" in err) == (pick == "mask2former")
    assert ("less 25.5, 51, 76.5, over 51, 51, 51" in err) == (pick != "monai")
    read_back(call, tmp_path / "run", photos, tmp_path)
    for path in (tmp_path / "run", tmp_path / "scored"):
        assert json.loads((path / "results.json").read_text())["provenance"]["versions"][name]
    assert fetched == ([] if pick == "monai" else [None]) and offline == []


@pytest.mark.networks
@pytest.mark.parametrize("pick", ["smp", "timm_unet", "segformer"])
def test_a_hub_out_of_reach_is_one_sentence(pick, call, photos, offline, tmp_path, monkeypatch, package):
    name, given = PICKS[pick]
    package(name)
    pretrained = {"smp": "imagenet", "timm_unet": "default", "segformer": "nvidia/mit-b0"}[pick]
    own = [f"model.pretrained={pretrained}", "model.options=null"][: 2 if pick == "segformer" else 1]
    # Its package waits longer from try to try.
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    code, _, err = call("train", *given, *own, *SMALL, *folders(photos), f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 1 and len(offline) > 0
    (error,) = (line for line in err.splitlines() if line.startswith("error:"))
    assert f"the weights {pretrained} cannot be fetched or read" in error
    assert "set weights.path=FILE" in err and "Traceback" not in err and "Retrying" not in err


@pytest.mark.slow
@pytest.mark.networks
@pytest.mark.parametrize("pick", ["smp", "timm_unet", "segformer"])
def test_exported_for_other_programs(pick, call, photos, tmp_path, package):
    name, given = PICKS[pick]
    package(name)
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: make test-networks")
    run = tmp_path / "run"
    code, _, err = call(
        "train",
        *given,
        *SMALL,
        *folders(photos),
        "trainer.max_steps=1",
        "trainer.val_check_interval=1",
        f"hydra.run.dir={run}",
    )
    assert code == 0, err
    code, _, err = call("export", f"run={run}", "format=onnx", f"output={tmp_path / 'net.onnx'}")
    assert code == 0, err
