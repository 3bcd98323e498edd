import shutil

import numpy as np
import pytest
import tifffile
import torch

from segbench.build import build_dataset_spec, build_task
from segbench.checkpoint import load_weights
from segbench.data.em_drawing import draw_slice
from segbench.data.tiles import normalise
from segbench.errors import SegbenchError
from segbench.predict import predict, read_pages, write_probabilities
from segbench.runs import Run
from segbench.spec import DatasetSpec, HeadSpec, ModalitySpec
from segbench.train import train


@pytest.fixture(scope="module")
def stack():
    """Three drawn pages of 50 x 41."""
    return np.stack([draw_slice(0, index, 50, 41)[0] for index in range(3)])


@pytest.fixture
def predicted(compose, tiny_run, tmp_path, stack):
    """`predicted(*overrides)`: the probabilities that `segbench predict` writes of `stack`."""

    def run(*overrides, pages=stack, output="out"):
        tifffile.imwrite(tmp_path / "input.tif", pages, photometric="minisblack", metadata=None)
        given = (f"run={tiny_run}", f"input={tmp_path}/input.tif", f"output={tmp_path}/{output}", "trainer=cpu")
        (path,) = predict(compose(*given, *overrides, config="predict"))
        assert path == tmp_path / output / "input.tif"
        return path

    return run


def spec(**modalities):
    heads = {"semantic": HeadSpec(("membrane", "cell"), ((0, 0, 0), (255, 255, 255)))}
    return DatasetSpec(
        "d", modalities or {"em": ModalitySpec(1, (0.0,), (1.0,), "grey level, 0 to 255")}, heads, "", "", ""
    )


def test_each_page_gets_its_probability_of_cell(predicted, tiny_run, compose, stack):
    path = predicted()
    with tifffile.TiffFile(path) as tiff:
        assert [(page.shape, page.dtype) for page in tiff.pages] == [((50, 41), np.float32)] * 3
    config = Run.open(tiny_run).config()
    described = build_dataset_spec(Run.open(tiny_run))
    task = build_task(config, described).eval()
    load_weights(task.model, Run.open(tiny_run).checkpoint("best"))
    expected = [task.predict({"em": normalise(page, described.modalities["em"])})["semantic"][1] for page in stack]
    np.testing.assert_array_equal(tifffile.imread(path), torch.stack(expected).numpy())


def test_nothing_but_the_result_is_left(predicted):
    assert [path.name for path in predicted().parent.iterdir()] == ["input.tif"]


@pytest.mark.parametrize("tile", [8, 20])
def test_no_tile_size_changes_the_result(predicted, tile):
    whole, tiled = predicted(), predicted(f"tile={tile}", output="tiled")
    np.testing.assert_allclose(tifffile.imread(tiled), tifffile.imread(whole), atol=1e-5)


def test_the_last_checkpoint_may_be_asked_for(predicted):
    best, last = predicted(), predicted("checkpoint=last", output="last")
    assert not np.array_equal(tifffile.imread(best), tifffile.imread(last))


def test_a_single_page_is_predicted(predicted, stack):
    np.testing.assert_array_equal(
        tifffile.imread(predicted(pages=stack[1])), tifffile.imread(predicted(output="all"))[1]
    )


def test_an_average_over_symmetries_turns_with_the_image(predicted, stack):
    # Sides of whole poolings: else the grid of the pooling lies elsewhere in the turned image.
    stack = stack[:, :48, :40]
    upright = tifffile.imread(predicted("tta=d4", pages=stack))
    turned = tifffile.imread(
        predicted("tta=d4", pages=np.ascontiguousarray(np.rot90(stack, axes=(1, 2))), output="turned")
    )
    np.testing.assert_allclose(np.rot90(turned, -1, axes=(1, 2)), upright, atol=1e-5)


def test_prediction_needs_no_data_set(isbi_config, isbi, compose, tmp_path):
    train(isbi_config("trainer.max_steps=1", f"data.root={isbi}"), tmp_path / "run", [])
    volume = (isbi / "test-volume.tif").rename(tmp_path / "volume.tif")
    shutil.rmtree(isbi)
    given = (f"run={tmp_path}/run", f"input={volume}", f"output={tmp_path}/out", "trainer=cpu")
    (path,) = predict(compose(*given, config="predict"))
    assert tifffile.imread(path).shape == (30, 64, 64)


def test_the_input_is_never_written_over(predicted, tmp_path, stack):
    with pytest.raises(SegbenchError, match=r"would write over the input .*input\.tif\n.*another folder\n.*output="):
        predicted(output=".")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "input.tif"), stack)


