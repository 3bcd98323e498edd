import pytest


@pytest.fixture
def command(call):
    """`command(*arguments)`: exit code and what was printed."""

    def ran(*arguments):
        code, out, err = call("data", *arguments)
        return code, out + err

    return ran


def test_the_command_checks(command, voc):
    code, said = command("check", "pascal_voc", f"root={voc}", "partial=true")
    assert code == 0 and "no fault" in said and "aeroplane" in said and "void, semantic" in said
    (voc / "benchmark_RELEASE/dataset/cls/2008_000001.mat").write_bytes(b"x")
    code, said = command("check", "pascal_voc", f"root={voc}", "data.partial=true")
    assert code == 1 and "FAULT: train: " in said and "2008_000001" in said
    code, said = command("check", "pascal_voc", f"root={voc}", "partial=true", "protocol=trainaug", "limit=2")
    assert code == 1 and "train trainaug 8" in said and "instead of 10582" in " ".join(said.split())
    code, said = command("check", "pascal_voc", f"root={voc}", "partial=true", "limit=1", "test=voc2011_train")
    assert "test voc2011_train 4" in said


def test_the_command_checks_images_of_ones_own(command, voc):
    folder = voc / "VOCdevkit" / "VOC2012"
    paths = f"data.images={folder / 'JPEGImages'}", f"data.masks={folder / 'SegmentationClass'}"
    code, said = command("check", "image_folder", *paths, "data.ignore_index=255")
    assert code == 0 and "no fault" in said
    assert said.count("augment=auto is hflip, since the images are colour photographs") == 1
    assert "8 images" in said and "training images: mean" in said and "split by whole files, data.seed=0" in said
    code, said = command("check", "image_folder", *paths, "data.classes={background: 0, object: rest}")
    assert code == 0 and "object" in said


def test_the_command_tells_a_leak(command, voc):
    code, said = command("check", "pascal_voc", f"root={voc}", "partial=true", "train=sbd_val")
    assert code == 1 and "share 1 of 736 images" in said


def test_the_command_checks_pascal_context(command, context):
    code, said = command("check", "pascal_context", f"root={context}")
    assert code == 0 and "no fault" in said and "bedcloth" in said
    assert "train Main/train 3, test Main/val 2; VOC 2010" in said
    (context / "trainval" / "2008_000008.mat").write_bytes(b"x")
    code, said = command("check", "pascal_context", f"root={context}")
    assert code == 1 and "FAULT: test: " in said and "2008_000008" in said


def test_the_command_prepares(command, tmp_path, server, sift):
    code, said = command("prepare", "sift_flow", f"root={sift}")
    assert code == 0 and "sift_flow all: ready" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("look", "x"), "segbench data look"),
        (("check",), "no data set"),
        (("check", "cityscapes"), "no data set cityscapes"),
        (("check", "pascal_voc", "roots=x"), "a key of pascal_voc: root, protocol"),
        (("check", "pascal_voc", "limit=x"), "limit=x"),
        (("check", "image_folder", "images=x"), "without masks(.|\n)*data.masks=..."),
        (("prepare", "nobody"), "no recipe for data set nobody|no data set nobody"),
        (("prepare", "nyudv2", "part=official"), "part=official"),
    ],
)
def test_bad_commands(command, arguments, message):
    import re

    code, said = command(*arguments)
    assert code == 1 and re.search(message, said)


def test_help(command):
    code, said = command("--help")
    assert code == 0 and "usage: segbench data prepare" in said and "pascal_voc" in said


def test_a_config_of_ones_own(command, tmp_path, voc):
    folder = tmp_path / "mine" / "data"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(f"_target_: segbench.data.pascal_voc.PascalVOC\nroot: {voc}\nprotocol: voc2012\n")
    code, said = command("check", "mine", "--config-dir", tmp_path / "mine")
    assert code == 0, said
