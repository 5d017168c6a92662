"""The methods, each with its settings: the usual ones first, then the candidates.

``METHODS[name].prepare(problem, **settings)`` returns a function from an Evoked to a
SourceEstimate.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from importlib.metadata import version
from itertools import product
from pathlib import Path

import mne
import numpy as np
from mne.beamformer import apply_lcmv, make_lcmv
from mne.inverse_sparse import gamma_map, mixed_norm
from mne.minimum_norm import apply_inverse, make_inverse_operator

import mne_deepsif
from mne_deepsif.cache import cached

PACKAGE = Path(mne_deepsif.__file__).parent
BENCHMARKS = Path(__file__).parents[1]
LAMBDA2 = (1.0, 1 / 9, 1 / 25, 1 / 100)
# modules that decide what a cell holds
SOURCES = (
    *("comparison/authors", "comparison/cortex", "comparison/heads"),
    *("comparison/methods", "comparison/papers", "comparison/run"),
    *("comparison/scenarios", "comparison/scores", "comparison/simulator"),
    *("comparison/subjects", "comparison/waves", "making/heads", "options"),
)


@dataclass(frozen=True)
class Method:
    """A method.

    Parameters
    ----------
    prepare : callable
        ``prepare(problem, **settings)`` returns ``estimate(evoked)``.
    settings : tuple of dict
        The usual settings, then others to choose from on validation samples.
    moments : bool
        The estimate is in A m, so one can say how much of the data it explains.
    reads : tuple of str
        Parts of the package that it depends on, beside those of the heads.
    likely : bool
        The package knows how likely the extents of the estimate are.
    """

    prepare: Callable
    settings: tuple = ({},)
    moments: bool = True
    reads: tuple = ()
    likely: bool = False


# ---------------------------------------------------------------- minimum norms
def prepare_minimum_norm(problem, *, method, lambda2, loose, depth):
    """Prepare one of MNE's linear methods: a kernel, so that samples take no time."""
    info, inverse = problem.info, make_inverse(problem, loose, depth)
    pick_ori = "vector" if loose else None
    normals = np.concatenate([s["nn"][s["vertno"]] for s in inverse["src"]])

    @cache
    def kernel(nave):
        unit = mne.EvokedArray(np.eye(len(info.ch_names)), info, nave=nave)
        stc = apply_inverse(unit, inverse, lambda2, method, pick_ori)
        return stc.data.astype(np.float32), stc.vertices

    return lambda evoked: apply_kernel(*kernel(evoked.nave), evoked, normals)


@lru_cache(3)
def make_inverse(problem, loose, depth):
    """Return what the linear methods share."""
    return make_inverse_operator(
        problem.info, problem.fwd, problem.noise_cov, loose=loose, depth=depth
    )


def apply_kernel(kernel, vertices, evoked, normals):
    """Apply a linear estimate.

    Of three orientations, return the norm, with the sign that it has along the normal.
    """
    data = kernel @ evoked.data.astype(np.float32)
    if data.ndim == 3:  # (n_vertices, 3, n_times)
        sign = np.sign(np.einsum("vit,vi->vt", data, normals.astype(np.float32)))
        data = sign * np.linalg.norm(data, axis=1)
    return mne.SourceEstimate(data, vertices, evoked.times[0], 1 / evoked.info["sfreq"])


def minimum_norm(method, *orientations):
    """Return a linear method of MNE; usual are the defaults of its functions.

    ``orientations`` are more pairs of ``loose`` and ``depth`` to choose from.
    """
    usual = dict(lambda2=1 / 9, loose=0.2, depth=0.8)
    pairs = product(((0.2, 0.8), (0.0, None), *orientations), LAMBDA2)
    others = [
        dict(lambda2=lambda2, loose=loose, depth=depth)
        for (loose, depth), lambda2 in pairs
    ]
    settings = (usual, *(one for one in others if one != usual))
    prepare = partial(prepare_minimum_norm, method=method)
    return Method(prepare, settings, moments=method == "MNE")


# ---------------------------------------------------------------- beamformers
def prepare_lcmv(problem, *, weight_norm, reg):
    """Prepare the beamformer; its data covariance is that of each Evoked."""
    fwd = fix(problem.fwd)

    def estimate(evoked):
        raw = mne.io.RawArray(evoked.data, evoked.info)
        filters = make_lcmv(
            evoked.info,
            fwd,
            mne.compute_raw_covariance(raw, tstep=None),
            reg,
            problem.noise_cov,
            weight_norm=weight_norm,
            rank="info",
        )
        return apply_lcmv(evoked, filters)

    return estimate


def fix(fwd):
    """Return a forward along the normals of the cortex."""
    return mne.convert_forward_solution(fwd, surf_ori=True, force_fixed=True)


def lcmv(weight_norm):
    """Return the beamformer; usual is the default regularisation."""
    settings = tuple(dict(reg=reg) for reg in (0.05, 0.3, 1.0, 3.0))
    prepare = partial(prepare_lcmv, weight_norm=weight_norm)
    return Method(prepare, settings, moments=weight_norm is None)


# ---------------------------------------------------------------- sparse methods
def prepare_sparse(problem, *, function, **settings):
    """Prepare a method that returns few vertices; all others are zero."""
    fwd = fix(problem.fwd)

    def estimate(evoked):
        stc = function(evoked, fwd, problem.noise_cov, loose=0.0, **settings)
        return fill(stc, fwd)

    return estimate


