"""Batches: samples used so often, drawn meanwhile, in any unit."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import threading
from dataclasses import replace

import pytest
import torch
from numpy.testing import assert_allclose

from mne_deepsif.training.batches import BatchStream


@pytest.mark.parametrize("n_uses, batch_size", ((1, 8), (2, 8), (3, 8), (2, 3), (1, 1)))
def test_each_sample_is_used_so_often(
    library, sensors, n_uses, batch_size, make_trainer
):
    """In ``n_uses`` batches of a pool, once in each pass over it; any batch size."""
    sensors = [*sensors, sensors[0]]
    trainer = make_trainer(
        library, sensors, n_uses=n_uses, batch_size=batch_size, n_leadfields=3
    )
    batches = []
    for _ in range(n_uses**2):
        X, Y, power = trainer.stream.take()
        assert len(X) == len(Y) == len(power) == batch_size
        batches.append(X)
    for first in range(0, n_uses**2, n_uses):  # one pass
        once = torch.cat(batches[first : first + n_uses]).flatten(1)
        assert len(once.unique(dim=0)) == n_uses * batch_size
    assert len(torch.cat(batches).flatten(1).unique(dim=0)) == len(once)
    fresh = trainer.stream.take()[0].flatten(1)
    assert len(torch.cat([once, fresh]).unique(dim=0)) == len(once) + len(fresh)


def test_samples_are_drawn_meanwhile(library, sensors, monkeypatch, make_trainer):
    """By another thread, and those that are drawn without one."""
    names = set()
    draw = BatchStream._draw_pool

    def noted(self):
        names.add(threading.current_thread().name)
        return draw(self)

    monkeypatch.setattr(BatchStream, "_draw_pool", noted)
    trainer, other = (make_trainer(library, sensors) for _ in range(2))
    trainer.run()
    assert len(names) == 1  # the first pool, too, while the network is validated
    while other.step < trainer.step:
        other._train_step()
    other._validate()
    assert other.history[-1] == trainer.history[-1]


def test_error_while_drawing(library, sensors, monkeypatch, make_trainer):
    """It ends the training, with torch's settings as they were."""
    trainer = make_trainer(library, sensors)
    draw, calls = trainer.batches.draw, []

    def fail(*args):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("no more samples")
        return draw(*args)

    monkeypatch.setattr(trainer.batches, "draw", fail)
    before = _count_threads()
    with pytest.raises(RuntimeError, match="no more samples"):
        trainer.run()
    assert _count_threads() == before


def _count_threads():
    """Return torch's number of threads here, and in a new thread."""
    found = [torch.get_num_threads()]
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found


def test_units_of_the_leadfield_do_not_matter(library, sensors, make_trainer):
    """Volts or microvolts: the network gets the same input."""
    scaled = [replace(one, gain=1e-7 * one.gain) for one in sensors]
    for (X, Y, _), (other_X, other_Y, _) in zip(
        make_trainer(library, sensors).validation,
        make_trainer(library, scaled).validation,
    ):
        # components have no sign of their own
        assert_allclose(X.mT @ X, other_X.mT @ other_X, atol=1e-2)
        assert_allclose(X.mT @ Y, other_X.mT @ other_Y, atol=1e-2)
