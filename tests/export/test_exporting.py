import importlib.util
import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from segbench.cli import main as cli
from segbench.config.record import Recorded
from segbench.errors import SegbenchError
from segbench.experiment.build import build_dataset_spec, build_model
from segbench.export import formats
from segbench.export.exporting import export
from segbench.inference.stream import predict_image
from segbench.prediction.coding import Coder
from segbench.runs.directory import Run
from segbench.spec import HeadSpec, MaskCoding
from segbench.training.checkpoint import load_weights

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "onnx_predict.py"
FORMATS = ("onnx", "pt2")


@pytest.fixture(scope="module")
def exported(compose, tiny_run, tmp_path_factory):
    """The tiny run, unpadded and trained with dropout, as files by format."""
    folder = tmp_path_factory.mktemp("exported")
    return {
        name: export(compose(f"run={tiny_run}", f"format={name}", f"output={folder}/model.{name}", config="export"))
        for name in FORMATS
    }


@pytest.fixture
def exporting(compose, tiny_run, tmp_path):
    """`exporting(*overrides)`: export the tiny run."""

    def called(*overrides):
        chosen = [] if any(override.startswith("output=") for override in overrides) else [f"output={tmp_path}/m.pt2"]
        return export(compose(f"run={tiny_run}", "format=pt2", *chosen, *overrides, config="export"))

    return called


@pytest.fixture(scope="module")
def network(tiny_run):
    run = Run.open(tiny_run)
    model = build_model(run.config().model, build_dataset_spec(run))
    load_weights(model, run.checkpoint())
    return model.eval()


def description_of(path):
    if path.suffix == ".onnx":
        return json.loads(onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map["segbench"])
    extra = {"segbench.json": ""}
    torch.export.load(path, extra_files=extra)
    return json.loads(extra["segbench.json"])


@pytest.mark.parametrize("name", FORMATS)
def test_the_file_says_what_goes_in_and_comes_out(exported, tiny_run, name):
    about = description_of(exported[name])
    assert about["inputs"] == [
        {
            "name": "em",
            "channels": 1,
            "mean": [121.0],
            "std": [41.0],
            "unit": "grey level, 0 to 255",
            "reading": {"axes": None, "exif": "ignore", "nodata": None, "channels": None},
            "channel_order": "grey",
        }
    ]
    (head,) = about["outputs"]
    assert (head["name"], head["class_names"], head["palette"]) == (
        "semantic",
        ["membrane", "cell"],
        [[0, 0, 0], [255, 255, 255]],
    )
    assert [row["value"] for row in head["masks"]["classes"]] == [0, 1] and head["masks"]["void"] == 255
    assert about["geometry"] == {"step": 4, "offset": 12, "margin": 20, "minimum": 8, "context": 20}
    assert about["run"] == {"name": "tiny", "model": "segbench.models.unet.UNet", "checkpoint": "best", "step": 2}
    assert (about["dataset"]["name"], about["size"]) == ("synthetic_em", None)


