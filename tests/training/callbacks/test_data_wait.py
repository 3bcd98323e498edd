import time

import pytest

from segbench.data.datamodule import ResumableLoader
from segbench.training.callbacks.data_wait import DataWait, remedy


class Slow:
    """Samples of which each takes a twentieth of a second, the first a whole one."""

    def __len__(self):
        return 100

    def __getitem__(self, index):
        time.sleep(0.05 if index else 1)
        return index


def test_a_loader_counts_what_its_user_waits_but_for_the_first_batch():
    loader, batches = ResumableLoader(Slow()), []
    for batch in loader:
        batches.append(batch.item())
        if len(batches) == 4:
            break
    assert batches == [0, 1, 2, 3]
    assert 0.15 <= loader.waited_s < 0.9


def test_a_training_adds_up_across_a_resume(fit, scripted):
    first, second = DataWait(), DataWait()
    trainer = fit(scripted(), first, steps=3)
    assert trainer.train_dataloader.waited_s >= first.waited_s >= 0
    assert first.trained_s > first.waited_s
    second.load_state_dict(first.state_dict())
    fit(scripted(), second, steps=3)
    assert second.trained_s > first.trained_s


def test_validations_are_no_training(fit, scripted):
    class Validating(scripted):
        def on_validation_epoch_start(self):
            time.sleep(0.3)

    wait = DataWait()
    fit(Validating([1.0, 1.0, 1.0]), wait, steps=3)
    assert wait.trained_s < 0.3


@pytest.mark.parametrize(
    ("waited", "trained", "told"), [(2.0, 10.0, True), (0.9, 10.0, False), (0.5, 1.0, False), (2.0, 21.0, False)]
)
def test_a_tenth_of_the_time_is_told(waited, trained, told, caplog):
    wait = DataWait()
    wait.load_state_dict({"waited_s": waited, "trained_s": trained})
    trainer = type("Trainer", (), {"is_global_zero": True, "train_dataloader": None, "num_devices": 1})
    wait.on_train_end(trainer, None)
    assert ("waited for data" in caplog.text) == told


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        # Loading takes as long as computing: one process hides it.
        ((5, 10, 0, 4), "50% of its time (5 of 10 s): set data.num_workers=1 (now 0)"),
        ((9, 10, 0, 16), "90% of its time (9 of 10 s): set data.num_workers=9 (now 0)"),
        # Two processes load what takes 20 s while 5 s are computed.
        ((5, 10, 2, 16), "50% of its time (5 of 10 s): set data.num_workers=4 (now 2)"),
        ((9, 10, 0, 4), "set data.num_workers=4 (now 0), and choose a cheaper augment=, or store smaller images"),
        ((5, 10, 4, 4), "(5 of 10 s): choose a cheaper augment=, or store smaller images"),
    ],
)
def test_the_remedy_is_as_many_workers_as_it_takes(numbers, said):
    assert remedy(*numbers).endswith(said)
