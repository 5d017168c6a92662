"""DeepSIF, sLORETA and dSPM side by side on simulated data.

What ``first_results.py`` and ``generic.py`` share: the held-out library, the methods,
and the scores of a cell of a table.
"""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from time import thread_time

import mne
import numpy as np
import torch
from scipy import sparse
from threadpoolctl import threadpool_limits

import mne_deepsif
from mne_deepsif import metrics
from mne_deepsif.estimator import make_training_leadfield
from mne_deepsif.head.leadfield import channel_std, make_leadfield
from mne_deepsif.head.patterns import make_patterns
from mne_deepsif.inverse.weights import load_model
from mne_deepsif.simulation import Simulator
from mne_deepsif.simulation.library import make_library

from ..comparison.subjects import LIBRARY_SEED
from ..options import SMALL_LIBRARY

METHODS = ("DeepSIF", "sLORETA", "dSPM")
RULES = ("authors", "peak")
CHUNK = 100  # samples of one simulator; chunks run side by side
BATCH = 8  # samples that are estimated at once: few, to stay in the processor's cache
SECONDS = Counter()  # processor time of each stage, and the number of samples


def held_out_library(parcels, small=False):
    """Return patches, waveforms and background that no training has seen."""
    options = dict(
        sfreq=500.0,
        n_patches=4000,
        n_waveforms=4000,
        background=60.0,
        papers_only=True,
        random_state=LIBRARY_SEED,
    )
    return make_library(parcels, **SMALL_LIBRARY if small else options)


# ---------------------------------------------------------------- methods
def parcel_mean(leadfield):
    """Return the matrix that averages vertices within parcels."""
    parcel = np.concatenate(leadfield.parcel_of_vertex)
    rows = np.flatnonzero(parcel >= 0)
    count = np.bincount(parcel[rows], minlength=leadfield.gain.shape[1])
    return sparse.csr_array(
        (1 / count[parcel[rows]], (parcel[rows], rows)),
        shape=(leadfield.gain.shape[1], len(parcel)),
    )


class Methods:
    """DeepSIF and MNE's methods on the same sensors; estimates on parcels.

    ``scaled`` is the leadfield in units of the channels' noise, ``std``.
    """

    def __init__(self, info, fwd, model=None, subjects_dir=None):
        self.info = info
        self.cov = mne.make_ad_hoc_cov(info)
        self.parcels = mne_deepsif.make_template_parcels()
        self.leadfield = make_leadfield(
            info, fwd, self.cov, parcels=self.parcels, subjects_dir=subjects_dir
        )
        self.scaled = make_training_leadfield(self.leadfield, "backprojection")
        self.std = channel_std(self.leadfield)[:, 0]
        inverse = mne.minimum_norm.make_inverse_operator(
            info, fwd, self.cov, fixed=True, depth=None
        )
        self.kernels = {method: self._kernel(inverse, method) for method in METHODS[1:]}
        model = load_model("generic") if model is None else model
        patterns = make_patterns(self.leadfield)
        gain = patterns.gain_of(self.leadfield.whitener)
        self.prepared = model.prepare(self.leadfield.gain_white, gain)
        self.to_parcels = patterns.to_parcels(self.leadfield)

    def _kernel(self, inverse, method):
        """Return MNE's linear estimate from sensors to parcels."""
        unit = mne.EvokedArray(np.diag(self.std), self.info)
        stc = mne.minimum_norm.apply_inverse(unit, inverse, 1 / 9, method)
        return (parcel_mean(self.leadfield) @ stc.data).astype(np.float32)

    def estimate(self, data, method):
        """Estimate the parcels' activity.

        Parameters
        ----------
        data : array of shape (n_samples, n_channels, n_times)
            Data in units of the channels' noise.
        method : str
            One of ``METHODS``.

        Returns
        -------
        sources : array of shape (n_samples, n_parcels, n_times)
            The activity, in the method's own unit.
        """
        if method != "DeepSIF":
            return self.kernels[method] @ data.astype(np.float32)
        data_white = self.scaled.whitener @ data
        sources = self.prepared.estimate(
            data_white, self.info["sfreq"], mixing=self.to_parcels
        )
        return sources.astype(np.float32)


