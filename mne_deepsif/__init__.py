"""DeepSIF source imaging of EEG and MEG for MNE-Python."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import lazy_loader

__version__ = "0.1.0.dev0"

# Names are resolved on first use: importing the package loads neither torch nor numba.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        *("cohort", "comparators", "metrics", "patches", "simulation", "stc_metrics"),
    ],
    submod_attrs={
        "apply": ["apply_deepsif", "apply_deepsif_epochs", "apply_deepsif_raw"],
        "cache": ["data_path"],
        "estimator": ["DeepSIFEstimator", "read_deepsif"],
        "extent": ["Extent", "Extents", "estimate_extent"],
        "goodness": ["explained_by", "goodness_of_fit"],
        "head.leadfield": ["Leadfield", "make_leadfield"],
        "head.parcels": [
            "Parcels",
            "assign_vertices",
            "make_parcels",
            "make_template_parcels",
        ],
        "head.template": [
            "make_template_bem",
            "make_template_forward",
            "make_template_source_space",
            "make_template_subject",
            "make_template_trans",
        ],
        "inverse.model": ["Model"],
        "inverse.clock": ["StreamEvent"],
        "inverse.operator": ["DeepSIFOperator", "make_deepsif_operator"],
        "inverse.stream": ["DeepSIFStream", "StreamEstimate"],
        "inverse.weights": ["fetch_weights"],
        "original": ["read_original_checkpoint"],
        "report": ["add_deepsif"],
        "simulation.connectome": [
            "Connectome",
            "make_distance_connectome",
            "read_tvb_connectivity",
        ],
        "simulation.jansen_rit": ["simulate_jansen_rit"],
        "simulation.library": ["make_library"],
        "simulation.recordings": ["Truth", "simulate_evoked", "simulate_raw"],
        "trust.report": ["TrustReport", "assess_deepsif"],
        "versions": ["sys_info"],
        "viz.estimates": ["plot_compare_estimates", "plot_estimate"],
        "viz.sources": ["plot_extent_courses", "plot_extents"],
        "viz.verdict": ["plot_trust"],
    },
)
