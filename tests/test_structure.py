"""The structure of the package: layers, MNE's own names, what the docs say of it."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import ast
import importlib
import re
import runpy
from pathlib import Path

import pytest

import mne_deepsif

ROOT = Path(__file__).parents[1]
PACKAGE = Path(mne_deepsif.__file__).parent
# names of MNE with an underscore that packages around it share
SHARED_NAMES = {"_check_fname", "_check_option", "_validate_type"}
# the public names, and where they live; more may come, none may leave or move
PUBLIC = {
    "apply": {"apply_deepsif", "apply_deepsif_epochs", "apply_deepsif_raw"},
    "cache": {"data_path"},
    "estimator": {"DeepSIFEstimator", "read_deepsif"},
    "extent": {"Extent", "Extents", "estimate_extent"},
    "goodness": {"explained_by", "goodness_of_fit"},
    "head.leadfield": {"Leadfield", "make_leadfield"},
    "head.parcels": {
        *("Parcels", "assign_vertices", "make_parcels", "make_template_parcels"),
    },
    "head.template": {
        *("make_template_bem", "make_template_forward", "make_template_source_space"),
        *("make_template_subject", "make_template_trans"),
    },
    "inverse.model": {"Model"},
    "inverse.clock": {"StreamEvent"},
    "inverse.operator": {"DeepSIFOperator", "make_deepsif_operator"},
    "inverse.stream": {"DeepSIFStream", "StreamEstimate"},
    "inverse.weights": {"fetch_weights"},
    "original": {"read_original_checkpoint"},
    "report": {"add_deepsif"},
    "simulation.connectome": {
        *("Connectome", "make_distance_connectome", "read_tvb_connectivity"),
    },
    "simulation.jansen_rit": {"simulate_jansen_rit"},
    "simulation.library": {"make_library"},
    # what a recording is made of is defined behind simulation.recordings
    "simulation._recordings": {"Truth"},
    "simulation.recordings": {"simulate_evoked", "simulate_raw"},
    "trust.report": {"TrustReport", "assess_deepsif"},
    "versions": {"sys_info"},
    "viz.estimates": {"plot_compare_estimates", "plot_estimate"},
    "viz.sources": {"plot_extent_courses", "plot_extents"},
    "viz.verdict": {"plot_trust"},
}
SUBMODULES = {
    "cohort": {"CohortSettings", "GroupSettings", "group_statistics", "run_cohort"},
    "comparators": {"apply_cmem", "apply_fast_ires"},
    "metrics": {
        *("active_parcels", "area_correlation", "average_precision"),
        *("earth_movers_distance", "evaluate_parcels"),
        *("expected_calibration_error", "f1", "geometric_mean", "harmonic_mean"),
        *("linear_correlation", "localization_error", "match_patches"),
        *("otsu_threshold", "peak_error", "precision", "recall"),
        *("reliability_curve", "roc_auc", "sensitivity", "soz_error"),
        *("spatial_dispersion", "specificity", "specificity_close_far"),
        *("sublobar_concordance", "sublobar_regions", "sublobar_sensitivity"),
        *("sublobar_specificity", "two_sided_localization_error"),
    },
    "stc_metrics": {
        *("area_correlation", "average_precision", "earth_movers_distance"),
        *("expected_calibration_error", "f1", "linear_correlation"),
        *("localization_error", "peak_error", "precision", "recall"),
        *("reliability_curve", "roc_auc", "sensitivity", "soz_error"),
        *("spatial_dispersion", "specificity", "specificity_close_far"),
        *("sublobar_concordance", "sublobar_labels", "sublobar_sensitivity"),
        *("sublobar_specificity", "two_sided_localization_error"),
    },
    "patches": {"make_patches", "patch_areas"},
    "simulation": {
        *("Library", "Simulator", "make_patches", "noise_std", "patch_areas"),
    },
}


@pytest.fixture(scope="module")
def structure():
    fname = ROOT / "doc" / "structure.py"
    if not fname.is_file():
        pytest.skip(f"needs {fname}")
    return runpy.run_path(str(fname))


def test_public_names_and_their_modules():
    found = {name: getattr(mne_deepsif, name).__name__ for name in SUBMODULES}
    assert found == {name: f"mne_deepsif.{name}" for name in SUBMODULES}
    names = set(mne_deepsif.__all__) - set(SUBMODULES)
    assert names == set().union(*PUBLIC.values())
    for module, names in PUBLIC.items():
        for name in names:
            home = getattr(mne_deepsif, name).__module__
            assert home == f"mne_deepsif.{module}", name


@pytest.mark.parametrize("module", sorted(SUBMODULES))
def test_names_of_public_modules(module):
    found = importlib.import_module(f"mne_deepsif.{module}")
    for name in SUBMODULES[module]:
        assert callable(getattr(found, name)), name


def test_index_of_the_papers_regions():
    """Documented as part of the package, though it lives in a wing."""
    from mne_deepsif.connectome import NMM_994_INDEX

    assert len(set(NMM_994_INDEX)) == 994


def test_imports_point_down(structure):
    """No circle, nothing imports what lies above it; no more rooms than planned."""
    figures = structure["measure"](PACKAGE)
    assert figures["circles"] == figures["imports that run upwards"] == 0
    assert figures["rooms"] <= 23 and figures["layers"] <= 9


def test_circles_are_found(structure, tmp_path):
    """The measure itself: two modules that import each other, one above them."""
    for name, text in dict(
        one="from .two import b",
        two="def f():\n    from . import one",
        top="from .one import a\nfrom .wing.inner import c",
        __init__="__version__ = '0'",
    ).items():
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "wing").mkdir()
    (tmp_path / "wing" / "__init__.py").write_text("")
    (tmp_path / "wing" / "inner.py").write_text("from .. import __version__")
    figures = structure["measure"](tmp_path)
    assert figures == {
        "rooms": 4,
        "imports between them": 4,
        "layers": 2,
        "circles": 1,
        "imports that run upwards": 2,
    }


def test_names_that_mne_does_not_document():
    """They are used in one module; what MNE keeps private is nowhere else."""
    wrong = []
    for file in PACKAGE.rglob("*.py"):
        if file.name != "_mne.py":
            tree = ast.parse(file.read_text(encoding="utf-8"))
            wrong += [f"{file.relative_to(PACKAGE)} {name}" for name in _private(tree)]
    assert not wrong, "\n".join(wrong)


def _private(tree):
    """Yield the undocumented names of MNE that a module uses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = {alias.name for alias in node.names} - SHARED_NAMES
            if node.module.startswith("mne") and any(name[0] == "_" for name in names):
                yield f"from {node.module} import {names}"
            if node.module.startswith(("mne.io.const", "mne.utils.")):
                yield node.module
        elif isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            hidden = re.search(r"^mne\..*\._(?!_)", text) or node.attr == "_unlock"
            if hidden:
                yield text