# ---------------------------------------------------------------- scores
def score_cell(
    methods,
    library,
    n_sources,
    snr,
    n_samples,
    seed,
    *,
    simulator=Simulator,
    truth=None,
    n_jobs=1,
    **options,
):
    """Score all methods on the same simulated samples.

    Parameters
    ----------
    methods : Methods
        The methods and their sensors.
    library : Library
        What the sources and the background are drawn from.
    n_sources : int | tuple of int
        Number of sources of a sample; of several each is equally likely.
    snr : float | tuple of float
        Sensor noise (dB); of a range, drawn uniformly.
    n_samples : int
        Number of samples of 1 s at 500 Hz.
    seed : int
        Seed of the first ``CHUNK`` samples.
    simulator : type
        :class:`Simulator` or a class derived from it.
    truth : tuple of (gain, to_parcels, parcels) | None
        Where the data are made of other parcels than the methods estimate: their gain
        in units of noise, the matrix that carries estimates over to them, and they.
    n_jobs : int
        Number of threads.
    **options : dict
        More parameters of the simulator.

    Returns
    -------
    scores : dict of list
        A value per source for each ``(method, rule, metric)``.
    """
    counts = np.atleast_1d(n_sources).tolist()
    options = (
        dict(
            n_sources={count: 1 / len(counts) for count in counts},
            background_snr=(10.0, 15.0),
            sensor_snr=tuple(np.broadcast_to(snr, 2).tolist()),
            noise="authors",
            margin=-0.1,
        )
        | options
    )
    if truth is None:
        truth = methods.scaled.gain, None, methods.parcels

    def score_chunk(offset, n_samples):
        source = simulator(library, 500, seed=seed + offset, **options)
        return _score_samples(methods, source, truth, n_samples)

    scores = {}
    for chunk, seconds in in_chunks(score_chunk, n_samples, n_jobs):
        SECONDS.update(seconds)
        for key, values in chunk.items():
            scores.setdefault(key, []).extend(values)
    return scores


def in_chunks(function, n_samples, n_jobs):
    """Call ``function(seed_offset, n_samples)`` for each chunk, in threads."""
    sizes = [min(CHUNK, n_samples - k) for k in range(0, n_samples, CHUNK)]
    offsets = [1_000_003 * k for k in range(len(sizes))]  # apart from cells' seeds
    n_threads = torch.get_num_threads()
    torch.set_num_threads(max(1, n_threads // n_jobs))
    try:
        with threadpool_limits(1), ThreadPoolExecutor(n_jobs) as pool:
            return list(pool.map(function, offsets, sizes))
    finally:
        torch.set_num_threads(n_threads)


def _score_samples(methods, simulator, truth, n_samples):
    """Score samples of one simulator; return the scores and processor times."""
    gain, to_parcels, parcels = truth
    gain = torch.as_tensor(gain).float()
    scores, seconds = {}, Counter(samples=n_samples)
    for first in range(0, n_samples, BATCH):
        start = thread_time()
        samples = [
            draw_sample(simulator, gain) for _ in range(min(BATCH, n_samples - first))
        ]
        data = np.stack([sample[0] for sample in samples])
        seconds["simulation"] += thread_time() - start
        for method in METHODS:
            start = thread_time()
            estimates = methods.estimate(data, method)
            if to_parcels is not None:
                estimates = [to_parcels @ sources for sources in estimates]
            seconds[method] += thread_time() - start
            start = thread_time()
            for sources, (_, patches, waves) in zip(estimates, samples, strict=True):
                _add_scores(scores, method, sources, patches, waves, parcels)
            seconds["metrics"] += thread_time() - start
    return scores, seconds


def draw_sample(simulator, gain):
    """Return data, patches and waveforms of one sample."""
    weights, waves, background, chosen, power = simulator.draw(1)
    data, _ = simulator.project(gain, weights, waves, background, chosen, power)
    present = (chosen[0] >= 0).numpy()
    patches = [np.flatnonzero(profile) for profile in weights[0].numpy()[present]]
    return data[0].double().numpy(), patches, waves[0].double().numpy()[present]


def _add_scores(scores, method, sources, patches, waves, parcels):
    for rule in RULES:
        cell = metrics.evaluate_parcels(
            sources, patches, waves, parcels.centers, parcels.areas, rule=rule
        )
        for name, values in cell.items():
            scores.setdefault((method, rule, name), []).extend(values)
