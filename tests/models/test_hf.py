"""Against transformers itself, which is not in the default environment (make test-networks)."""

import pytest
import torch
from torch.nn import functional as F

from segbench.config.record import InitialWeights
from segbench.errors import SegbenchError
from segbench.experiment.initialise import initialise
from segbench.models import HF

pytestmark = pytest.mark.networks
SEGFORMER = {
    "depths": [1] * 4,
    "hidden_sizes": [8, 16, 24, 32],
    "decoder_hidden_size": 16,
    "num_attention_heads": [1] * 4,
}
STAGES = ["stage1", "stage2", "stage3", "stage4"]
RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1] * 4}
SWIN = {"model_type": "swin", "embed_dim": 8, "depths": [1] * 4, "num_heads": [1] * 4, "window_size": 4}
UPERNET = {"backbone_config": {**RESNET, "layer_type": "basic", "out_features": STAGES}, "hidden_size": 16}
MASK2FORMER = {
    "backbone_config": {**SWIN, "out_features": STAGES},
    **{"hidden_dim": 32, "feature_size": 32, "mask_feature_size": 32, "num_queries": 6, "num_attention_heads": 2},
    **{"encoder_layers": 1, "decoder_layers": 2, "dim_feedforward": 32, "encoder_feedforward_dim": 32},
}
MASKFORMER = {
    "backbone_config": {**SWIN, "out_features": STAGES},
    **{"fpn_feature_size": 32, "mask_feature_size": 32},
    "decoder_config": {
        **{"model_type": "detr", "d_model": 32, "num_queries": 6, "encoder_layers": 1, "decoder_layers": 1},
        **{"encoder_attention_heads": 2, "decoder_attention_heads": 2},
        **{"encoder_ffn_dim": 32, "decoder_ffn_dim": 32},
    },
}


@pytest.fixture(scope="module", autouse=True)
def transformers(package):
    return package("transformers")


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("segformer", SEGFORMER),
        ("upernet", UPERNET),
        ("mask2former", MASK2FORMER),
        ("maskformer", MASKFORMER),
    ],
)
def test_scores_as_large_as_the_image_train_every_weight(architecture, config):
    torch.manual_seed(0)
    model = HF({"rgb": 3, "depth": 1}, {"semantic": 3, "geometric": 2}, architecture, config)
    images = {"rgb": torch.randn(2, 3, 64, 96), "depth": torch.randn(2, 1, 64, 96)}
    logits = model(images)
    assert {name: tuple(value.shape) for name, value in logits.items()} == {
        "semantic": (2, 3, 64, 96),
        "geometric": (2, 2, 64, 96),
    }
    sum(value.log_softmax(1)[:, 0].mean() for value in logits.values()).backward()
    # Swin as a backbone normalises each of its maps, and has a last normalisation that nothing uses.
    idle = {
        name.rpartition(".")[0].rpartition(".")[2] for name, value in model.named_parameters() if value.grad is None
    }
    assert idle <= {"layernorm"}
    assert ("pixel by pixel" in model.remark) == (architecture in ("mask2former", "maskformer"))


def test_segformer_is_scaled_up_as_its_paper_does(transformers):
    model = HF(3, 5, "segformer", SEGFORMER).eval()
    assert isinstance(model.network, transformers.SegformerForSemanticSegmentation)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        small = model.network(image).logits
        assert small.shape == (1, 5, 16, 24)
        assert torch.equal(model(image), F.interpolate(small, (64, 96), mode="bilinear", align_corners=False))


def test_masks_are_scored_as_transformers_scores_them(transformers):
    torch.manual_seed(0)
    model = HF(3, 4, "mask2former", MASK2FORMER).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        output = model.network(image)
        classes = output.class_queries_logits.softmax(-1)[0, :, :-1]
        masks = F.interpolate(output.masks_queries_logits, (64, 64), mode="bilinear", align_corners=False).sigmoid()[0]
        expected = sum(classes[q, :, None, None] * masks[q] for q in range(6))
        torch.testing.assert_close(model(image)[0].exp(), expected)
        (labels,) = transformers.Mask2FormerImageProcessor().post_process_semantic_segmentation(output, [(64, 64)])
    # The processor brings masks to 384 x 384 before it brings them to the image.
    assert (labels == model(image)[0].argmax(0)).float().mean() > 0.97


def test_a_saved_folder_gives_config_and_weights(transformers, tmp_path):
    config = transformers.AutoConfig.for_model("segformer", **SEGFORMER, num_labels=7)
    theirs = transformers.AutoModelForSemanticSegmentation.from_config(config)
    theirs.save_pretrained(tmp_path)
    settled = HF.settled({"architecture": "segformer", "options": None}, str(tmp_path))
    assert settled["options"]["hidden_sizes"] == [8, 16, 24, 32] and "id2label" not in settled["options"]
    assert "mean" not in settled
    same, other = (HF(3, count, **settled) for count in (7, 2))
    (report,) = initialise(same, InitialWeights(path=str(tmp_path)))
    assert "drawn" not in report
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in same.network.state_dict().items())
    (report,) = initialise(other, InitialWeights(path=str(tmp_path)))
    (drawn,) = (line for line in report.splitlines() if "drawn" in line)
    assert drawn.split(": ")[1].split(", ") == [
        "network.decode_head.classifier.weight",
        "network.decode_head.classifier.bias",
    ]
    transformers.SegformerImageProcessor(image_mean=[0.5] * 3, image_std=[0.25] * 3).save_pretrained(tmp_path)
    assert HF.settled({"options": None}, str(tmp_path))["std"] == [0.25] * 3
    # A run that is read back asks nothing.
    assert HF.settled(settled | {"pretrained": "nobody/nothing"}, None)["options"] == settled["options"]


def test_a_classification_net_fills_the_encoder(transformers, tmp_path):
    config = transformers.AutoConfig.for_model("segformer", **SEGFORMER)
    theirs = transformers.SegformerForImageClassification(config)
    theirs.save_pretrained(tmp_path)
    model = HF(3, 2, "segformer", SEGFORMER)
    (report,) = initialise(model, InitialWeights(path=str(tmp_path)))
    assert "drawn: network.decode_head" in report and "drawn: network.segformer" not in report
    state = theirs.state_dict()
    mine = {name: value for name, value in model.network.state_dict().items() if name.startswith("segformer.")}
    assert mine and all(torch.equal(value, state[name]) for name, value in mine.items())


def test_what_it_refuses(tmp_path):
    with pytest.raises(SegbenchError, match=r"model\.architecture=bert"):
        HF(3, 2, "bert")
    with pytest.raises(SegbenchError, match="cannot be fetched or read"):
        HF.settled({"options": None}, str(tmp_path / "none"))
