"""The threads of NumPy's matrix products while an estimate is made."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import threading

import pytest
from threadpoolctl import ThreadpoolController, threadpool_limits

from mne_deepsif.inverse.plan import one_blas_thread


def n_threads():
    """Count the threads of each OpenBLAS that is loaded."""
    openblas = ThreadpoolController().select(internal_api="openblas")
    return [library["num_threads"] for library in openblas.info()]


@pytest.fixture
def two_threads():
    with threadpool_limits(limits=2, user_api="blas"):
        if 2 not in (found := n_threads()):
            pytest.skip("NumPy's products have one thread, or another library")
        yield found


def test_one_blas_thread(two_threads):
    """One inside, as before outside, also after an error."""
    with one_blas_thread():
        assert set(n_threads()) == {1}
    assert n_threads() == two_threads
    with pytest.raises(ValueError, match="wrong"), one_blas_thread():
        raise ValueError("wrong")
    assert n_threads() == two_threads


def test_other_threads_leave_it_alone(two_threads):
    """One that leaves late would otherwise restore what another had set."""
    entered, leave = threading.Event(), threading.Event()
    inside = []

    def stay():
        with one_blas_thread():
            inside.append(n_threads())
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=stay)
    thread.start()
    entered.wait(10)
    assert inside == [two_threads]
    with one_blas_thread():
        leave.set()
        thread.join()
        assert set(n_threads()) == {1}
    assert n_threads() == two_threads
