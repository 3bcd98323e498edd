import gzip
import struct

import numpy as np
import pytest

from segbench.data.files.image_files import AS_STORED, images_of, open_images, read_image
from segbench.data.files.masks import masks_of
from segbench.data.files.open_stacks import OpenStacks
from segbench.data.files.volumes import split_name
from segbench.errors import SegbenchError


def values(*shape, dtype=np.int16):
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


def same(path, stack_NHW, reading=AS_STORED):
    with open_images(path, reading=reading) as images:
        assert len(images) == len(stack_NHW)
        for page, expected in enumerate(stack_NHW):
            np.testing.assert_array_equal(images.read(page)[..., 0], expected)
            np.testing.assert_array_equal(images.read(page, 2, 5, 1, 4)[..., 0], expected[2:5, 1:4])
            np.testing.assert_array_equal(OpenStacks(reading).read(path, page)[..., 0], expected)
    for read, expected in zip(images_of(path, reading), stack_NHW, strict=True):
        np.testing.assert_array_equal(read[..., 0], expected)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_slices_of_nifti_are_pages(tmp_path, suffix):
    nibabel = pytest.importorskip("nibabel", reason="the extra volumes is not installed")
    stack_NHW = values(3, 7, 9)
    nibabel.save(nibabel.Nifti1Image(stack_NHW.transpose(2, 1, 0), np.eye(4)), tmp_path / f"a{suffix}")
    same(tmp_path / f"a{suffix}", stack_NHW)
    masks = list(masks_of(tmp_path / f"a{suffix}"))
    np.testing.assert_array_equal([mask.codes_HW for mask in masks], stack_NHW)


def test_sections_of_mrc_are_pages(tmp_path):
    mrcfile = pytest.importorskip("mrcfile", reason="the extra volumes is not installed")
    for name, stack in (("a.mrc", values(3, 7, 9)), ("b.mrc", values(7, 9, dtype=np.float32))):
        with mrcfile.new(tmp_path / name) as file:
            file.set_data(stack)
        same(tmp_path / name, stack.reshape(-1, 7, 9))


def written_dicom(path, frames_NHW, **settings):
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    file.NumberOfFrames, file.Rows, file.Columns = frames_NHW.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 12, 11, 0
    file.PixelData = frames_NHW.astype("<u2").tobytes()
    for name, value in settings.items():
        setattr(file, name, value)
    file.save_as(path, enforce_file_format=True)
    return file


def test_frames_of_dicom_are_pages_with_dark_as_low_and_in_their_units(tmp_path):
    pytest.importorskip("pydicom", reason="the extra volumes is not installed")
    frames_NHW = values(3, 7, 9, dtype=np.uint16)
    written_dicom(tmp_path / "a.dcm", frames_NHW)
    same(tmp_path / "a.dcm", frames_NHW)
    written_dicom(tmp_path / "white.dcm", 4095 - frames_NHW, PhotometricInterpretation="MONOCHROME1")
    same(tmp_path / "white.dcm", frames_NHW)
    written_dicom(tmp_path / "ct.dcm", frames_NHW, RescaleSlope="1", RescaleIntercept="-1024")
    same(tmp_path / "ct.dcm", frames_NHW.astype(int) - 1024)


def test_the_padding_of_dicom_has_no_data(tmp_path):
    pytest.importorskip("pydicom", reason="the extra volumes is not installed")
    frames_NHW = values(1, 7, 9, dtype=np.uint16)
    frames_NHW[0, :2] = 4000
    settings = {"PixelPaddingValue": 4000, "RescaleSlope": "1", "RescaleIntercept": "-1024"}
    written_dicom(tmp_path / "a.dcm", frames_NHW, **settings)
    with open_images(tmp_path / "a.dcm") as images:
        empty_HW = images.decoded(0).empty_HW
    assert empty_HW[:2].all() and not empty_HW[2:].any()


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mrc", "a.dcm"])
def test_a_damaged_volume_is_named(tmp_path, name):
    for package in ("nibabel", "mrcfile", "pydicom"):
        pytest.importorskip(package, reason="the extra volumes is not installed")
    (tmp_path / name).write_bytes(b"\x1f\x8b" + b"no volume " * 50)
    with pytest.raises(SegbenchError, match=rf"{name} \(\d+ bytes\) cannot be read as (NIfTI|MRC|DICOM): "):
        read_image(tmp_path / name)


