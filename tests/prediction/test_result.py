import numpy as np
import pytest
import torch

from segbench.inference.windows import Window
from segbench.prediction.pages import Page
from segbench.prediction.result import Result


def result(prob_KHW, y=0, x=0):
    image = np.arange(400).reshape(20, 20)
    page = Page((20, 20), lambda y0, y1, x0, x1: {"em": image[y0:y1, x0:x1]})
    return Result(Window(None, y, x, {"cells": torch.as_tensor(prob_KHW)}), page)


@pytest.mark.parametrize("classes", [1, 2, 21])
def test_the_class_is_the_likeliest_one_and_the_first_of_equals(classes):
    prob = np.random.default_rng(0).integers(0, 4, (classes, 9, 11)).astype(np.float32)
    found = result(prob).classes("cells")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, prob.argmax(0))


def test_the_image_of_a_window_is_where_the_window_lies():
    found = result(np.zeros((2, 3, 4), np.float32), y=5, x=7).image("em")
    assert found.tolist() == [[107, 108, 109, 110], [127, 128, 129, 130], [147, 148, 149, 150]]


def test_probabilities_are_float32_whatever_the_network_computes_in():
    prob = torch.full((2, 3, 4), 0.5, dtype=torch.bfloat16)
    assert result(prob).probabilities("cells").dtype == np.float32
