import numpy as np
import pytest

from segbench.metrics import Decoding
from segbench.metrics.by_decoding import ByDecoding
from segbench.metrics.instances import InstanceOverlap, Seg
from segbench.metrics.measure import ImageResult, Measure


def image(seed):
    rng = np.random.default_rng(seed)
    ids_HW = np.kron(rng.integers(0, 3, (3, 4)), np.ones((3, 3), int)).astype(np.int32)
    prob_HW = np.clip((ids_HW > 0) * 0.5 + rng.random(ids_HW.shape) * 0.5, 0, 1).astype(np.float32)
    return ImageResult(
        label_HW=np.uint8(ids_HW > 0),
        pred_HW=np.uint8(prob_HW > 0.5),
        prob_KHW=np.stack([1 - prob_HW, prob_HW]),
        instances_HW=ids_HW,
    )


@pytest.mark.parametrize(("measure", "score"), [(Seg(), "seg"), (InstanceOverlap(), "instance_f1_50")])
def test_each_decoding_scores_as_the_measure_with_it_alone(measure, score):
    decodings = [Decoding(threshold=0.3), Decoding(threshold=0.6), Decoding("watershed", threshold=0.6, min_size=4)]
    several = ByDecoding(measure, score, decodings, ["a", "b", "c"])
    assert isinstance(several, Measure)
    assert [info.name for info in several.infos()] == [f"{score}/{label}" for label in "abc"]
    images = [image(seed) for seed in range(3)]

    def total(measure):
        counts = [measure.counts(each) for each in images]
        return measure.scores({key: np.sum([each[key] for each in counts], axis=0) for key in counts[0]})

    found = total(several)
    for label, decoding in zip("abc", decodings, strict=True):
        assert found[f"{score}/{label}"] == total(type(measure)(decoding=decoding))[score]
    assert len(set(map(float, found.values()))) > 1
