"""Sphinx configuration; build with ``sphinx-build -W -b html doc doc/_build``."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import sys
from pathlib import Path
from urllib.request import urlopen

import matplotlib

import mne_deepsif

sys.path.insert(0, str(Path(__file__).parent))
from drawing import draw_path
from structure import draw
from tables import write_tables

matplotlib.use("agg")
write_tables(Path(__file__).parent / "generated")
draw(Path(__file__).parent / "generated" / "structure.svg")
draw_path(Path(__file__).parent / "generated" / "how.svg")

project = "mne_deepsif"
author = "the mne_deepsif developers"
copyright = f"2026, {author}"
release = version = mne_deepsif.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "sphinxcontrib.bibtex",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates"]
default_role = "py:obj"


def reachable(url):
    """Tell whether there is a network."""
    try:
        return urlopen(url, timeout=10).status == 200
    except OSError:
        return False


intersphinx_mapping = {
    "mne": ("https://mne.tools/stable", None),
    "numpy": ("https://numpy.org/doc/stable", None),
    "python": ("https://docs.python.org/3", None),
    "sklearn": ("https://scikit-learn.org/stable", None),
}
# Pickling is not possible with the settings below, which is no problem.
suppress_warnings = ["config.cache"]
if not reachable("https://mne.tools/stable/objects.inv"):
    intersphinx_mapping = {}  # links into other projects are left out ...
    suppress_warnings.append("ref.ref")  # ... also that to MNE's page on logging

# A name of this package that is misspelled is a warning. Those of others can only be
# looked up where there is a network.
nitpicky = True
nitpick_ignore = [("py:class", "mne_deepsif.inverse.plan.Plan")]  # not public
nitpick_ignore_regex = [
    ("py:.*", rf"{name}([.:].*)?")
    for name in ("joblib", "mne", "mne_lsl", "numpy", "scipy", "sklearn", "torch")
]

autosummary_generate = True
numpydoc_class_members_toctree = False
numpydoc_show_class_members = False
bibtex_bibfiles = ["references.bib"]
bibtex_footbibliography_header = ""

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/\d\d_",
    "within_subsection_order": "FileNameSortKey",
    "doc_module": ("mne_deepsif",),
    "backreferences_dir": "generated/backreferences",
    "download_all_examples": False,
    "remove_config_comments": True,
    "parallel": True,  # as many pages at a time as ``sphinx -j`` says
    "capture_repr": (),  # figures speak for themselves, text is printed
    "show_memory": False,
    "write_computation_times": False,  # its page needs a script from another site
}

html_theme = "pydata_sphinx_theme"
html_title = f"mne_deepsif {release}"
html_show_sourcelink = False
html_context = {"default_mode": "auto"}
html_static_path = ["_static"]
html_css_files = ["site.css"]
# No column at the left: the pages have no sections below them, so it would be empty.
html_sidebars = {"**": []}
copybutton_exclude = ".linenos, .gp"  # the prompt of console blocks is not copied