def test_a_missing_file_is_told(compose, tiny_run, tmp_path):
    given = (f"run={tiny_run}", f"input={tmp_path}/none.tif", f"output={tmp_path}/out", "trainer=cpu")
    with pytest.raises(SegbenchError, match=r"no file .*none\.tif\n.*a TIFF stack\n.*set input to where it is"):
        predict(compose(*given, config="predict"))
    assert not (tmp_path / "out").exists()


def test_a_corrupt_file_is_told(tmp_path, stack):
    tifffile.imwrite(tmp_path / "input.tif", stack, photometric="minisblack", metadata=None)
    whole = (tmp_path / "input.tif").read_bytes()
    (tmp_path / "input.tif").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SegbenchError, match=r"input\.tif .*cannot be read as TIFF.*\n.*whole TIFF stack\n.*fetch"):
        read_pages(tmp_path / "input.tif", spec())


def test_colour_pages_for_a_grey_net_are_told(tmp_path):
    tifffile.imwrite(tmp_path / "input.tif", np.zeros((2, 8, 8, 3), np.uint8), photometric="rgb")
    with pytest.raises(SegbenchError, match=r"has 3 channels\n.*1 \(em, grey level, 0 to 255\)\n.*convert it"):
        read_pages(tmp_path / "input.tif", spec())


def test_a_grey_file_for_a_colour_net_is_told(tmp_path, stack):
    tifffile.imwrite(tmp_path / "input.tif", stack, photometric="minisblack")
    with pytest.raises(SegbenchError, match=r"has 1 channels\n.*3 \(rgb"):
        read_pages(tmp_path / "input.tif", spec(rgb=ModalitySpec(3, (0.0,) * 3, (1.0,) * 3, "level, 0 to 255")))


@pytest.mark.parametrize(
    "pages", [np.full((1, 8, 8), 4000, np.uint16), np.full((1, 8, 8), -3, np.float32)], ids=["16 bit", "negative"]
)
def test_values_beyond_8_bits_are_told(tmp_path, pages):
    tifffile.imwrite(tmp_path / "input.tif", pages, photometric="minisblack")
    with pytest.raises(SegbenchError, match=r"holds values from .*\n.*grey level, 0 to 255, as .* trained\n.*8 bits"):
        read_pages(tmp_path / "input.tif", spec())


def test_values_that_are_no_numbers_are_told(tmp_path):
    tifffile.imwrite(tmp_path / "input.tif", np.full((1, 8, 8), np.nan, np.float32), photometric="minisblack")
    with pytest.raises(SegbenchError, match=r"holds values from nan"):
        read_pages(tmp_path / "input.tif", spec())


def test_grey_levels_of_another_type_are_taken(tmp_path, stack):
    tifffile.imwrite(tmp_path / "input.tif", stack.astype(np.uint16), photometric="minisblack")
    assert len(read_pages(tmp_path / "input.tif", spec())) == 3


def test_several_modalities_are_refused(tmp_path, stack):
    tifffile.imwrite(tmp_path / "input.tif", stack, photometric="minisblack")
    one = ModalitySpec(1, (0.0,), (1.0,), "")
    with pytest.raises(SegbenchError, match=r"modalities rgb, depth\n.*one modality"):
        read_pages(tmp_path / "input.tif", spec(rgb=one, depth=one))


def test_an_output_that_is_a_file_is_told(predicted, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(SegbenchError, match=r"out cannot be written: .*\n.*a directory.*\n.*output=DIR"):
        predicted()


def test_several_classes_and_heads_get_a_file_each(tmp_path):
    black = (0, 0, 0)
    heads = {
        "semantic": HeadSpec(("sky", "road", "tree"), (black,) * 3),
        "geometric": HeadSpec(("flat", "up"), (black,) * 2),
    }
    pages = [
        {"semantic": np.full((3, 8, 8), page, np.float32), "geometric": np.ones((2, 8, 8), np.float32)}
        for page in range(2)
    ]
    files = write_probabilities(pages, 2, heads, tmp_path, "x")
    assert [path.name for path in files] == [
        "x-semantic-sky.tif",
        "x-semantic-road.tif",
        "x-semantic-tree.tif",
        "x-geometric.tif",
    ]
    assert tifffile.imread(files[1]).tolist() == [[[page] * 8] * 8 for page in range(2)]


def test_a_prediction_that_breaks_off_leaves_no_file(tmp_path):
    def breaks():
        yield {"semantic": np.zeros((2, 8, 8), np.float32)}
        raise SegbenchError("out of memory", "", "")

    with pytest.raises(SegbenchError, match="out of memory"):
        write_probabilities(breaks(), 2, dict(spec().heads), tmp_path, "x")
    assert not list(tmp_path.iterdir())
