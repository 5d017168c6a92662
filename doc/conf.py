"""Sphinx configuration; build with ``sphinx-build -b html doc doc/_build``."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import matplotlib

import mne_deepsif

matplotlib.use("agg")

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
    "sphinx_gallery.gen_gallery",
    "sphinxcontrib.bibtex",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates"]
default_role = "py:obj"

# Offline, links into these are left out and Sphinx says so; the rest builds.
intersphinx_mapping = {
    "mne": ("https://mne.tools/stable", None),
    "numpy": ("https://numpy.org/doc/stable", None),
    "python": ("https://docs.python.org/3", None),
    "sklearn": ("https://scikit-learn.org/stable", None),
}
intersphinx_timeout = 10

autosummary_generate = True
numpydoc_class_members_toctree = False
numpydoc_show_class_members = False
bibtex_bibfiles = ["references.bib"]
bibtex_footbibliography_header = ""

# Pickling is not possible with the settings below, which is no problem.
suppress_warnings = ["config.cache"]

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/\d\d_",
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
}

html_theme = "pydata_sphinx_theme"
html_title = f"mne_deepsif {release}"
html_show_sourcelink = False
