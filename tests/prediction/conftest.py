"""Specs and pages of predictions."""

import numpy as np
import pytest
import torch

from segbench.inference.windows import Window
from segbench.prediction.pages import Page
from segbench.prediction.result import Result
from segbench.prediction.settings import Settings, Target
from segbench.spec import DatasetSpec, HeadSpec, ModalitySpec

UNITS = {
    "em": ModalitySpec(1, (0.0,), (1.0,), "grey level, 0 to 255"),
    "rgb": ModalitySpec(3, (0.0,) * 3, (1.0,) * 3, "R, G, B, 0 to 255"),
    "depth": ModalitySpec(1, (7.844,), (1.0,), "ln(millimetres)"),
}
HEADS = {
    "cells": HeadSpec(("membrane", "cell"), ((0, 0, 0), (255, 255, 255))),
    "land": HeadSpec(("sky", "road/path", "tree"), ((0, 0, 0), (200, 0, 0), (0, 200, 0))),
}


@pytest.fixture(scope="session")
def spec():
    """`spec("em", heads=("cells",))`: a data set of these modalities and heads."""

    def made(*modalities, heads=("cells",)):
        units = {name: UNITS[name] for name in modalities or ("em",)}
        return DatasetSpec("toy", units, {name: HEADS[name] for name in heads}, "", "", "")

    return made


@pytest.fixture
def target(spec, tmp_path):
    """`target(kinds, sizes, heads=..., **settings)`: outputs of an input `x` in tmp_path."""

    def made(kinds, sizes, heads=("cells",), name="x", **settings):
        return Target(name, tuple(sizes), spec(heads=heads), tmp_path / "out", Settings(tuple(kinds), **settings))

    return made


@pytest.fixture
def filled():
    """`filled(outputs, pages)`: outputs given pages of (image, {head: KHW}), window by window, and finished."""

    def fill(outputs, pages, side=7):
        for index, (image, heads) in enumerate(pages):
            page = Page(image.shape[:2], lambda y0, y1, x0, x1, image=image: {"em": image[y0:y1, x0:x1]})
            outputs.begin(index, page)
            heads = {name: torch.as_tensor(np.asarray(prob, np.float32)) for name, prob in heads.items()}
            for y in range(0, image.shape[0], side):
                for x in range(0, image.shape[1], side):
                    parts = {name: prob[:, y : y + side, x : x + side] for name, prob in heads.items()}
                    outputs.add(Result(Window(None, y, x, parts), page))
            outputs.end()
        outputs.finish()
        return outputs.paths

    return fill
