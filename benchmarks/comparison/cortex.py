"""The vertices on which sources are drawn and estimates are scored."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import KDTree
from scipy.spatial.distance import pdist

from mne_deepsif.stc_metrics.source_space import owned_areas, vertex_positions


class Cortex:
    """The vertices within parcels: indices, places, areas and distances (m).

    ``parcel`` is that of each vertex, ``centers`` (n_parcels, 3) are their mean places.

    Parameters
    ----------
    src : SourceSpaces
        Source space of both hemispheres, in head coordinates.
    leadfield : Leadfield
        A leadfield of this source space.
    """

    def __init__(self, src, leadfield):
        parcel = leadfield.parcel_of_vertex
        self.vertices = leadfield.vertices
        self.rows = np.flatnonzero(np.concatenate(parcel) >= 0)
        self.hemi = np.repeat([0, 1], [len(p) for p in parcel])[self.rows]
        numbers = np.concatenate(parcel)[self.rows]
        self.parcel = np.unique(numbers, return_inverse=True)[1]  # none is empty
        self.places = vertex_positions(src)[self.rows]
        self.centers = mean_of(self.places, self.parcel)
        self.areas = owned_areas(src)[self.rows]
        self.graph = sparse.csr_array(leadfield.surface_graph)[self.rows][:, self.rows]

    @cached_property
    def depth(self):
        """Distance (m) of each vertex to the outermost one in its direction."""
        around = self.places - self.places.mean(axis=0)
        radius = np.linalg.norm(around, axis=1)
        direction = around / radius[:, np.newaxis]
        near = KDTree(direction).query_ball_point(direction, 0.25)  # 14 degrees
        return np.array([radius[one].max() for one in near]) - radius

    def middle(self, patch):
        """Return the vertex of a patch that is nearest its mean place."""
        places = self.places[patch]
        return patch[np.linalg.norm(places - places.mean(axis=0), axis=1).argmin()]

    def distances(self, seed, limit):
        """Return distances along the surface; infinite beyond the limit."""
        return dijkstra(self.graph, indices=seed, limit=limit)

    def mirror(self, seed):
        """Return the vertex nearest the mirrored place in the other hemisphere."""
        others = np.flatnonzero(self.hemi != self.hemi[seed])
        place = self.places[seed] * [-1, 1, 1]
        return others[KDTree(self.places[others]).query(place)[1]]

    def gap(self, seeds):
        """Return the least distance between vertices; infinite for a single one."""
        return pdist(self.places[seeds]).min(initial=np.inf)


def mean_of(places, parcel):
    """Return the mean place in each parcel."""
    sums = np.column_stack([np.bincount(parcel, axis) for axis in places.T])
    return sums / np.bincount(parcel)[:, np.newaxis]
