import subprocess
import sys

import numcodecs
import numpy as np
import pytest
import zarr

from segbench.data.files.zarr_images import ZarrImages
from segbench.errors import SegbenchError

IMAGE = (np.add.outer(np.arange(64), np.arange(64)) // 3).astype(np.uint16)


def written(path, version, name="lz4", shards=None):
    codec = numcodecs.Blosc(name) if version == 2 else zarr.codecs.BloscCodec(cname=name)
    chosen = {"shape": IMAGE.shape, "chunks": (32, 32), "dtype": "uint16", "zarr_format": version}
    array = zarr.create_array(path, **chosen, compressors=codec, shards=shards)
    array[:] = IMAGE
    return path


def chunks(path):
    return [file for file in path.rglob("*") if file.is_file() and not file.name.endswith((".json", "array", "attrs"))]


@pytest.mark.parametrize("name", ["lz4", "zstd", "blosclz"])
@pytest.mark.parametrize(("version", "shards"), [(2, None), (3, None), (3, (64, 64))])
def test_whole_arrays_are_read_and_zarr_is_set_as_before(tmp_path, version, shards, name):
    before = zarr.config.get("codecs.blosc")
    images = ZarrImages(written(tmp_path / "a.zarr", version, name, shards))
    assert np.array_equal(images.read(0)[..., 0], IMAGE)
    assert zarr.config.get("codecs.blosc") == before


# A shard that is cut has lost its index, which zarr tells itself.
@pytest.mark.parametrize(
    ("version", "shards", "damage"),
    [
        *((version, None, damage) for version in (2, 3) for damage in ("longer", "shorter", "cut", "header")),
        *((3, (64, 64), damage) for damage in ("longer", "shorter")),
    ],
)
def test_a_chunk_of_another_length_than_it_says_is_refused(tmp_path, version, shards, damage):
    path = written(tmp_path / "a.zarr", version, shards=shards)
    for file in chunks(path):
        content = bytearray(file.read_bytes())
        if damage in ("longer", "shorter"):
            content[12:16] = (0x7300011A if damage == "longer" else 20).to_bytes(4, "little")
        else:
            del content[10 if damage == "header" else -5 :]
        file.write_bytes(content)
    with pytest.raises(SegbenchError, match="not as long as its header says"):
        ZarrImages(path).read(0)


def test_no_damage_inside_ends_the_process(tmp_path):
    code = f"""
import numpy as np
from pathlib import Path
from segbench.data.files.zarr_images import ZarrImages
from segbench.errors import SegbenchError
path = Path({str(written(tmp_path / "a.zarr", 2))!r})
(whole, *_) = [(file, file.read_bytes()) for file in path.rglob("0.0")]
rng = np.random.default_rng(0)
for _ in range(300):
    content = bytearray(whole[1])
    for place in rng.integers(0, 40, 3):
        content[place] = rng.integers(256)
    whole[0].write_bytes(content)
    try:
        ZarrImages(path).read(0)
    except SegbenchError:
        pass
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


CODECS = {
    **{name: (2, getattr(numcodecs, name)()) for name in ("Zlib", "GZip", "BZ2", "LZMA", "Zstd", "LZ4", "Blosc")},
    "gzip of format 3": (3, zarr.codecs.GzipCodec()),
    "zstd of format 3": (3, zarr.codecs.ZstdCodec()),
    "blosc of format 3": (3, zarr.codecs.BloscCodec()),
}


@pytest.mark.parametrize("name", CODECS)
def test_a_chunk_gives_no_more_than_it_may(tmp_path, name):
    version, codec = CODECS[name]
    chosen = {"shape": IMAGE.shape, "chunks": (64, 64), "dtype": "uint16", "zarr_format": version}
    zarr.create_array(tmp_path / "a.zarr", **chosen, compressors=codec)[:] = IMAGE
    assert np.array_equal(ZarrImages(tmp_path / "a.zarr").read(0)[..., 0], IMAGE)
    (chunk,) = chunks(tmp_path / "a.zarr")
    of_format_2 = getattr(numcodecs, {"gzip": "GZip", "zstd": "Zstd", "blosc": "Blosc"}.get(name.split()[0], name))()
    chunk.write_bytes(of_format_2.encode(np.zeros(10**8, np.uint8)))
    with pytest.raises(SegbenchError, match=r"a chunk gives 1?[0-9,]+ bytes or more, of 33,792"):
        ZarrImages(tmp_path / "a.zarr").read(0)


def unsized(*blocks):
    """A frame of zstd without its length: of each block the type, the size that is stated, and what is stored."""
    content = b"\x28\xb5\x2f\xfd\x00\x38"
    for number, (kind, size, stored) in enumerate(blocks, 1):
        content += ((number == len(blocks)) | kind << 1 | size << 3).to_bytes(3, "little") + stored
    return content


@pytest.mark.parametrize("version", [2, 3])
def test_nor_does_a_frame_that_states_no_length(tmp_path, version):
    codec = numcodecs.Zstd() if version == 2 else zarr.codecs.ZstdCodec()
    chosen = {"shape": IMAGE.shape, "chunks": (64, 64), "dtype": "uint16", "zarr_format": version}
    zarr.create_array(tmp_path / "a.zarr", **chosen, compressors=codec)[:] = IMAGE
    (chunk,) = chunks(tmp_path / "a.zarr")
    half = IMAGE.nbytes // 2
    chunk.write_bytes(unsized((0, half, IMAGE.tobytes()[:half]), (0, half, IMAGE.tobytes()[half:])))
    assert np.array_equal(ZarrImages(tmp_path / "a.zarr").read(0)[..., 0], IMAGE)
    # What an encoder makes of the same, without its length.
    encoded = bytes(numcodecs.Zstd().encode(IMAGE.tobytes()))
    single, width = encoded[4] >> 5 & 1, (1, 2, 4, 8)[encoded[4] >> 6]
    assert single
    chunk.write_bytes(unsized()[:6] + encoded[5 + width :])
    assert np.array_equal(ZarrImages(tmp_path / "a.zarr").read(0)[..., 0], IMAGE)
    chunk.write_bytes(unsized(*[(1, 2**17, b"\0")] * 1000))
    with pytest.raises(SegbenchError, match=r"a chunk gives [0-9,]+ bytes or more, of 33,792"):
        ZarrImages(tmp_path / "a.zarr").read(0)
    chunk.write_bytes(unsized((0, half, b"")))
    with pytest.raises(SegbenchError):
        ZarrImages(tmp_path / "a.zarr").read(0)
