import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segbench.errors import SegbenchError
from segbench.inference.stream import DEFAULT_TILE
from segbench.inference.tiling import Span, mirrored, overlapping, plan
from segbench.models.unet import tile_geometry
from segbench.spec import TileGeometry

GEOMETRIES = st.builds(tile_geometry, st.integers(1, 4), st.sampled_from(["valid", "same"]))


def test_the_published_net_on_a_slice_of_the_challenge():
    # In one piece: 512 + 184 = 696 is no valid side, 700 is. In tiles of at most 388: two of 256, each of 444 pixels.
    assert plan(512, tile_geometry()) == [Span(read_from=-92, read_size=700, start=0, stop=512)]
    assert plan(512, tile_geometry(), 388) == [Span(-92, 444, 0, 256), Span(164, 444, 256, 512)]


def test_a_padded_net_reads_its_context_but_nothing_beyond_the_image():
    # Depth 1 sees 9 pixels far, in steps of 2: 10 on each side of 16, cut at both ends of the image.
    assert plan(48, tile_geometry(1, "same"), 16) == [Span(0, 36, 0, 16), Span(6, 36, 16, 32), Span(12, 36, 32, 48)]
    assert plan(48, tile_geometry(1, "same"), 16, alike=False) == [
        Span(0, 26, 0, 16), Span(6, 36, 16, 32), Span(22, 26, 32, 48),
    ]  # fmt: skip
    assert plan(47, tile_geometry(1, "same")) == [Span(0, 48, 0, 47)]


@given(GEOMETRIES, st.integers(1, 700), st.none() | st.integers(1, 900))
def test_tiles_answer_once_for_each_pixel_from_valid_inputs_on_one_grid(geometry, size, tile):
    spans = plan(size, geometry, tile)
    assert [span.start for span in spans] == [0] + [span.stop for span in spans[:-1]]
    assert spans[-1].stop == size
    last_pixel = size if geometry.margin else geometry.input_for(size)
    for span in spans:
        assert geometry.is_valid(span.read_size)
        assert (span.read_from + geometry.margin) % geometry.step == 0
        answer = span.answer(geometry.margin)
        assert 0 <= answer.start < answer.stop <= geometry.output_size(span.read_size)
        assert len(spans) == 1 or span.stop - span.start <= max(tile, geometry.step)
        if geometry.margin == 0:
            before, after = span.read_from, span.read_from + span.read_size
            assert before == 0 or span.start - before >= geometry.context
            assert after == last_pixel or after - span.stop >= geometry.context
            assert 0 <= before
            assert after <= last_pixel


def test_blended_tiles_share_a_quarter_and_fade_in_it():
    # Tiles of 8 at 0, 6 and 12: of the two pixels shared, each takes the first at 0.75 and the second at 0.25.
    spans = overlapping(20, TileGeometry(step=2), 8, 0.25)
    assert spans == [Span(0, 8, 0, 8, 0, 2), Span(6, 8, 6, 14, 2, 2), Span(12, 8, 12, 20, 2, 0)]
    np.testing.assert_array_equal(spans[1].weights(), [0.25, 0.75, 1, 1, 1, 1, 0.75, 0.25])
    assert overlapping(8, TileGeometry(step=2), 8, 0.25) == [Span(0, 8, 0, 8)]


@given(
    st.integers(1, 4).map(lambda depth: tile_geometry(depth, "same")) | st.just(TileGeometry()),
    *(st.integers(1, 700), st.integers(1, 300), st.floats(0.01, 0.5)),
)
def test_the_weights_of_blended_tiles_sum_to_1(geometry, size, tile, overlap):
    weights, count = np.zeros(size), np.zeros(size, int)
    spans = overlapping(size, geometry, tile, overlap)
    for span in spans:
        assert geometry.is_valid(span.read_size)
        assert span.read_from % geometry.step == 0
        assert 0 <= span.answer(0).start < span.answer(0).stop <= span.read_size
        weights[span.start : span.stop] += span.weights()
        count[span.start : span.stop] += 1
    np.testing.assert_allclose(weights, 1, atol=1e-6)
    assert count.max() <= 2
    assert spans[-1].read_from + spans[-1].read_size == geometry.input_for(size)


def test_blending_is_for_padded_networks():
    with pytest.raises(SegbenchError, match=r"overlap=0.25 for a network without padding\n.*exact already"):
        overlapping(1000, tile_geometry(), 512, 0.25)
    with pytest.raises(SegbenchError, match=r"overlap=0.6\n"):
        overlapping(1000, tile_geometry(2, "same"), 512, 0.6)


@given(st.integers(1, 40), st.integers(0, 90), st.integers(0, 90))
def test_mirroring_is_that_of_numpy(size, before, after):
    image = np.arange(size)
    expected = np.pad(image, (before, after), mode="reflect")
    np.testing.assert_array_equal(image[mirrored(-before, size + after, size)], expected)


def test_a_tile_below_one_pixel_is_refused():
    with pytest.raises(SegbenchError, match=r"tile=0\n  expected: a positive number"):
        plan(100, tile_geometry(), 0)


def test_a_padded_network_must_say_how_far_it_sees_before_it_is_cut():
    assert plan(100, TileGeometry(), 100) == plan(100, TileGeometry()) == [Span(0, 100, 0, 100)]
    with pytest.raises(SegbenchError, match=r"tile=50 for a network of unknown receptive field"):
        plan(100, TileGeometry(), 50)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_the_work_a_pixel_does_not_grow_with_the_image(padding):
    # What a network computes for a pixel of 2,000 to 100,000 a side: context and the last tile's surplus included.
    geometry = tile_geometry(4, padding)
    sides = (2000, 8000, 20000, 100000)
    works = [sum(span.read_size for span in plan(side, geometry, DEFAULT_TILE)) ** 2 / side**2 for side in sides]
    assert max(works) < 1.1 * min(works)
