import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segbench.prediction.canvas import Canvas


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 30), st.integers(1, 30), st.sampled_from([(), (3,)]), st.integers(1, 12), st.booleans())
def test_windows_come_back_as_the_whole(tmp_path, height, width, samples, side, on_disk):
    image = np.random.default_rng(0).integers(0, 2**16, (height, width, *samples), dtype=np.uint16)
    canvas = Canvas(image.shape, image.dtype, 0 if on_disk else 2**20, tmp_path)
    assert canvas.in_memory != on_disk
    for y in range(0, height, side):
        for x in range(0, width, side):
            canvas.put(y, x, image[y : y + side, x : x + side])
    np.testing.assert_array_equal(canvas.rows(0, height), image)
    np.testing.assert_array_equal(canvas.rows(height // 2, height + 5), image[height // 2 :])
    canvas.close()
    assert not list(tmp_path.iterdir())


def test_values_take_the_type_of_the_canvas(tmp_path):
    for limit in (0, 2**20):
        canvas = Canvas((2, 3), np.dtype(np.float32), limit, tmp_path)
        canvas.put(0, 0, np.arange(6, dtype=np.float64).reshape(2, 3)[:, ::-1])
        assert canvas.rows(0, 2).dtype == np.float32
        assert canvas.rows(0, 2).tolist() == [[2, 1, 0], [5, 4, 3]]
        canvas.close()
