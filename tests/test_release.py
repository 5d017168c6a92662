"""A release of weights: its files, its card, what the check finds, names in use."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import json
import re
import subprocess
import sys
from pathlib import Path

import mne
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import mne_deepsif
from mne_deepsif import fetch_weights
from mne_deepsif.cohort.commands import main
from mne_deepsif.inverse import weights
from mne_deepsif.inverse.files import read_model, write_model

ROOT = Path(__file__).parents[1]

if not (ROOT / "benchmarks" / "making").is_dir():
    pytest.skip("needs the benchmarks", allow_module_level=True)
sys.path.append(str(ROOT))
from benchmarks.making import card as cards  # noqa: E402
from benchmarks.making import release  # noqa: E402

NAME = "generic-changed"


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """Write the generic weights with one layer changed."""
    model, _ = read_model(fetch_weights())
    state = model.network.state_dict()
    first = next(iter(state))
    state[first] = state[first] * 1.2
    model.network.load_state_dict(state)
    fname = tmp_path_factory.mktemp("changed") / "weights.safetensors"
    write_model(model, fname, {}, dtype=np.float16)
    return fname


@pytest.fixture(scope="module")
def released(changed, tmp_path_factory):
    """Return the folder of a release, and its entry in the registry."""
    out = tmp_path_factory.mktemp("release") / "out"
    entry = release.release(NAME, changed, out, "For tests.")
    release.write_card(NAME, entry, out)
    return out, entry


@pytest.fixture
def installed(released, tmp_path, monkeypatch):
    """Use the release's registry and address, and an empty cache."""
    out, _ = released
    registry = json.loads((out / "weights.json").read_text())
    monkeypatch.setattr(weights, "read_registry", lambda: registry)
    monkeypatch.setenv("MNE_DEEPSIF_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("MNE_DEEPSIF_URL", out.as_uri())
    weights._load_named.cache_clear()
    yield tmp_path / "cache" / "weights"
    weights._load_named.cache_clear()


@pytest.fixture
def evoked(eeg_info, eeg_fwd):
    """Make a response of some vertices, without noise."""
    fixed = mne.convert_forward_solution(eeg_fwd, force_fixed=True)
    wave = np.exp(-0.5 * ((np.arange(60) - 30) / 8) ** 2)
    data = 1e-8 * np.outer(fixed["sol"]["data"][:, 100:110].sum(1), wave)
    info = mne.pick_info(
        eeg_info, mne.pick_channels(eeg_info["ch_names"], fixed.ch_names, ordered=True)
    )
    return mne.EvokedArray(data, info)


# --------------------------------------------------------------- files


def test_files_of_a_release(released, changed):
    """What a mirror serves; its name and the checksum beside it are the content's."""
    out, entry = released
    sha256 = release.hash_file(changed)
    assert entry["file"] == f"{NAME}-{sha256[:8]}.safetensors"
    names = [entry["file"], f"{entry['file']}.sha256", f"{NAME}.md", "weights.json"]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    assert (out / entry["file"]).read_bytes() == changed.read_bytes()
    subprocess.run(["sha256sum", "-c", names[1]], cwd=out, check=True)
    registry = json.loads((out / "weights.json").read_text())
    assert registry[NAME] == entry
    del registry[NAME]
    assert registry == weights.read_registry()
    assert set(registry["generic"]) == set(entry)


def test_what_cannot_be_released(changed, tmp_path):
    """Refused before anything is written."""
    for name, match in (
        ("generic", "'generic' is part of the package"),
        ("../x", "name must be of a-z"),
        ("x.safetensors", "name must be of a-z"),
    ):
        with pytest.raises(ValueError, match=match):
            release.release(name, changed, tmp_path / "out", "x")
    (tmp_path / "x").write_text("no weights")
    with pytest.raises(ValueError, match="not a readable mne_deepsif estimator"):
        release.release("x", tmp_path / "x", tmp_path / "out", "x")
    assert not (tmp_path / "out").exists()


# --------------------------------------------------------------- the card


def _without_its_making(card):
    return card.partition("## This card")[0]


def test_card_in_the_package_is_current():
    """It is what the stored results, the page on limits and the file's header say.

    Without the history of the repository, which weights a result is of is taken from
    the card itself.
    """
    card = (weights.PACKAGE_DATA / "generic.md").read_text(encoding="utf-8")
    entry = weights.read_registry()["generic"]

    def as_in_the_card(commit):
        return entry["sha256"] if f"\ncommit {commit}, " in card else None

    commits = re.findall(r"\ncommit (\w+), ", _without_its_making(card))
    has_history = all(cards.weights_at(commit) for commit in commits)
    weights_at = cards.weights_at if has_history else as_in_the_card
    made = cards.make_card("generic", entry, fetch_weights(), weights_at)
    assert _without_its_making(made) == _without_its_making(card), (
        "run python -m benchmarks.making.release generic"
    )
    for text in (
        "BSD-3-Clause",
        entry["sha256"],
        "### comparison",
        "research software",
    ):
        assert text in card


def test_figures_of_the_card_are_those_of_the_results():
    """One line of each kind, read from the records by hand."""
    card = (weights.PACKAGE_DATA / "generic.md").read_text(encoding="utf-8")
    results = ROOT / "benchmarks" / "results"
    summary = json.loads((results / "comparison.json").read_text())["summary"]
    scenario = "sample eeg, error all: radius 25 mm"
    (peak,) = (
        row["mean"]
        for row in summary
        if (row["scenario"], row["method"], row["choice"], row["metric"])
        == (scenario, "DeepSIF", "usual", "peak")
    )
    assert f"\n| {scenario} | {peak:.1f} | " in card
    rows = json.loads((results / "recordings.json").read_text())["rows"]
    ours = [row for row in rows if row.get("method") == "DeepSIF"]
    assert f"| {ours[0]['distance']:.1f} |\n" in card
    summary = json.loads((results / "papers.json").read_text())["summary"]
    (error,) = (
        row["mean"]
        for row in summary
        if (row["scenario"], row["method"], row["choice"], row["rule"], row["metric"])
        == ("authors, authors: 1 source", "DeepSIF", "usual", "authors", "le")
    )
    assert f"\n| authors, authors: 1 source | authors | {error:.2f} | " in card


def test_results_of_other_weights_are_left_out(released):
    """No figure of the generic weights gets into another card, and the reverse."""
    out, entry = released
    text = (out / f"{NAME}.md").read_text(encoding="utf-8")
    assert "No stored result is of these weights." in text and "comparison (" in text
    own = weights.read_registry()["generic"]
    used, left_out = cards.find_records(own, lambda commit: None)
    assert not used and len(left_out) == 3
    used, left_out = cards.find_records(own, lambda commit: own["sha256"])
    assert set(used) > {"comparison", "recordings"} and not left_out
    method = f"DeepSIF:a/{entry['file']}"
    record = dict(command=f"x --methods DeepSIF '{method}'", commit="x")
    assert cards._is_of(record, entry, None)
    record["command"] = f"x --weights a/{entry['file']}"
    assert cards._is_of(record, entry, None)
    assert not cards._is_of(record, own, lambda commit: own["sha256"])
    assert cards._is_ours(entry, method)
    assert not cards._is_ours(entry, "DeepSIF")
    assert not cards._is_ours(own, method)


def test_weights_at_a_commit(tmp_path, monkeypatch):
    """As the repository had them then; a dirty or unknown commit has none."""
    monkeypatch.setattr(cards, "ROOT", tmp_path)
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]

    def run(*arguments):
        command = [*git, *arguments]
        return subprocess.run(
            command, cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    run("init", "--quiet")
    fname = tmp_path / cards.REGISTRY
    fname.parent.mkdir(parents=True)
    commits = []
    for sha256 in ("one", "two"):
        fname.write_text(json.dumps(dict(generic=dict(sha256=sha256))))
        run("add", "--all")
        run("commit", "--quiet", "-m", "x")
        commits.append(run("rev-parse", "--short", "HEAD"))
    assert [cards.weights_at(commit) for commit in commits] == ["one", "two"]
    assert cards.weights_at(f"{commits[0]}-dirty") is None
    assert cards.weights_at("0123456") is None


# --------------------------------------------------------------- the check


@pytest.mark.slow
def test_a_fresh_install_fetches_it(released, evoked, eeg_fwd):
    """From a folder, from a server here, and from any other address."""
    out, _ = released
    with release.serve(out) as other:
        found = release.check_release(NAME, out, evoked, eeg_fwd, [f"{other}/"])
    assert len(found) == 3 and max(found.values()) <= 1e-5
    assert sorted(base.partition(":")[0] for base in found) == ["file", "http", "http"]


@pytest.mark.slow
def test_a_mirror_that_lacks_it_is_found(released, evoked, eeg_fwd, tmp_path):
    """The check fails, with the address."""
    out, entry = released
    for name in ("weights.json", entry["file"]):
        (tmp_path / name).write_bytes((out / name).read_bytes())
    (tmp_path / entry["file"]).write_bytes(b"something else")
    with pytest.raises(RuntimeError, match="not a readable|could not be fetched"):
        release.check_release(NAME, tmp_path, evoked, eeg_fwd)


# --------------------------------------------------------------- names in use


def test_a_name_in_all_front_doors(installed, changed, evoked, eeg_fwd):
    """Estimates are those of the file, and not those of the generic weights."""
    cov = mne.make_ad_hoc_cov(evoked.info)
    own, same, generic = (
        mne_deepsif.make_deepsif_operator(evoked.info, eeg_fwd, cov, estimator=one)
        for one in (NAME, changed, "generic")
    )
    assert len(list(installed.iterdir())) == 1  # fetched
    raw = mne.io.RawArray(evoked.data, evoked.info)
    epochs = mne.EpochsArray(evoked.data[np.newaxis], evoked.info, proj=False)
    doors = (
        (mne_deepsif.apply_deepsif, evoked),
        (mne_deepsif.apply_deepsif_raw, raw),
        (mne_deepsif.apply_deepsif_epochs, epochs),
    )
    for apply, inst in doors:
        stcs = (
            apply(inst, eeg_fwd, cov, estimator=NAME),
            apply(inst, same),
            apply(inst, generic),
        )
        found, wanted, other = (
            stc[0].data if isinstance(stc, list) else stc.data for stc in stcs
        )
        slack = 1e-5 * np.abs(wanted).max()
        assert_allclose(found, wanted, rtol=0, atol=slack)
        assert np.abs(wanted - other).max() > 100 * slack
    streamed = []
    for operator in (own, same):
        stream = mne_deepsif.DeepSIFStream(operator)
        stream.push(np.tile(evoked.data, 2))
        streamed.append(stream.preview().data)
    assert_array_equal(*streamed)
    wrong = mne_deepsif.DeepSIFEstimator(weights=NAME, encoder="sensors")
    with pytest.raises(ValueError, match=f"'{NAME}' are for encoder='backproj"):
        wrong.fit(eeg_fwd, evoked.info, cov)


@pytest.mark.parametrize("by", ("option", "config"))
def test_a_name_on_the_command_line(
    installed, changed, evoked, eeg_fwd, tmp_path, capsys, by
):
    """``--weights`` and a TOML key; the sidecar has name and checksum."""
    evoked.save(tmp_path / "x-ave.fif")
    mne.write_forward_solution(tmp_path / "x-fwd.fif", eeg_fwd)
    (tmp_path / "config.toml").write_text(f'weights = "{NAME}"\n')
    options = dict(option=["--weights", NAME], config=["--config"])[by]
    if by == "config":
        options.append(str(tmp_path / "config.toml"))
    command = ["estimate", str(tmp_path / "x-ave.fif"), "--noise-cov", "adhoc"]
    command += ["--forward", str(tmp_path / "x-fwd.fif"), "--no-report", *options]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    (fname,) = (tmp_path / "out").glob("*-stc.h5")
    sidecar = json.loads(fname.with_suffix(".json").read_text())
    expected = dict(Name=NAME, SHA256=release.hash_file(changed))
    assert sidecar["Weights"] == expected
    capsys.readouterr()
    assert main(["fetch", NAME]) == 0
    (fname,) = installed.iterdir()
    assert capsys.readouterr().out == f"{fname}\n"
    assert main(["info"]) == 0
    assert f"{NAME:<22}For tests. (to be downloaded)" in capsys.readouterr().out


def test_a_name_that_cannot_be_fetched(installed, tmp_path, monkeypatch, capsys):
    """One line and an exit code."""
    monkeypatch.setenv("MNE_DEEPSIF_URL", (tmp_path / "nowhere").as_uri())
    assert main(["fetch", NAME]) == 1
    error = capsys.readouterr().err
    assert (
        error.count("\n") == 1 and f"{NAME!r} could not be fetched from file:" in error
    )
