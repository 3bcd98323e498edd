import cv2
import numpy as np
import pytest
import tifffile

from segbench.data.raw import RawImage
from segbench.errors import SegbenchError
from segbench.prediction.inputs import find_inputs, split_inputs


@pytest.fixture
def write(tmp_path):
    """`write("folder/name.png")`: a small image file."""

    def made(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix.startswith(".tif"):
                tifffile.imwrite(path, np.zeros((6, 8), np.uint8))
            else:
                assert cv2.imwrite(str(path), np.zeros((6, 8), np.uint8))

    return made


def names(inputs):
    return [each.name for each in inputs]


def test_a_file_is_one_input(write, spec, tmp_path):
    write("a.png", "b.png")
    (only,) = find_inputs(str(tmp_path / "a.png"), None, spec(), tmp_path / "out")
    assert (only.name, only.suffix, only.files) == ("a", ".png", (tmp_path / "a.png",))
    assert only.open(spec()).sizes == ((6, 8),)


def test_the_images_of_a_folder_are_inputs_in_the_order_of_their_names(write, spec, tmp_path):
    write("in/b.JPG", "in/a.tif", "in/c.Tiff")
    (tmp_path / "in" / "notes.txt").write_text("")
    (tmp_path / "in" / ".hidden.png").write_text("")
    inputs = find_inputs(str(tmp_path / "in"), None, spec(), tmp_path / "out")
    assert [(each.name, each.suffix) for each in inputs] == [("a", ".tif"), ("b", ".jpg"), ("c", ".tiff")]


def test_links_to_folders_are_followed_once(write, spec, tmp_path):
    write("in/a.png", "in/b/c.png", "far/d.png")
    for name, target in (("again", "in/b"), ("e", "far"), ("round", "in")):
        (tmp_path / "in" / name).symlink_to(tmp_path / target)
    assert names(find_inputs(str(tmp_path / "in"), None, spec(), tmp_path / "out")) == ["a", "b/c", "e/d"]


def test_a_zarr_folder_is_an_input_and_one_in_a_folder_too(write, spec, tmp_path):
    zarr = pytest.importorskip("zarr", reason="zarr, of the extra of that name, is not installed")
    write("in/b.png")
    zarr.create_array(str(tmp_path / "in" / "a.zarr"), data=np.zeros((6, 8), np.uint8))
    assert names(find_inputs(str(tmp_path / "in"), None, spec(), tmp_path / "out")) == ["a", "b"]
    (only,) = find_inputs(str(tmp_path / "in" / "a.zarr"), None, spec(), tmp_path / "out")
    assert only.suffix == ".zarr"


def test_a_list_takes_some_of_a_folder_in_its_order(write, spec, tmp_path):
    write("in/a.png", "in/b.png", "in/c.png")
    (tmp_path / "ids.txt").write_text("c\na\n")
    assert names(find_inputs(str(tmp_path / "in"), str(tmp_path / "ids.txt"), spec(), tmp_path / "out")) == ["c", "a"]
    (tmp_path / "ids.txt").write_text("c\nd\ne\n")
    with pytest.raises(SegbenchError, match=r"2 of 3 ids have no file in .*in, first d, e\n"):
        find_inputs(str(tmp_path / "in"), str(tmp_path / "ids.txt"), spec(), tmp_path / "out")
    with pytest.raises(SegbenchError, match=r"ids=.* with input=.*a\.png\n.*beside a folder"):
        find_inputs(str(tmp_path / "in" / "a.png"), str(tmp_path / "ids.txt"), spec(), tmp_path / "out")


@pytest.mark.parametrize("as_mapping", [True, False])
def test_modalities_are_matched_by_stem(write, spec, tmp_path, as_mapping):
    write("rgb/a.jpg", "rgb/b.jpg", "depth/b.png", "depth/a.png")
    folders = {name: str(tmp_path / name) for name in ("depth", "rgb")} if as_mapping else str(tmp_path)
    inputs = find_inputs(folders, None, spec("rgb", "depth"), tmp_path / "out")
    assert [each.files for each in inputs] == [
        (tmp_path / "rgb" / f"{stem}.jpg", tmp_path / "depth" / f"{stem}.png") for stem in "ab"
    ]


def test_files_of_different_modalities_need_not_share_a_stem(write, spec, tmp_path):
    write("photo.jpg", "range.png")
    files = {"rgb": str(tmp_path / "photo.jpg"), "depth": str(tmp_path / "range.png")}
    assert names(find_inputs(files, None, spec("rgb", "depth"), tmp_path / "out")) == ["photo"]


def test_a_missing_partner_is_told_unless_a_list_leaves_it_out(write, spec, tmp_path):
    write("rgb/a.jpg", "rgb/b.jpg", "depth/b.png", "depth/c.png")
    (tmp_path / "ids.txt").write_text("b\n")
    with pytest.raises(
        SegbenchError, match=r"2 of 3 images lack a modality, first a \(no depth\), c \(no rgb\), in .*\n"
    ):
        find_inputs(str(tmp_path), None, spec("rgb", "depth"), tmp_path / "out")
    assert names(find_inputs(str(tmp_path), str(tmp_path / "ids.txt"), spec("rgb", "depth"), tmp_path / "out")) == ["b"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"rgb": "rgb"}, r"input= lacks depth\n.*toy: rgb, depth\n.*'input=\{rgb:DIR,depth:DIR\}'"),
        ({"rgb": "rgb", "hha": "x"}, r"input= lacks depth and names hha\n"),
        ({"rgb": "rgb", "depth": "depth", "hha": "x"}, r"input= names hha\n"),
        ({"rgb": "rgb", "depth": "depth/a.png"}, r"rgb: .*rgb is a folder; depth: .*a\.png is a file\n"),
        ({"rgb": "rgb", "depth": "none"}, r"no file .*none; beside it: depth, rgb\n"),
        ("rgb", r"input=.*rgb for a run on toy with modalities rgb, depth; no folder rgb, depth in it\n"),
    ],
)
def test_wrong_modalities_are_told(write, spec, tmp_path, given, told):
    write("rgb/a.jpg", "depth/a.png")
    paths = {k: str(tmp_path / v) for k, v in given.items()} if isinstance(given, dict) else str(tmp_path / given)
    with pytest.raises(SegbenchError, match=told):
        find_inputs(paths, None, spec("rgb", "depth"), tmp_path / "out")


