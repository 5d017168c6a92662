"""The registry of scenarios, by what they are for."""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

from dataclasses import replace

from .heads import ERRORS, HeadSpec
from .papers import SNRS, PapersHead, PapersSources
from .scenarios import Scenario, Sources

# a head that needs no file, on a mesh of every fourth vertex
SMALL = HeadSpec(
    *("template", "biosemi64"), baseline=8.0, library_seed=0, n_vertices=2562
)
TURNS = {"none": (0,), "all": (1, 2, 3, 4)}  # numbers of the heads that take turns
PATCHES = {f"radius {mm} mm": Sources(radius=1e-3 * mm) for mm in (0, 6, 14, 25, 40)}
EARLY = {
    f"early source, {early:g} of the late one": Sources(
        radius=0.012, n_sources=2, apart=0.05, early=early
    )
    for early in (1.0, 0.3, 0.15)
}
SEVERAL = {f"{n} sources": Sources(n_sources=n, apart=0.04) for n in (2, 3, 5)}
WEAK = {"radius 25 mm, SNR 1": Sources(radius=0.025, snr=1.0)}
MIRRORED = {"mirrored pair": Sources(n_sources=2, apart=0.04, mirrored=True)}
SILENCE = {
    "no source": Sources(n_sources=0, judged=True),
    "1 source": Sources(judged=True),
}
LEVELS = {
    f"SNR {db} dB": Sources(radius=0.02, snr=10 ** (db / 20)) for db in (5, 10, 15, 20)
}
SHAPES = {
    "soft edge": Sources(radius=0.025, soft=True),
    "radius 32 mm": Sources(radius=0.032),
    "radius 45 mm": Sources(radius=0.045),
    "deep": Sources(deep=0.035),
    "spikes": Sources(waves="spikes"),
    "bursts": Sources(waves="bursts"),
}
# as in Fig. S1 of the MEG paper: distance and correlation
PAIRS = {
    f"pair {low}-{high} mm apart, correlation {correlation:g}": Sources(
        n_sources=2, apart=1e-3 * low, near=1e-3 * high, correlation=correlation
    )
    for low, high in ((20, 40), (40, 70), (70, 110))
    for correlation in (0.0, 0.5, 0.9)
}
CAPS = (
    *("biosemi16", "10-20", "biosemi32", "biosemi64", "biosemi128", "biosemi256"),
    # no training has seen a net of this family
    *("GSN-HydroCel-32", "GSN-HydroCel-64_1.0"),
    *("GSN-HydroCel-128", "GSN-HydroCel-256"),
)
# the papers' task: numbers of sources, levels of the noise, and what differs from it
ANY = {"1 to 3 sources": PapersSources()}
NUMBERS = {f"{n} source{'s' * (n > 1)}": PapersSources((n,)) for n in (1, 2, 3)}
NOISES = {f"1 to 3 sources, {snr:.0f} dB": PapersSources(snrs=(snr,)) for snr in SNRS}
PAPERS_HEADS = (
    PapersHead("authors", "authors", regions=True),
    PapersHead("authors", "authors"),
    PapersHead("template", "authors"),
)
HELMETS = ("biosemi64", "GSN-HydroCel-64_1.0", "mag", "mag tilted by 5°", "magnes 148")
FOLDS = ("", "sample", "folds of 2 mm", "folds of 3 mm", "folds of 4 mm")
TWO = {
    name: PapersSources((2,), **what)
    for name, what in {
        "2 sources": {},
        "2 sources, resting EEG": dict(noise="resting EEG"),
        "2 sources, resting EEG by channel": dict(noise="resting EEG by channel"),
        "2 sources, correlated": dict(correlated=True),
        "2 sources, deep": dict(deep=True),
        "2 sources, 1-3 Hz": dict(slow=True),
    }.items()
}


def on(sources, head, numbers):
    """Return a scenario for each of some sources, on the same heads."""
    return [Scenario(cell, what, head, numbers) for cell, what in sources.items()]


