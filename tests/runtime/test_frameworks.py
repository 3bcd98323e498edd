import subprocess
import sys


def test_listing_and_composing_load_no_framework_and_the_frameworks_are_loaded_with_garbage_left_alone():
    code = """
import contextlib, gc, io, sys
from segbench.cli.main import main
for words in (["--help"], ["list"], ["train", "--cfg", "job"]):
    sys.argv = ["segbench", *words]
    with contextlib.redirect_stdout(io.StringIO()):
        main()
light = {"torch", "lightning", "numba", "matplotlib", "pandas", "wandb"} & {*sys.modules}
from segbench.runtime.frameworks import import_frameworks
import_frameworks()
rare = {"albumentations", "tensorboard", "h5py", "zarr", "skimage", "tifffile", "torchvision", "optuna"}
import segbench.experiment.build, segbench.experiment.evaluate, segbench.experiment.predict
print(*light, *({"wandb", "mlflow", "pandas", *rare} & {*sys.modules}), gc.isenabled(), gc.get_freeze_count() > 100_000)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]


def test_a_program_that_imports_segbench_keeps_no_garbage():
    code = """
import gc, weakref
class Node: pass
one, other = Node(), Node()
one.other, other.one = other, one
from segbench.runtime.frameworks import import_frameworks
import_frameworks()
seen = weakref.ref(one)
del one, other
gc.collect()
print(seen() is None, gc.isenabled())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True"]