def test_the_onnx_file_is_whole_and_names_its_sides(exported):
    onnx.checker.check_model(exported["onnx"], full_check=True)
    session = onnxruntime.InferenceSession(exported["onnx"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape) == (
        "em",
        "tensor(float)",
        ["batch", 1, *(f"{side}_multiple_of_4_plus_12" for side in ("height", "width"))],
    )
    assert (given.name, given.type) == ("semantic", "tensor(float)")
    assert given.shape == ["batch", 2, *(f"output_{name}" for name in taken.shape[2:])]
    assert [path.name for path in exported["onnx"].parent.iterdir() if path.suffix == ".onnx"] == ["model.onnx"]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("size", [(1, 44, 44), (3, 60, 48)])
def test_it_computes_what_the_network_does(exported, network, name, size):
    batch, height, width = size
    image = torch.randn(batch, 1, height, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(image).numpy()
    found = formats.FORMATS[name].open(exported[name])({"em": image.numpy()})["semantic"]
    assert found.shape == (batch, 2, height - 40, width - 40)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", FORMATS)
def test_no_file_names_folders_of_the_machine(exported, name):
    content = exported[name].read_bytes()
    assert str(Path(formats.__file__).parent).encode() not in content
    assert b".export-" not in content


def blocked(*packages):
    """A preamble that makes any other use of those packages fail."""
    return f"import sys; sys.modules.update(dict.fromkeys({packages!r}))\nimport runpy\n"


@pytest.mark.parametrize("size", [(23, 30), (64, 1)])
def test_the_example_needs_onnxruntime_alone_and_predicts_as_the_run(exported, network, tmp_path, size):
    grey_HW = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    Image.fromarray(grey_HW).save(tmp_path / "image.png")
    code = blocked("torch", "segbench", "lightning", "cv2", "onnx", "scipy", "tifffile", "yaml")
    code += f"sys.argv = ['x', {str(exported['onnx'])!r}, 'image.png', 'mask.png']\n"
    code += f"runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    image = torch.from_numpy((grey_HW.astype(np.float32) - 121) / 41)[None]
    prob_KHW = predict_image(network, {"em": image}, ["semantic"])["semantic"].numpy()
    mask = Image.open(tmp_path / "mask.png")
    assert (mask.mode, mask.size, mask.getpalette()[:6]) == ("P", size[::-1], [0, 0, 0, 255, 255, 255])
    # Where the classes are as good as even, rounding decides.
    sure_HW = np.abs(prob_KHW[1] - 0.5) > 1e-4
    assert sure_HW.mean() > 0.9
    assert np.array_equal(np.asarray(mask)[sure_HW], prob_KHW.argmax(0)[sure_HW])
    shares = {line.split(":")[0]: line.split()[2] for line in done.stdout.splitlines()}
    assert shares["cell (1)"] == f"{np.mean(np.asarray(mask) == 1):.1%}"


@pytest.mark.parametrize(
    ("kind", "values", "suffix", "written"),
    [
        ("ids", (0, 255), "png", (0, 255)),
        ("ids", (7, 65535), "png", (7, 65535)),
        ("ids", (-1, 70000), "tif", (-1, 70000)),
        ("palette", (3, 40), "png", (3, 40)),
        ("colours", (0x000000, 0x12AB00), "png", ((0, 0, 0), (0x12, 0xAB, 0))),
    ],
)
def test_the_example_writes_the_values_of_the_users_masks(
    exported, tmp_path, monkeypatch, kind, values, suffix, written
):
    model = onnx.load(exported["onnx"])
    (entry,) = (each for each in model.metadata_props if each.key == "segbench")
    about = json.loads(entry.value)
    colours = ((1, 2, 3), (4, 5, 6))
    coding = MaskCoding(kind, values, tuple(r << 16 | g << 8 | b for r, g, b in colours), 254)
    about["outputs"][0]["masks"] = Coder(HeadSpec(("membrane", "cell"), colours, coding=coding), own=True).table()
    entry.value = json.dumps(about)
    onnx.save(model, tmp_path / "m.onnx")
    grey_HW = np.random.default_rng(1).integers(0, 256, (23, 30), dtype=np.uint8)
    Image.fromarray(grey_HW).save(tmp_path / "image.png")
    masks = {name: tmp_path / f"{name}.{suffix}" for name in ("as_it_was", "own")}
    for network, mask in zip((exported["onnx"], tmp_path / "m.onnx"), masks.values(), strict=True):
        monkeypatch.setattr(sys, "argv", ["x", str(network), str(tmp_path / "image.png"), str(mask)])
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    found, indices_HW = (Image.open(mask) for mask in reversed(masks.values()))
    if kind == "palette":
        assert tuple(tuple(found.getpalette()[3 * value : 3 * value + 3]) for value in values) == colours
    np.testing.assert_array_equal(np.asarray(found), np.array(written)[np.asarray(indices_HW)])


def test_the_example_refuses_to_cut_off_ids(tmp_path):
    write = runpy.run_path(str(EXAMPLE))["write"]
    masks = {"values": "ids", "classes": [{"index": 0, "name": "a", "value": 70000}]}
    with pytest.raises(SystemExit, match="values from 70000 to 70000 need a TIFF"):
        write(tmp_path / "a.png", np.zeros((2, 2), int), masks)


@pytest.mark.slow
def test_the_example_takes_several_modalities_and_heads(run_of, scenes, compose, tmp_path):
    path, _ = run_of(scenes("rgb", "depth", heads=2), "experiment=fcn32s_nyudv2_rgbd", "model.width=0.02")
    out = export(compose(f"run={path}", "format=onnx", config="export"))
    assert out == path / "model.onnx"
    rng = np.random.default_rng(0)
    rgb_HW3, depth_HW = rng.integers(0, 256, (20, 31, 3), dtype=np.uint8), rng.integers(5, 9, (20, 31), dtype=np.uint8)
    Image.fromarray(rgb_HW3).save(tmp_path / "rgb.png")
    Image.fromarray(depth_HW).save(tmp_path / "depth.png")
    command = [sys.executable, EXAMPLE, out, "rgb=rgb.png", "depth=depth.png", "mask.png", "--head", "geometric"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    mean_C = np.array([123, 117, 104], np.float32)
    given = {
        "rgb": (rgb_HW3 - mean_C).transpose(2, 0, 1)[None],
        "depth": (depth_HW - np.float32(7.8))[None, None],
    }
    (scores,) = onnxruntime.InferenceSession(out).run(["geometric"], given)
    mask = Image.open(tmp_path / "mask.png")
    assert np.array_equal(np.asarray(mask), scores[0].argmax(0))
    assert mask.getpalette()[:6] == [0, 0, 255, 255, 0, 0]


def test_differences_are_told_and_the_file_is_all_of_it(exporting, tmp_path, capsys, tiny_run):
    assert exporting(f"output={tmp_path}/new/m.pt2") == tmp_path / "new" / "m.pt2"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["m.pt2"]
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"{tiny_run}/checkpoints/best.ckpt of step 2: UNet"
    assert said[1] == "height and width: from 44 in steps of 4; scores are of 40 pixels less"
    assert said[2] == "precision: the file computes in float32"
    assert [line.split(": ")[0] for line in said[3:]] == [
        f"semantic, {batch} images of {h} x {w}" for batch, h, w in ((2, 44, 44), (3, 76, 112), (4, 140, 104))
    ]
    assert all("maximum difference 0.0e+00 at scores up to" in line for line in said[3:])


def test_an_average_that_the_file_does_not_hold_is_told(compose, tiny_run, tmp_path, capsys):
    run = Run.open(shutil.copytree(tiny_run, tmp_path / "run"))
    run.begin(run.config().replace({"tta": "multiscale", "input_scale": 2.0}))
    export(compose(f"run={run.path}", "format=pt2", f"output={tmp_path}/m.pt2", config="export"))
    told = "the file is the network alone; segbench predict goes on with tta=multiscale, input_scale=2.0"
    assert told in capsys.readouterr().err.splitlines()


def test_averaged_weights_are_exported_where_the_run_has_them(compose, tiny_run, run_of, tmp_path):
    spec = build_dataset_spec(Run.open(tiny_run))
    path, model = run_of(spec, "model=unet", "model.width=2", "model.depth=1")
    file = path / "checkpoints" / "last.ckpt"
    averaged = {name: value / 2 for name, value in model.state_dict().items()}
    torch.save(torch.load(file, weights_only=True) | {"averaged_model": averaged}, file)
    out = export(compose(f"run={path}", "format=pt2", config="export"))
    model.load_state_dict(averaged)
    image = torch.rand(1, 1, 20, 20)
    with torch.no_grad():
        found = torch.export.load(out).module()({"em": image})["semantic"]
        torch.testing.assert_close(found, model(image))


def test_sides_may_be_fixed(exporting, tmp_path):
    about = description_of(exporting("size=[44,60]"))
    assert about["size"] == [44, 60]


def test_a_file_that_differs_is_not_kept(exporting, tmp_path, monkeypatch):
    opened = formats.Pt2.open

    def off(self, path):
        run = opened(self, path)
        return lambda images: {head: scores + np.float32(0.01) for head, scores in run(images).items()}

    monkeypatch.setattr(formats.Pt2, "open", off)
    told = r"scores \(semantic, 2 images of 44 x 44\) are off by up to 1\.0e-02 .*\n.*within tolerance\n.*no file is"
    with pytest.raises(SegbenchError, match=told):
        exporting()
    assert not list(tmp_path.iterdir())
    assert exporting("tolerance=0.1").is_file()


def test_scores_that_are_no_numbers_are_not_kept(exporting, monkeypatch, tmp_path):
    monkeypatch.setattr(
        formats.Pt2, "open", lambda self, path: lambda images: {"semantic": np.full((2, 2, 4, 4), np.nan, np.float32)}
    )
    with pytest.raises(SegbenchError, match="are off by up to nan"):
        exporting()
    monkeypatch.setattr(formats.Pt2, "open", lambda self, path: lambda images: {"semantic": np.zeros((2, 2, 5, 4))})
    with pytest.raises(SegbenchError, match=r"are of shape \(2, 2, 5, 4\) for \(2, 2, 4, 4\)"):
        exporting()
    assert not list(tmp_path.iterdir())


def test_what_a_format_lacks_is_told(exporting, monkeypatch):
    def fails(self, program, description, path):
        raise RuntimeError("no operator aten::nothing\nand so on")

    monkeypatch.setattr(formats.Pt2, "write", fails)
    with pytest.raises(SegbenchError, match="UNet cannot be written as pt2: no operator aten::nothing\n") as caught:
        exporting()
    assert caught.value.action.startswith("fix the sides, e.g. size=[512,512]; or set another format=")


def test_an_unknown_format_is_told(exporting):
    with pytest.raises(SegbenchError, match=r"format=tflite\n.*one of onnx, pt2\n.*format=onnx"):
        exporting("format=tflite")


def test_a_missing_extra_is_told_before_anything_is_done(exporting, monkeypatch, tmp_path):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith("onnx") else found(name))
    told = r"format=onnx without onnx, onnxscript, onnxruntime\n.*extra `export`\n.*pip install 'segbench\[export\]'"
    with pytest.raises(SegbenchError, match=told):
        exporting("format=onnx", "run=/nowhere")
    assert formats.format_named("pt2") is formats.FORMATS["pt2"]


def test_a_file_that_is_there_is_never_written_over(exporting, tmp_path):
    (tmp_path / "m.pt2").write_text("mine")
    with pytest.raises(SegbenchError, match=r"m\.pt2 exists already\n.*\n.*another output="):
        exporting()
    assert (tmp_path / "m.pt2").read_text() == "mine"


def test_another_suffix_is_told(exporting, tmp_path):
    with pytest.raises(SegbenchError, match=rf"output=.*m\.onnx\n.*a file \.pt2\n.*set output={tmp_path}/m\.pt2"):
        exporting(f"output={tmp_path}/m.onnx")


def test_an_output_that_cannot_be_written_is_told(exporting, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SegbenchError, match=r"m\.pt2 cannot be written: .*\n.*\n.*output="):
        exporting(f"output={tmp_path}/file/m.pt2")


def test_a_run_without_a_checkpoint_is_told(exporting, tmp_path):
    Run.create(tmp_path / "empty", Recorded.of({"name": "x"}), []).release()
    with pytest.raises(SegbenchError, match=r"no best or last checkpoint in .*\(there: none\)"):
        exporting(f"run={tmp_path}/empty")
    with pytest.raises(SegbenchError, match=r"no run in .*none: config\.yaml is missing"):
        exporting(f"run={tmp_path}/none")
    with pytest.raises(SegbenchError, match=r'checkpoint="first"\n.*\'best\' or \'last\'\n.*segbench export --cfg job'):
        exporting("checkpoint=first")


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ("[44,45]", r"an input side of 45 pixels \(size\)\n.*12 \+ 4 k pixels.*\n.*use 44 or 48"),
        ("44", r"size=44\n.*\[H, W\] in pixels"),
        ("[44]", r"size=\[44\]"),
        ("[44,x]", r"size=\[44, 'x'\]"),
    ],
)
def test_a_size_that_the_network_does_not_take_is_told(exporting, size, told):
    with pytest.raises(SegbenchError, match=told):
        exporting(f"size={size}")


def test_the_command_prints_the_file_alone(monkeypatch, capsys, tiny_run, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["segbench", "export", f"run={tiny_run}", "format=pt2", "output=m.pt2"])
    cli.main()
    captured = capsys.readouterr()
    assert captured.out == "m.pt2\n"
    assert "maximum difference" in captured.err
    assert [path.name for path in tmp_path.iterdir()] == ["m.pt2"]


def test_a_command_without_format_is_told(monkeypatch, capsys, tiny_run):
    monkeypatch.setattr(sys, "argv", ["segbench", "export", f"run={tiny_run}"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "error: format is not given\n  expected: a value for format" in capsys.readouterr().err


@pytest.mark.parametrize("name", FORMATS)
def test_a_full_disk_leaves_nothing_and_does_not_end_the_process(exporting, small_files, tmp_path, name):
    with small_files(4096), pytest.raises(SegbenchError, match=rf"out/m.{name} cannot be written: File too large"):
        exporting(f"format={name}", f"output={tmp_path}/out/m.{name}")
    assert not list((tmp_path / "out").iterdir())
