import pytest
import torch

from segbench.runs.directory import Run
from segbench.spec import DatasetSpec, HeadSpec, ModalitySpec

COLOUR = ModalitySpec(3, (123.0, 117.0, 104.0), (1.0,) * 3, "R, G, B, 0 to 255")
DEPTH = ModalitySpec(1, (7.8,), (1.0,), "ln(millimetres)")
SCENE = HeadSpec(("sky", "road", "tree"), ((0, 0, 0), (128, 0, 0), (0, 128, 0)))
SURFACE = HeadSpec(("flat", "upright"), ((0, 0, 255), (255, 0, 0)))


@pytest.fixture(scope="session")
def scenes():
    """`scenes("rgb", "depth", heads=2)`: a data set of one or two modalities and one or two heads."""

    def described(*modalities, heads=1):
        chosen = {name: {"rgb": COLOUR, "hha": COLOUR, "depth": DEPTH}[name] for name in modalities}
        labellings = {"semantic": SCENE, "geometric": SURFACE} if heads == 2 else {"semantic": SCENE}
        return DatasetSpec("scenes", chosen, labellings, "whom to cite", "a licence", "a protocol")

    return described


@pytest.fixture(scope="session")
def trained():
    """`trained(model)`: a stand-in for a trained network, nothing in it zero; running statistics are of its own."""

    def filled(model):
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                spread = (2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.1
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
            for name, buffer in model.named_buffers():
                if name.endswith("running_var"):
                    buffer.fill_(1.5)
        return model.eval()

    return filled


@pytest.fixture
def run_of(tmp_path, compose, trained):
    """`run_of(spec, *overrides)`: a run directory of the network that the overrides name, and the network."""
    from segbench.experiment.build import build_model

    def made(spec, *overrides):
        config = compose("name=stand_in", *overrides)
        model = trained(build_model(config.model, spec))
        with Run.create(tmp_path / "run", config, []) as run:
            run.write_dataset(spec.to_dict())
            state = {f"model.{name}": value for name, value in model.state_dict().items()}
            torch.save({"state_dict": state, "global_step": 7}, run.checkpoints / "last.ckpt")
        return run.path, model

    return made
