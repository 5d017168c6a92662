"""DeepSIF source imaging of EEG and MEG for MNE-Python."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import lazy_loader

__version__ = "0.1.0.dev0"

# Names are resolved when used: importing the package imports neither torch nor numba.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["metrics", "patches", "simulation", "stc_metrics"],
    submod_attrs={
        "apply": [
            "apply_deepsif",
            "apply_deepsif_epochs",
            "apply_deepsif_raw",
        ],
        "connectome": [
            "Connectome",
            "make_distance_connectome",
            "read_tvb_connectivity",
        ],
        "estimator": ["DeepSIFEstimator"],
        "extent": ["Extent", "Extents", "estimate_extent"],
        "files": ["read_deepsif"],
        "goodness": ["explained_by", "goodness_of_fit"],
        "jansen_rit": ["simulate_jansen_rit"],
        "leadfield": ["Leadfield", "make_leadfield"],
        "library": ["make_library"],
        "original": ["read_original_checkpoint"],
        "parcels": [
            "Parcels",
            "assign_vertices",
            "make_parcels",
            "make_template_parcels",
        ],
        "prepared": ["DeepSIFOperator", "make_deepsif_operator"],
        "scenario": ["Truth", "simulate_evoked", "simulate_raw"],
        "template": [
            "data_path",
            "make_template_bem",
            "make_template_forward",
            "make_template_source_space",
            "make_template_subject",
            "make_template_trans",
        ],
        "trust": ["TrustReport", "assess_deepsif"],
        "weights": ["fetch_weights"],
    },
)
