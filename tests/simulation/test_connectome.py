"""Tests of the connectome: distance rule, reader, checks."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from mne_deepsif.simulation.connectome import (
    NMM_994_INDEX,
    Connectome,
    make_distance_connectome,
    read_tvb_connectivity,
)
from mne_deepsif.simulation.jansen_rit import simulate_jansen_rit

TVB_FILE = Path(__file__).parents[3] / "shared/data/reference/connectivity_998.zip"


@pytest.fixture(scope="module")
def tvb():
    """Give the papers' connectome."""
    if not TVB_FILE.is_file():
        pytest.skip(f"needs {TVB_FILE}")
    return read_tvb_connectivity(TVB_FILE, NMM_994_INDEX)


@pytest.fixture
def sphere():
    """Give 200 mirrored parcels on two half spheres: centres and hemispheres."""
    points = np.random.default_rng(0).standard_normal((100, 3))
    points *= 0.07 / np.linalg.norm(points, axis=1, keepdims=True)
    points[:, 0] = np.abs(points[:, 0])
    centers = np.concatenate([points * [-1, 1, 1], points])
    return centers, np.repeat([0, 1], 100)


def test_distance_rule(sphere):
    """Weights fall exponentially, are symmetric and add up to the strength."""
    centers, hemi = sphere
    connectome = make_distance_connectome(centers, hemi, n_neighbors=99, strength=7.0)
    weights = connectome.weights.toarray()
    assert connectome.n_parcels == 200
    np.testing.assert_allclose(weights, weights.T)
    assert (weights >= 0).all() and not np.diag(weights).any()
    np.testing.assert_allclose(weights.sum() / 200, 7.0)
    distance = np.linalg.norm(centers[0] - centers, axis=1)
    inside = slice(1, 100)
    slope = np.polyfit(distance[inside], np.log(weights[0, inside]), 1)[0]
    np.testing.assert_allclose(slope, -1 / 0.01)
    lengths = connectome.tract_lengths.toarray()
    np.testing.assert_allclose(lengths[0, inside], 1250 * distance[inside])


def test_homotopic_links(sphere):
    """The only links between hemispheres join mirror parcels, with their share."""
    weights = make_distance_connectome(*sphere, homotopic=0.2).weights.toarray()
    across = weights[:100, 100:]
    assert np.count_nonzero(across) == 100
    assert np.diag(across).all()
    np.testing.assert_allclose(2 * across.sum() / weights.sum(), 0.2)
    alone = make_distance_connectome(sphere[0][:100], sphere[1][:100])
    np.testing.assert_allclose(alone.weights.sum() / 100, 17.8)


def test_neighbors_only(sphere):
    """Each parcel has its nearest neighbours and few more."""
    weights = make_distance_connectome(*sphere, n_neighbors=8, homotopic=0).weights
    degree = (weights > 0).sum(1)
    assert degree.min() >= 8
    assert degree.mean() < 12


@pytest.mark.parametrize("scale", [1, 4])
def test_coarse_parcels(sphere, scale):
    """Wide parcels get the same strength: nothing underflows."""
    centers, hemi = sphere
    weights = make_distance_connectome(scale * centers[::20], hemi[::20]).weights
    assert np.isfinite(weights.data).all()
    np.testing.assert_allclose(weights.sum() / 10, 17.8)


def test_bad_centers(sphere):
    """Wrong units, shapes and hemispheres are named."""
    centers, hemi = sphere
    with pytest.raises(ValueError, match="in metres"):
        make_distance_connectome(1000 * centers, hemi)
    with pytest.raises(ValueError, match=r"centers must have the shape"):
        make_distance_connectome(centers, hemi[:-1])
    with pytest.raises(ValueError, match="hemi must be 0"):
        make_distance_connectome(centers, hemi + 1)
    with pytest.raises(ValueError, match="finite"):
        make_distance_connectome(centers * np.nan, hemi)
    with pytest.raises(ValueError, match=r"centers must have the shape"):
        make_distance_connectome(np.zeros((0, 3)), [])


@pytest.mark.parametrize(
    ("bad", "match"),
    (
        (dict(length=0.0), "length must be positive"),
        (dict(length=np.nan), "length must be positive"),
        (dict(n_neighbors=0), "n_neighbors must be at least 1"),
        (dict(homotopic=-0.1), "homotopic must be a share"),
        (dict(homotopic=1.1), "homotopic must be a share"),
        (dict(strength=-1.0), "strength must be finite and not negative"),
        (dict(strength=np.nan), "strength must be finite and not negative"),
    ),
)
def test_bad_rule(sphere, bad, match):
    with pytest.raises(ValueError, match=match):
        make_distance_connectome(*sphere, **bad)
    with pytest.raises(TypeError, match=f"{next(iter(bad))} must be"):
        make_distance_connectome(*sphere, **dict.fromkeys(bad, "x"))


