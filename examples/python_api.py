"""Train, score, predict and compare from Python; the arguments are further overrides.

python python_api.py trainer.max_steps=100
"""

import sys

import numpy as np
from PIL import Image

import segbench


def main() -> None:
    """The whole way, on drawn images."""
    overrides = ["model.width=8", "trainer.max_steps=60", "trainer.val_check_interval=null", *sys.argv[1:]]
    run = segbench.train(overrides)
    print("test mean IU", run.results()["metrics"]["test/mean_iu"])

    predictor = segbench.load(run)
    image_HW = np.random.default_rng(0).integers(0, 256, (200, 300), dtype=np.uint8)
    prediction = predictor.predict(image_HW)
    print(prediction.probabilities.shape, prediction.mask.shape, prediction.instances.max(), "objects")
    Image.fromarray(prediction.mask * 255).save("mask.png")

    scored = segbench.evaluate(run, ["tta=d4"])
    print("averaged over eight symmetries", scored.results()["metrics"]["test/mean_iu"])

    # The same with another seed, and whether the difference is more than noise.
    other = segbench.train([*overrides, "seed=1"])
    for sentence in segbench.compare([run, other], metric="mean_iu", seeds_apart=True).pairs[0].sentences:
        print(sentence)


if __name__ == "__main__":
    main()
