"""The package as a whole: what it exports, what importing it costs, its metadata."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import dataclasses
import inspect
import re
import subprocess
import sys
import tomllib
from importlib.metadata import metadata, version
from importlib.resources import files
from pathlib import Path

import pytest
from numpydoc.validate import validate

import mne_deepsif

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "numba", "nilearn", "sklearn", "matplotlib.pyplot")
# Summary, parameters and results; see the numpydoc documentation for the codes.
CHECKS = {
    *("GL06", "GL07", "GL08", "SS01", "SS02", "SS03", "SS06", "YD01"),
    *("PR01", "PR02", "PR03", "PR04", "PR05", "PR07", "PR10", "RT01", "RT03"),
}


def _functions(module):
    """Full names of the public functions that a module defines."""
    names = [n for n, f in vars(module).items() if inspect.isfunction(f)]
    home = module.__name__
    own = [n for n in names if getattr(module, n).__module__.startswith(home)]
    return [f"{home}.{n}" for n in own if not n.startswith("_")]


def _documented():
    """Full names of everything public that needs a docstring."""
    names = []
    for name in mne_deepsif.__all__:
        thing = getattr(mne_deepsif, name)
        full = f"mne_deepsif.{name}"
        names += _functions(thing) if inspect.ismodule(thing) else [full]
        if inspect.isclass(thing):
            methods = [n for n, f in vars(thing).items() if inspect.isfunction(f)]
            names += [f"{full}.{n}" for n in methods if not n.startswith("_")]
    return names


def _exempt(name):
    """Codes that do not count: data classes list their fields as Attributes."""
    thing = getattr(mne_deepsif, name.split(".")[1])
    is_class = dataclasses.is_dataclass(thing) and name.count(".") == 1
    return {"PR01"} if is_class else set()


def _run(code):
    """Run code in a fresh interpreter and return what it prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_import_is_light():
    """Importing the package, and its metrics, loads nothing heavy."""
    code = (
        "import sys, mne; before = set(sys.modules)\n"
        "import mne_deepsif, mne_deepsif.metrics, mne_deepsif.stc_metrics\n"
        f"print([m for m in {HEAVY} if m in set(sys.modules) - before])"
    )
    assert _run(code).strip() == "[]"


@pytest.mark.parametrize(
    "name", ("make_template_forward", "make_template_parcels", "simulate_jansen_rit")
)
def test_torch_stays_out_of_what_does_not_need_it(name):
    """Getting hold of heads, parcels and neural masses does not load torch."""
    code = f"import sys, mne_deepsif as m; m.{name}; print('torch' in sys.modules)"
    assert _run(code).strip() == "False"


def test_public_names_resolve():
    """Every name in __all__ is there, in dir() too, and no other is."""
    assert set(mne_deepsif.__all__) <= set(dir(mne_deepsif))
    for name in mne_deepsif.__all__:
        assert getattr(mne_deepsif, name).__doc__, name
    with pytest.raises(AttributeError, match="no_such_name"):
        mne_deepsif.no_such_name  # noqa: B018


def test_public_docstrings():
    """Docstrings name all parameters and results, in order, with types."""
    found = [
        f"{name}: {code} {text}"
        for name in _documented()
        for code, text in validate(name)["errors"]
        if code in CHECKS - _exempt(name)
    ]
    assert not found, "\n".join(found)


def test_version_is_the_same_everywhere():
    """Metadata, citation file and changelog agree on the version."""
    assert version("mne-deepsif") == mne_deepsif.__version__
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {mne_deepsif.__version__}\n" in citation
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## {mne_deepsif.__version__}" in changelog


def test_constraints_cover_the_dependencies():
    """Each direct dependency, extras too, has its version in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {_normal(line.split("==")[0]) for line in lines if "==" in line}
    required = metadata("mne-deepsif").get_all("Requires-Dist")
    wanted = {_normal(re.match(r"[\w.-]+", text)[0]) for text in required}
    assert wanted - {"mne-deepsif"} <= pinned


def test_conda_recipe_has_the_dependencies():
    """The recipe asks for what the package needs, at the same versions."""
    recipe = (ROOT / "packaging/conda/recipe.yaml").read_text(encoding="utf-8")
    (text,) = re.findall(r"^  run:\n((?:    - .*\n)+)", recipe, re.M)
    found = dict(re.findall(r"- (\S+) >=([\d.]+)", text))
    others = {"mne": "mne-base", "matplotlib": "matplotlib-base", "torch": "pytorch"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    required = project["dependencies"]
    pairs = [re.match(r"([\w.-]+)\s*>=\s*([\d.]+)$", text) for text in required]
    expected = {others.get(pair[1], pair[1]): pair[2] for pair in pairs if pair}
    assert {_normal(name): v for name, v in found.items()} == {
        _normal(name): v for name, v in expected.items()
    }
    assert f'version: "{mne_deepsif.__version__}"' in recipe
    least = project["requires-python"].removeprefix(">=")
    assert f'python_min: "{least}"' in recipe


def test_address_is_everywhere_or_nowhere():
    """There is none yet; packaging/README.md says where it goes, once there is."""
    files = ("pyproject.toml", "packaging/conda/recipe.yaml", "CITATION.cff")
    project, recipe, citation = (ROOT.joinpath(f).read_text("utf-8") for f in files)
    states = [
        "urls" in tomllib.loads(project)["project"],
        "ADDRESS" not in recipe,
        "\nrepository-code: " in citation,
    ]
    assert len(set(states)) == 1, dict(zip(files, states, strict=True))
    told = (ROOT / "packaging" / "README.md").read_text(encoding="utf-8")
    assert all(f"`{file}`" in told for file in files)


def _normal(name):
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def test_generic_weights_are_installed():
    """The installed package holds its embedded weights, of 16 MiB at most."""
    weights = files("mne_deepsif") / "data" / "generic.safetensors"
    assert 0 < len(weights.read_bytes()) <= 16 * 2**20
