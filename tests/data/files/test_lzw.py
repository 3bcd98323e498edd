import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segbench.data.files.lzw import decode_lzw


@settings(max_examples=20, deadline=None)
@given(size=st.integers(0, 20_000), values=st.sampled_from([1, 2, 5, 256]), seed=st.integers(0, 99))
def test_what_another_encoder_wrote_is_decoded_up_to_what_is_asked(size, values, seed):
    content = np.random.default_rng(seed).integers(0, values, size, np.uint8).tobytes()
    encoded = imagecodecs.lzw_encode(content)
    assert decode_lzw(encoded, size + 9) == content
    assert decode_lzw(encoded, size // 2) == content[: size // 2]


def bits_from_the_lowest(codes):
    """The codes at the widths that libtiff before 1995 gave them, bytes filled from the lowest bit on."""
    packed = place = 0
    for number, code in enumerate(codes):
        packed |= code << place
        # A string for each code after the first; the tenth bit comes when 512 are known.
        place += 9 if 258 + number - 2 < 512 else 10
    return packed.to_bytes(-(-place // 8), "little")


def test_reversed_bits_are_those_of_libtiff_before_1995():
    content = [7, 8, 7, 8, 7]
    # 258 is (7, 8), and 260 the string that it completes itself: (7, 8, 7).
    assert decode_lzw(bits_from_the_lowest([256, 7, 8, 258, 7, 257]), 9) == bytes(content)
    long = np.random.default_rng(0).integers(0, 256, 400).tolist()
    old = bits_from_the_lowest([256, *long, 257])
    assert decode_lzw(old, 400) == bytes(long) == imagecodecs.lzw_decode(old, out=400)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 5000))
def test_any_bytes_are_decoded_or_refused(content, size):
    try:
        assert len(decode_lzw(content, size)) <= size
    except ValueError as error:
        assert "stands for nothing" in str(error)


def test_a_code_that_stands_for_nothing_is_refused():
    with pytest.raises(ValueError, match="stands for nothing"):
        decode_lzw(bits_from_the_lowest([256, 300]), 9)