def make_scenarios():
    """Return lists of scenarios by name of the group; the name is what they vary."""
    sample = {
        (kind, error): (HeadSpec(sensors=kind, error=error), number)
        for kind in ("eeg", "mag", "grad", "mag+eeg")
        for error, number in TURNS.items()
    }
    both = [sample[kind, "all"] for kind in ("eeg", "mag")]
    right = [sample[kind, "none"] for kind in ("eeg", "mag")]
    groups = {
        "radius": _all(PATCHES, right + both),
        "early": _all(EARLY, both),
        "several": _all(SEVERAL, both),
        "weak": _all(WEAK, both),
        "mirrored": _all(MIRRORED, both),
        "silence": _all(SILENCE, both),
        "level": _all(LEVELS, both),
        "shape": _all(SHAPES, both),
        "pair": _all(PAIRS, both),
        "sensors": _all(
            {"radius 14 mm": Sources()},
            [sample[kind, "all"] for kind in ("grad", "mag+eeg")],
        ),
    }
    return groups | {
        "error": _of_errors(),
        "electrodes": _of_caps(),
        "baseline": _of_baselines(),
        # on a coarser mesh, for the methods that take seconds
        "slow": _all(
            {"radius 14 mm": Sources()},
            [(replace(head, n_vertices=2562), numbers) for head, numbers in both],
        ),
        "quick": [
            *on({"radius 25 mm": Sources(radius=0.025)} | SILENCE, SMALL, (0,)),
            *on(ANY, PapersHead(library="small", n_vertices=2562), (0,)),
        ],
        **_of_papers(),
    }


def _of_papers():
    """Vary the papers' task: the helmet, the head, the cortex."""
    first, own = (0,), {"1 to 3 sources, a head of its own": PapersSources()}
    real = [PapersHead("sample", kind) for kind in ("eeg", "mag")]
    same = [PapersHead("template", f"sample {kind}") for kind in ("eeg", "mag")]
    kinds = ("biosemi64", "mag")
    random = [(PapersHead("random", kind), (0, 1, 2, 3)) for kind in kinds]
    template = [(PapersHead(sensors=kind), first) for kind in kinds]
    folds = [PapersHead("template", "sample mag", normals) for normals in FOLDS]
    folds += [PapersHead("sample", "mag", normals) for normals in ("template", "")]
    return {
        "papers": _all(NUMBERS, [(head, first) for head in PAPERS_HEADS]),
        "noises": _all(NOISES, [(head, first) for head in PAPERS_HEADS]),
        "helmets": _all(ANY, [(PapersHead(sensors=x), first) for x in HELMETS]),
        "heads": _all(ANY, template + random + [(x, first) for x in same + real]),
        "folds": _all(ANY, [(head, first) for head in folds]),
        "unlike": _all(TWO, [(PAPERS_HEADS[1], first)]),
        # as in the MEG paper: no change, a tilted helmet, other heads
        "changes": _all(
            ANY,
            [(PapersHead(sensors=x), first) for x in HELMETS if x.startswith("mag")]
            + random[1:],
        ),
        "personal": [
            *on(own, PapersHead("random", "biosemi64"), (4,)),
            *on(ANY, PapersHead("sample", "mag"), first),
        ],
    }


def _all(sources, heads):
    return [one for head, numbers in heads for one in on(sources, head, numbers)]


def _of_errors():
    """Each error by itself."""
    cases = []
    for error, what in ERRORS.items():
        random = what.moved or what.misplaced or what.tilted
        numbers = TURNS.get(error, (1, 2) if random else (1,))
        kinds = ("eeg",) if what.misplaced or what.skull != (1.0,) else ("eeg", "mag")
        heads = [HeadSpec(sensors=kind, error=error) for kind in kinds]
        cases += _all({"radius 14 mm": Sources()}, [(one, numbers) for one in heads])
    return cases


def _of_caps():
    head = [HeadSpec("template", cap) for cap in CAPS]
    return _all({"radius 14 mm": Sources()}, [(one, (0,)) for one in head])


def _of_baselines():
    head = [HeadSpec(error="all", baseline=seconds) for seconds in (30.0, 300.0)]
    return _all({"radius 14 mm": Sources()}, [(one, TURNS["all"]) for one in head])


QUICK = ("quick",)
DEFAULT = ("radius", "early", "several", "weak", "mirrored", "silence", "error")
# the table at the top of the results: titles, and what they show
HEADLINE = {
    "EEG: a patch of 25 mm radius": "sample eeg, error all: radius 25 mm",
    "EEG: a single point": "sample eeg, error all: radius 0 mm",
    "EEG: two sources": "sample eeg, error all: 2 sources",
    "EEG: a weak source before a strong one": (
        "sample eeg, error all: early source, 0.15 of the late one"
    ),
    "MEG: a patch of 25 mm radius": "sample mag, error all: radius 25 mm",
}
SCENARIOS = make_scenarios()
SCENARIOS["headline"] = [
    one
    for group in ("radius", "early", "several")
    for one in SCENARIOS[group]
    if one.name in HEADLINE.values()
]