def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "nibabel", None)
    (tmp_path / "a.nii").write_bytes(b"")
    with pytest.raises(SegbenchError, match=r"nibabel is not installed\n.*extra volumes.*\n.*segbench\[volumes\]"):
        read_image(tmp_path / "a.nii")


def test_a_compressed_nifti_has_one_suffix():
    assert split_name("a.b.NII.gz") == ("a.b", ".nii.gz")
    assert split_name("a.gz") == ("a", ".gz")
    assert split_name("a.PNG") == ("a", ".png")


@pytest.mark.parametrize("place", [0, 92])
@pytest.mark.parametrize("packed", [False, True])
def test_what_the_header_of_mrc_states_takes_no_memory_before_it_is_checked(tmp_path, place, packed):
    mrcfile = pytest.importorskip("mrcfile", reason="the extra volumes is not installed")
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(values(3, 7, 9))
    content = bytearray((tmp_path / "a.mrc").read_bytes())
    content[place : place + 4] = (2**30).to_bytes(4, "little")
    (tmp_path / "a.mrc").write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(SegbenchError, match="declares"):
        read_image(tmp_path / "a.mrc", 0)


def test_a_map_of_mrc_whose_end_is_missing_is_refused(tmp_path):
    mrcfile = pytest.importorskip("mrcfile", reason="the extra volumes is not installed")
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(values(3, 7, 9))
    (tmp_path / "a.mrc").write_bytes((tmp_path / "a.mrc").read_bytes()[:-1])
    with pytest.raises(SegbenchError, match="its end is missing"):
        read_image(tmp_path / "a.mrc", 0)


def test_what_a_packed_dicom_unpacks_to_takes_no_memory_before_it_is_checked(tmp_path, monkeypatch):
    pytest.importorskip("pydicom", reason="the extra volumes is not installed")
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    frames = values(2, 7, 9)
    for name, comment in (("a.dcm", 0), ("bomb.dcm", 10**6)):
        file = written_dicom(tmp_path / name, frames)
        file.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        file.add_new((0x0009, 0x1010), "OB", bytes(comment))
        file.save_as(tmp_path / name, enforce_file_format=True)
    same(tmp_path / "a.dcm", frames)
    monkeypatch.setenv("SEGBENCH_LARGEST_FILE", "100000")
    with pytest.raises(SegbenchError, match=r"bomb\.dcm declares"):
        read_image(tmp_path / "bomb.dcm")


@pytest.mark.parametrize("slope", [("1e9", "0"), ("2", "3000000000")])
def test_units_of_dicom_beyond_whole_numbers_are_not_wrapped(tmp_path, slope):
    pytest.importorskip("pydicom", reason="the extra volumes is not installed")
    frames = values(1, 7, 9)
    written_dicom(tmp_path / "a.dcm", frames, RescaleSlope=slope[0], RescaleIntercept=slope[1])
    expected = (frames[0] * float(slope[0]) + float(slope[1])).astype(np.float32)
    np.testing.assert_array_equal(read_image(tmp_path / "a.dcm")[..., 0], expected)


@pytest.mark.parametrize(("version", "place", "form"), [(1, 108, "<f"), (2, 168, "<q")])
def test_a_nifti_whose_pixels_are_far_is_not_unpacked_up_to_them(tmp_path, version, place, form):
    nibabel = pytest.importorskip("nibabel", reason="the extra volumes is not installed")
    kind = {1: nibabel.Nifti1Image, 2: nibabel.Nifti2Image}[version]
    content = bytearray(kind(values(9, 7, 1), np.eye(4)).to_bytes())
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content))
    assert read_image(tmp_path / "a.nii.gz").shape == (7, 9, 1)
    struct.pack_into(form, content, place, 6 * 10**9)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content))
    with pytest.raises(SegbenchError, match="its pixels begin at byte 6000000000"):
        read_image(tmp_path / "a.nii.gz")