def test_bad_connectome():
    """Negative, infinite or oblong matrices are refused."""
    with pytest.raises(ValueError, match="weights must be finite and not negative"):
        Connectome(sparse.csr_array([[0, -1.0], [1, 0]]))
    with pytest.raises(ValueError, match="weights must be finite and not negative"):
        Connectome(sparse.csr_array([[0, np.nan], [1, 0]]))
    with pytest.raises(ValueError, match="weights must have the shape"):
        Connectome(sparse.csr_array((2, 3)))
    with pytest.raises(ValueError, match="tract_lengths must have the shape"):
        Connectome(sparse.csr_array((2, 2)), sparse.csr_array((3, 3)))
    with pytest.raises(ValueError, match="tract_lengths must be finite and not neg"):
        Connectome(np.ones((2, 2)), -np.ones((2, 2)))
    with pytest.raises(TypeError, match="weights must be"):
        Connectome("connectivity.zip")


def _write_zip(fname, **files):
    with zipfile.ZipFile(fname, "w") as archive:
        for name, text in files.items():
            archive.writestr(f"{name}.txt", text)


def test_read_tvb(tmp_path):
    """A small file comes back as written, in the order asked for."""
    fname = tmp_path / "connectivity.zip"
    _write_zip(
        fname,
        weights="0 1 2\n3 0 0\n4 5 0\n",
        tract_lengths="0 10 20\n30 0 0\n40 0 0\n",
        centres="A 1 2 3\nB 4 5 6\nC 7 8 9\n",
    )
    connectome = read_tvb_connectivity(fname, [2, 0])
    np.testing.assert_array_equal(connectome.weights.toarray(), [[0, 4], [2, 0]])
    np.testing.assert_array_equal(
        connectome.tract_lengths.toarray(), [[0, 40], [20, 0]]
    )
    np.testing.assert_allclose(connectome.centers[0], [0.007, 0.008, 0.009])
    assert connectome.region_labels == ["C", "A"]
    assert read_tvb_connectivity(fname).n_parcels == 3
    with pytest.raises(ValueError, match="index must hold region numbers"):
        read_tvb_connectivity(fname, [0, 3])


def test_read_bad_file(tmp_path):
    """Files that are no connectivity are named."""
    fname = tmp_path / "connectivity.zip"
    _write_zip(fname, weights="0")
    with pytest.raises(ValueError, match="has no tract_lengths.txt"):
        read_tvb_connectivity(fname)
    fname.write_text("nothing")
    with pytest.raises(ValueError, match="must be a TVB connectivity zip"):
        read_tvb_connectivity(fname)
    _write_zip(fname, weights="0 1\n2", tract_lengths="0 1\n2 0", centres="A 1 2 3")
    with pytest.raises(ValueError, match="weights.txt has rows of different"):
        read_tvb_connectivity(fname)
    with pytest.raises(FileNotFoundError):
        read_tvb_connectivity(tmp_path / "other.zip")


@pytest.mark.parametrize(
    ("table", "match"),
    (
        (dict(weights="0 1 2\n3 0 0"), r"got \(2, 3\), \(2, 2\) and 2 centres"),
        (dict(centres="A 1 2 3"), "and 1 centres"),
        (dict(weights="0 a\n1 0"), "something else than numbers"),
        (dict(weights="0 -1\n1 0"), "weights must be finite and not negative"),
    ),
)
def test_read_bad_tables(tmp_path, table, match):
    fname = tmp_path / "connectivity.zip"
    good = dict.fromkeys(("weights", "tract_lengths"), "0 1\n2 0")
    _write_zip(fname, **good | dict(centres="A 1 2 3\nB 1 2 3") | table)
    with pytest.raises(ValueError, match=match):
        read_tvb_connectivity(fname)


def test_papers_connectome(tvb):
    """The four empty regions are replaced; the rest is as published."""
    assert tvb.n_parcels == len(np.unique(NMM_994_INDEX)) == 994
    full = read_tvb_connectivity(TVB_FILE)
    np.testing.assert_array_equal(
        tvb.weights[[7]].toarray()[0, :7], full.weights[[994]].toarray()[0, :7]
    )
    assert tvb.tract_lengths.nnz == tvb.weights.nnz


def test_same_activity_as_papers_connectome(tvb):
    """The distance rule gives the activity that the papers' connectome gives."""
    hemi = np.array([label.startswith("r") for label in tvb.region_labels], int)
    # the file has no exact hemisphere for the stand-ins: the side tells it
    hemi[[7, 325, 921, 949]] = tvb.centers[[7, 325, 921, 949], 0] > 0
    ours = make_distance_connectome(tvb.centers, hemi)
    mean, std = [], []
    for connectome in (tvb, ours):
        psp = simulate_jansen_rit(2, connectome, n_networks=16, random_state=0)
        # medians: now and then a network under the papers' connectome stays in a
        # state where a third of its parcels spike (1 of 32 without delays)
        mean.append(np.median(psp.mean((1, 2))))
        std.append(np.median(psp.std(-1)))
    np.testing.assert_allclose(mean[1], mean[0], rtol=0.03)
    np.testing.assert_allclose(std[1], std[0], rtol=0.03)
