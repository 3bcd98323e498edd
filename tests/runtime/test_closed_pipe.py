import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from segbench.runtime.closed_pipe import ends_quietly


def run_into_closed_pipe(*command, **options):
    """Run a command whose standard output nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return subprocess.run([sys.executable, *command], stdout=writer, stderr=subprocess.PIPE, text=True, **options)
    finally:
        os.close(writer)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["list", "loss"]])
def test_a_command_ends_quietly_where_its_output_is_closed(arguments):
    done = run_into_closed_pipe("-m", "segbench", *arguments)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_prediction_ends_quietly_and_goes_on_later(tiny_run, tmp_path):
    (tmp_path / "in").mkdir()
    for name in "ab":
        cv2.imwrite(str(tmp_path / "in" / f"{name}.png"), np.full((48, 48), 121, np.uint8))
    command = ("-m", "segbench", "predict", f"run={tiny_run}", f"input={tmp_path / 'in'}")
    done = run_into_closed_pipe(*command, f"output={tmp_path / 'out'}")
    assert done.returncode == 141
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
    # What was written stays, and nothing half-written beside it; the writer is up to two images ahead of the names.
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left - {"b.png"} == {"a.png", "classes.json", "predictions.jsonl"}
    again = subprocess.run(
        [sys.executable, *command, f"output={tmp_path / 'out'}"], capture_output=True, text=True, check=True
    )
    assert again.stdout.splitlines() == [str(tmp_path / "out" / name) for name in ("b.png",) if name not in left]
    assert f"{len(left) - 2} of 2 inputs are already predicted" in again.stderr


def test_another_broken_pipe_is_told():
    with pytest.raises(BrokenPipeError, match="a worker's"), ends_quietly():
        raise BrokenPipeError("a worker's")