def fill(stc, fwd):
    """Spread an estimate over all vertices of a forward."""
    vertices = [s["vertno"] for s in fwd["src"]]
    return stc.expand(vertices)


# ---------------------------------------------------------------- the package
def prepare_deepsif(problem, *, weights="generic"):
    """Prepare the package's estimate."""
    operator = mne_deepsif.make_deepsif_operator(
        problem.info,
        problem.fwd,
        problem.noise_cov,
        estimator=weights,
        subjects_dir=problem.subjects_dir,
    )
    return partial(mne_deepsif.apply_deepsif, fwd=operator, verbose="error")


def prepare_personalised(problem, *, n_steps, weights="generic"):
    """Prepare the package's estimate with weights fitted to the head, kept on disk."""
    arrays = problem.fwd["sol"]["data"], problem.noise_cov["data"]
    digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()

    def fit():
        estimator = mne_deepsif.DeepSIFEstimator(
            weights, n_steps=n_steps, random_state=0
        )
        where = problem.fwd, problem.info, problem.noise_cov
        return estimator.fit(*where, subjects_dir=problem.subjects_dir)

    fitted = cached(
        "personalised",
        [version_of(PERSONALISED), digest, n_steps, weights],
        ".safetensors",
        mne_deepsif.read_deepsif,
        lambda fname, estimator: estimator.save(fname),
        fit,
    )
    return prepare_deepsif(problem, weights=fitted)


def prepare_comparator(problem, *, name, **settings):
    """Prepare CMEM or FAST-IRES."""
    from mne_deepsif import comparators

    function = getattr(comparators, f"apply_{name}")
    return partial(function, fwd=problem.fwd, noise_cov=problem.noise_cov, **settings)


def comparator(name, *settings):
    """Return CMEM or FAST-IRES."""
    prepare = partial(prepare_comparator, name=name)
    return Method(prepare, settings, reads=("comparators",))


OURS = ("inverse", "network", "data/generic.safetensors", "apply.py")
PERSONALISED, SCRATCH = "DeepSIF, personalised", "DeepSIF, from scratch"
METHODS = {
    "DeepSIF": Method(prepare_deepsif, reads=OURS, likely=True),
    PERSONALISED: Method(
        prepare_personalised,
        (dict(n_steps=500),),
        reads=(*OURS, "training", "estimator.py"),
        likely=True,
    ),
    SCRATCH: Method(
        prepare_personalised,
        (dict(n_steps=2000, weights=None),),
        reads=(*OURS, "training", "estimator.py"),
    ),
    "MNE": minimum_norm("MNE", (0.0, 0.8)),
    "dSPM": minimum_norm("dSPM", (0.0, 0.8)),
    # these two undo the weighting by depth
    "sLORETA": minimum_norm("sLORETA"),
    "eLORETA": minimum_norm("eLORETA"),
    "LCMV": lcmv("unit-noise-gain"),
    "LCMV, unit gain": lcmv(None),
    "MxNE": Method(
        partial(prepare_sparse, function=mixed_norm),
        (dict(alpha="sure", random_state=0), *(dict(alpha=a) for a in (30.0, 60.0))),
    ),
    "gamma-MAP": Method(
        partial(prepare_sparse, function=gamma_map),
        (dict(alpha=0.5), dict(alpha=0.1), dict(alpha=1.0)),
    ),
    # its update of the variances is Champagne's: the noise is known, orientations fixed
    "Champagne": Method(
        partial(prepare_sparse, function=gamma_map, update_mode=2),
        (dict(alpha=1.0), dict(alpha=0.3), dict(alpha=3.0)),
    ),
    "CMEM": comparator("cmem", {}, dict(active_variance=0.2)),
    "FAST-IRES": comparator("fast_ires", {}, dict(alpha=0.2), dict(alpha=1.0)),
}
EXTENTS = ("extent.py", "goodness.py", "trust/candidates.py", "data/extents.json")
SLOW = (PERSONALISED, SCRATCH, "MxNE", "gamma-MAP", "Champagne", "CMEM", "FAST-IRES")


def find_method(name):
    """Return a method by its name; ``DeepSIF:file`` takes the weights of a file."""
    if name.startswith("DeepSIF:"):
        weights = name.removeprefix("DeepSIF:")
        prepare = partial(prepare_deepsif, weights=weights)
        return Method(prepare, reads=OURS, likely=True)
    return METHODS[name]


# ---------------------------------------------------------------- versions
@cache
def version_of(name, judged=False):
    """Hash all that the scores of a method depend on, beside the scenario.

    ``judged`` estimates are asked for their extents, too.
    """
    folders = ("head", "metrics", "simulation", "stc_metrics", *find_method(name).reads)
    folders += EXTENTS if judged else ()
    files = [BENCHMARKS / f"{module}.py" for module in SOURCES]
    for part in folders:
        path = PACKAGE / part
        files += sorted(path.rglob("*")) if path.is_dir() else [path]
    if name.startswith("DeepSIF:"):
        files.append(Path(name.removeprefix("DeepSIF:")))
    digest = hashlib.sha256(version("mne").encode())
    for file in files:
        if file.is_file() and file.suffix != ".pyc":
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