def test_one_modality_may_be_named_too(write, spec, tmp_path):
    write("a.png")
    assert names(find_inputs({"em": str(tmp_path / "a.png")}, None, spec(), tmp_path / "out")) == ["a"]


def test_an_empty_folder_is_told(spec, tmp_path):
    (tmp_path / "in" / "empty").mkdir(parents=True)
    (tmp_path / "in" / "notes.txt").write_text("")
    with pytest.raises(SegbenchError, match=r"no image in .*in\n.*\.png .* or zarr\n"):
        find_inputs(str(tmp_path / "in"), None, spec(), tmp_path / "out")


def test_folders_in_a_folder_are_kept(write, spec, tmp_path):
    write("in/day1/a.png", "in/day2/a.png", "in/b.png", "in/.cache/c.png")
    assert names(find_inputs(str(tmp_path / "in"), None, spec(), tmp_path / "out")) == ["b", "day1/a", "day2/a"]


def test_two_files_of_one_stem_are_told(write, spec, tmp_path):
    write("in/a.png", "in/a.tif", "in/b.png")
    with pytest.raises(SegbenchError, match=r"holds files of one stem: a\.png, a\.tif\n"):
        find_inputs(str(tmp_path / "in"), None, spec(), tmp_path / "out")


@pytest.mark.parametrize("inside", ["in", "in/masks", "in/../in/x"])
def test_an_output_inside_the_input_is_refused(write, spec, tmp_path, inside):
    write("in/a.png")
    with pytest.raises(SegbenchError, match=r"output=.* lies inside input=.*in\n.*\n.*change output="):
        find_inputs(str(tmp_path / "in"), None, spec(), tmp_path / inside)


def test_an_input_that_is_not_there_tells_its_neighbours(write, spec, tmp_path):
    write("a.png")
    with pytest.raises(SegbenchError, match=r"no file .*b\.png; beside it: a\.png\n.*\n.*set input="):
        find_inputs(str(tmp_path / "b.png"), None, spec(), tmp_path / "out")


def test_a_stamp_changes_with_the_file(write, spec, tmp_path):
    write("a.png")
    (only,) = find_inputs(str(tmp_path / "a.png"), None, spec(), tmp_path / "out")
    before = only.stamp()
    (tmp_path / "a.png").write_bytes(b"1")
    assert only.stamp()[0][0] == before[0][0]
    assert only.stamp() != before


class Split:
    ids = ("first", "second")

    def __len__(self):
        return 2

    def read(self, index):
        return RawImage({"em": np.full((4, 5), index, np.uint8)}, {}, self.ids[index])


def test_the_images_of_a_split_are_inputs_by_their_ids(spec):
    inputs = split_inputs(Split())
    assert [(each.name, each.suffix, each.stamp()) for each in inputs] == [
        ("first", "", [["first"]]),
        ("second", "", [["second"]]),
    ]
    page = inputs[1].open(spec()).page(0)
    assert page.size == (4, 5)
    assert page.read(1, 3, 0, 2)["em"].tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("version", [2, 3])
def test_the_fields_of_a_plate_are_inputs_by_well(spec, tmp_path, version):
    zarr = pytest.importorskip("zarr", reason="zarr, of the extra of that name, is not installed")

    def described(group, **attributes):
        group.attrs.update(attributes if version == 2 else {"ome": attributes})

    plate = zarr.open_group(str(tmp_path / "in" / "p.zarr"), mode="w", zarr_format=version)
    described(plate, plate={"wells": [{"path": "A/1"}, {"path": "B/2"}]})
    for number, well in enumerate(("A/1", "B/2")):
        group = plate.create_group(well)
        described(group, well={"images": [{"path": "0"}, {"path": "1"}]})
        for field in ("0", "1"):
            image = group.create_group(field)
            image.create_array("0", data=np.full((1, 6, 8), 10 * number + int(field), np.uint8))
            axes = [{"name": name} for name in "cyx"]
            described(image, multiscales=[{"axes": axes, "datasets": [{"path": "0"}]}])
    for source, prefix in ((tmp_path / "in" / "p.zarr", ""), (tmp_path / "in", "p.zarr/")):
        inputs = find_inputs(str(source), None, spec(), tmp_path / "out")
        assert names(inputs) == [f"{prefix}{name}" for name in ("A/1/0", "A/1/1", "B/2/0", "B/2/1")]
        for each, value in zip(inputs, (0, 1, 10, 11), strict=True):
            assert each.suffix == ".zarr"
            opened = each.open(spec())
            assert (opened.page(0).read(0, 6, 0, 8)["em"] == value).all()
            opened.close()
    described(plate, plate={"wells": [{"path": "C/3"}]})
    with pytest.raises(SegbenchError, match=r"p\.zarr lists the well C/3, and .*C/3 has no field"):
        find_inputs(str(tmp_path / "in"), None, spec(), tmp_path / "out")
