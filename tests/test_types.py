"""The types for editors and type checkers, beside the code and its docstrings."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import ast
import importlib
import inspect
from importlib.resources import files
from pathlib import Path

import pytest
from numpydoc.docscrape import ClassDoc, FunctionDoc

import mne_deepsif

STUB = Path(mne_deepsif.__file__).with_suffix(".pyi")
SUBPACKAGES = ("cohort", "comparators", "metrics", "simulation", "stc_metrics")


def names_of(stub):
    """Return the names that a stub offers: definitions, and imports ``x as x``."""
    names = set()
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            names |= {name.asname for name in node.names if name.asname == name.name}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
    return names


def functions(body, prefix=""):
    """List the functions of a stub: full name and node, one for each overload."""
    for node in body:
        if isinstance(node, ast.FunctionDef):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from functions(node.body, f"{node.name}.")


FUNCTIONS = list(functions(ast.parse(STUB.read_text(encoding="utf-8")).body))


def split(node):
    """Return the parameters (without self): name, kind, has a default, annotation."""
    given, keyword = node.args.args, node.args.kwonlyargs
    n_required = len(given) - len(node.args.defaults)
    table = [
        (arg, inspect.Parameter.POSITIONAL_OR_KEYWORD, number >= n_required)
        for number, arg in enumerate(given)
    ]
    table += [
        (arg, inspect.Parameter.KEYWORD_ONLY, default is not None)
        for arg, default in zip(keyword, node.args.kw_defaults, strict=True)
    ]
    if node.args.kwarg:
        table.append((node.args.kwarg, inspect.Parameter.VAR_KEYWORD, False))
    return [row for row in table if row[0].arg != "self"]


def resolve(name):
    """Return what a name stands for."""
    thing = mne_deepsif
    for part in name.split("."):
        thing = getattr(thing, part)
    return thing


def is_optional(annotation):
    """Say whether None is allowed, by the aliases of the stub."""
    text = ast.unparse(annotation)
    return text.endswith("None") or text in ("Verbose", "Rank", "Affine")


def test_all_names_have_types():
    assert names_of(STUB) == set(mne_deepsif.__all__)
    for name in SUBPACKAGES:
        module = importlib.import_module(f"mne_deepsif.{name}")
        stub = Path(module.__file__).with_suffix(".pyi")
        assert names_of(stub) == set(module.__all__)
    assert (files("mne_deepsif") / "py.typed").is_file()


@pytest.mark.parametrize(
    ("name", "node"), FUNCTIONS, ids=[name for name, _ in FUNCTIONS]
)
def test_signatures(name, node):
    """Names, order, kinds and defaults are those of the code; all have a type."""
    parameters = inspect.signature(resolve(name)).parameters.values()
    expected = [p for p in parameters if p.name != "self"]
    found = split(node)
    assert [arg.arg for arg, _, _ in found] == [p.name for p in expected]
    assert [kind for _, kind, _ in found] == [p.kind for p in expected]
    assert all(arg.annotation is not None for arg, _, _ in found)
    assert node.returns is not None
    overloaded = [n for n, _ in FUNCTIONS].count(name) > 1
    if not overloaded:  # an overload may ask for what is optional
        assert [has for _, _, has in found] == [
            p.default is not p.empty for p in expected
        ]


@pytest.mark.parametrize(
    ("name", "node"), FUNCTIONS, ids=[name for name, _ in FUNCTIONS]
)
def test_none_is_allowed_where_the_docstring_says_so(name, node):
    documented = FunctionDoc(resolve(name))["Parameters"]
    if name.endswith("__init__"):
        documented = ClassDoc(mne_deepsif.DeepSIFEstimator)["Parameters"]
    types = {n.strip(): p.type for p in documented for n in p.name.split(",")}
    for arg, kind, _ in split(node):
        if kind is not inspect.Parameter.VAR_KEYWORD:
            says = "None" in types[arg.arg].split(" | ")
            assert is_optional(arg.annotation) == says, arg.arg


def test_the_public_methods_are_there():
    typed = {name for name, _ in FUNCTIONS if name.startswith("DeepSIFEstimator.")}
    methods = inspect.getmembers(mne_deepsif.DeepSIFEstimator, inspect.isfunction)
    own = {
        f"DeepSIFEstimator.{name}"
        for name, method in methods
        if method.__module__ == "mne_deepsif.estimator" and not name.startswith("_")
    }
    assert typed == own | {"DeepSIFEstimator.__init__"}