def test_private_names_are_found():
    code = (
        "import mne\nfrom mne.bem import _fit\nmne.bem._fit()\nwith info._unlock(): 1"
    )
    assert len(list(_private(ast.parse(code)))) == 3
    assert not list(_private(ast.parse("from mne.utils import _check_option")))


def test_the_docs_name_what_is_there():
    """Each function that ``How the code hangs together`` names exists."""
    page = ROOT / "doc" / "architecture.rst"
    if not page.is_file():
        pytest.skip(f"needs {page}")
    text = page.read_text(encoding="utf-8")
    wings = sorted(
        path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()
    )
    names = re.findall(rf"``((?:{'|'.join(wings)}|estimator)\.\w+(?:\.\w+)?)``", text)
    assert len(names) > 20
    for name in names:
        module, _, attribute = name.rpartition(".")
        found = importlib.import_module(f"mne_deepsif.{module}")
        assert hasattr(found, attribute), name
    files = re.findall(r"``([\w/]+\.py)``", text)
    missing = [
        file for file in files if not any((p / file).is_file() for p in (PACKAGE, ROOT))
    ]
    assert files and not missing


def test_tests_mirror_the_wings():
    """Each module with code of its own has a test file of its name."""
    if not (ROOT / "tests").is_dir():
        pytest.skip("needs the tests' folder")
    # names only, or tested with what they belong to
    others = {"__init__", "__main__", "_mne", "connectome", "patches", "_recordings"}
    missing = []
    for file in PACKAGE.rglob("*.py"):
        inner = file.relative_to(PACKAGE)
        if file.stem in others and (len(inner.parts) == 1 or file.stem[0] == "_"):
            continue
        name = f"test_{file.stem.lstrip('_')}.py"
        if not (ROOT / "tests" / inner.parent / name).is_file():
            missing.append(str(inner))
    assert not missing
