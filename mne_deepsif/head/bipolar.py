"""Bipolar EEG: channels that are the difference of two electrodes.

MNE gives such a channel the place of its anode, so a forward solution made for it holds
the potential of one electrode. Here it gets the difference of two.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import re
from copy import deepcopy

import mne
import numpy as np
from mne.utils import _validate_type, logger

from .._mne import FIFF, update_info

# the electrodes of the 10-05 system, with old names and those of ears and mastoids
_ELECTRODE = (
    r"(?:[AM][12]|Nz|(?:Fp|AF[Fp]?|F|FFC|FFT|FT|FTT|FC|FCC|T|TTP|TP|TPP|C|CCP|CP|CPP|P"
    r"|PPO|PO|POO|O|OI|I)(?:z|\d|10)h?)"
)
_STANDARD = re.compile(_ELECTRODE, re.IGNORECASE)
# two of them with anything but letters and digits between; then a unit or a reference
_TWO = re.compile(
    rf"({_ELECTRODE})([\W_]*(?:EEG[\W_]*)?)({_ELECTRODE})"
    r"(?:\s*[\[(].*[\])]|[\W_]+(?:ref|le|av|avg|g\d+))?",
    re.IGNORECASE,
)
# old and new names of the same electrode, which some caps write one after the other
_SYNONYMS = {"t3": "t7", "t4": "t8", "t5": "p7", "t6": "p8", "a1": "m1", "a2": "m2"}
_HYPHENS = "-\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}"
_FEWEST, _SHARE = 3, 0.1  # bipolar channels, and of all, if names have no hyphen
_COMMON = 0.75  # of the channels: what more of them have in common is their reference


def find_bipolar(info):
    """Find the EEG channels that are differences of two electrodes.

    Parameters
    ----------
    info : Info
        Measurement info of the data.

    Returns
    -------
    pairs : dict of tuple of str
        By channel, the anode and the cathode in its name, without ``"EEG"``;
        ``("", "")`` if the name does not tell.

    Notes
    -----
    The coil type tells. So does the name (``"Fp1-F7"``, ``"EEG FP1-F7"``, ``"Fp1_F7"``)
    if both parts are electrodes of the 10-05 system, or if the anode of one channel is
    the cathode of another (with a hyphen). Without a hyphen, at least three channels
    and a tenth of all must be bipolar. Two names of one electrode (``"T3/T7"``) or a
    plug and its electrode (``"A1 Fp1"``) are no pair. A cathode of more than three
    quarters of the channels is their reference.
    """
    eeg = [info["chs"][pick] for pick in mne.pick_types(info, eeg=True, exclude=())]
    pairs = {ch["ch_name"]: _split(ch["ch_name"]) for ch in eeg}
    told = {ch["ch_name"] for ch in eeg if is_bipolar_coil(ch)} | _by_name(pairs)
    return {name: pair for name, pair in pairs.items() if name in told}


def is_bipolar_coil(ch):
    """Tell whether the coil type of a channel says that it is bipolar."""
    return (int(ch["coil_type"]) & 0xFFFF) == FIFF.FIFFV_COIL_EEG_BIPOLAR


def _split(name):
    if two := _match_two(name):
        return two[1], two[3]
    name = re.sub(r"(-.*)-\d+$", r"\1", name)  # a running number, as MNE adds
    anode, _, cathode = (_bare(part) for part in name.partition("-"))
    return (anode, cathode) if anode and cathode else ("", "")


def _match_two(name):
    return _TWO.fullmatch(_bare(re.sub(r"-\d+$", "", name)))


def _bare(name):
    return re.sub(r"^(eeg|pol)[ _:]*", "", name.strip(), flags=re.IGNORECASE)


def _by_name(pairs):
    """List the channels whose names tell that they are bipolar."""
    lower = {name: tuple(x.lower() for x in pair) for name, pair in pairs.items()}
    lower = {name: pair for name, pair in lower.items() if not _is_one(pair)}
    anodes, cathodes = ([pair[i] for pair in lower.values()] for i in (0, 1))
    chain = (set(anodes) & set(cathodes)) - {""}
    # a cathode of most channels is their reference; names of one part do not count
    most = max(1, _COMMON * sum(map(bool, cathodes)))
    found = {
        name
        for name, pair in lower.items()
        if (all(map(_STANDARD.fullmatch, pair)) or chain & set(pair))
        and cathodes.count(pair[1]) <= most
    }
    loose = {name for name in found if _has_no_hyphen(name)}
    # A1 is an ear, but also a plug of the amplifier
    found -= {
        name
        for name in loose
        if lower[name][0] in ("a1", "a2") and lower[name][1] not in chain
    }
    enough = len(found) >= max(_FEWEST, _SHARE * len(pairs))
    return found if enough else found - loose


def _is_one(pair):
    """Tell whether both names are of one electrode."""
    first, second = (_SYNONYMS.get(name, name) for name in pair)
    return first == second


def _has_no_hyphen(name):
    two = _match_two(name)
    return two is not None and not set(two[2]) & set(_HYPHENS)


def mark_bipolar(info):
    """Give all bipolar channels of an Info the coil type that says so, in a copy.

    Parameters
    ----------
    info : Info
        Measurement info of the data.

    Returns
    -------
    info : Info
        The same object if there is nothing to mark.
    """
    pairs = find_bipolar(info)
    if not pairs:
        return info
    info = info.copy()
    for ch in info["chs"]:
        if ch["ch_name"] in pairs:
            ch["coil_type"] = FIFF.FIFFV_COIL_EEG_BIPOLAR
    return info


# --------------------------------------------------------------- forward solution


def match_bipolar(fwd, info):
    """Make the forward solution of what the EEG channels of the data measure.

    Parameters
    ----------
    fwd : Forward
        Forward solution, of the channels of the data or of single electrodes.
    info : Info
        Measurement info of the data.

    Returns
    -------
    fwd : Forward
        The same object if the data have no bipolar channels, or if it is of these
        channels already. Otherwise a copy with either the bipolar channels, each the
        difference of two rows of the given one, or the single electrodes, whichever
        the data have more of.

    Notes
    -----
    A bipolar channel of the given forward is kept if its place (``loc``) has that of
    the cathode as well. MNE then computes the difference itself.
    """
    pairs = find_bipolar(info)
    if not pairs:
        return fwd
    _validate_type(fwd, mne.Forward, "fwd")
    names = fwd["sol"]["row_names"]
    rows = {_bare(name).lower(): row for row, name in enumerate(names)}
    complete = _have_cathodes(fwd, pairs)
    mixing = {}
    for name, pair in pairs.items():
        anode, cathode = (rows.get(part.lower()) for part in pair)
        if name in complete:
            mixing[name] = {names.index(name): 1.0}
        elif anode is not None and cathode is not None:
            mixing[name] = {anode: 1.0, cathode: -1.0}
    single = _single_electrodes(info, pairs, names)
    used = set(pairs) - set(info["bads"])
    if len(single) >= len(used & {*mixing, *names}):
        logger.info("Leaving out %d bipolar EEG channels.", len(used))
        keep = [name for name in names if name not in pairs]
        if keep == names:
            return fwd
        return mne.pick_channels_forward(fwd, keep, ordered=True)
    _check_complete([name for name in pairs if name in used - set(mixing)], pairs)
    mixed = _mix_rows(fwd, mixing)
    if mixed is not fwd:
        logger.info("Using %d EEG channels as differences of electrodes.", len(mixing))
    if single:
        logger.info("Leaving out %d single electrodes beside them.", len(single))
    return mixed


def _single_electrodes(info, pairs, names):
    eeg = mne.pick_types(info, eeg=True)
    eeg = {info["ch_names"][pick] for pick in eeg}
    return (eeg - set(pairs)) & set(names)


def _have_cathodes(fwd, pairs):
    """List the bipolar channels of a forward of which both places are known.

    Before a channel becomes bipolar, the second place in its ``loc`` is that of the
    recording's reference, if anything. It stays there, the same for all channels.
    """
    places = {}
    for ch in fwd["info"]["chs"]:
        anode, cathode = ch["loc"][:3], ch["loc"][3:6]
        known = np.isfinite(cathode).all() and cathode.any()
        if ch["ch_name"] in pairs and known and not np.allclose(anode, cathode):
            places[ch["ch_name"]] = tuple(np.round(cathode, 6))
    cathodes = {pairs[name][1].lower() for name in places}
    expected = max(len(cathodes), 2 if "" in cathodes else 1)
    return set(places) if len(set(places.values())) >= expected else set()


def _check_complete(lost, pairs):
    if not lost:
        return
    example = next((name for name in lost if all(pairs[name])), None)
    electrodes = "the two electrodes of each channel"
    if example is not None:
        electrodes = "{!r} and {!r}, and so on".format(*pairs[example])
    raise ValueError(
        f"{len(lost)} EEG channels are bipolar, that is, differences of two electrodes "
        f"({lost[:3]}), but the forward solution does not know both of their places. "
        "An average reference does not mend this. Pass a forward solution of the "
        f"single electrodes, with channels named {electrodes}: make it with the info "
        "from before set_bipolar_reference, or with mne.create_info(electrodes, "
        "sfreq, 'eeg') and set_montage. The channels of the data must be named "
        "'anode-cathode'. To leave them out, list them in info['bads']."
    )


def _mix_rows(fwd, mixing):
    """Make a forward with other EEG channels: the mixtures of its rows."""
    names = fwd["sol"]["row_names"]
    places = {ch["ch_name"]: ch for ch in fwd["info"]["chs"]}
    meg = [name for name in names if places[name]["kind"] != FIFF.FIFFV_EEG_CH]
    mixing = {name: {names.index(name): 1.0} for name in meg} | mixing
    if list(mixing) == names and all(len(parts) == 1 for parts in mixing.values()):
        return fwd
    matrix = np.zeros((len(mixing), len(names)))
    for new, parts in enumerate(mixing.values()):
        matrix[new, list(parts)] = list(parts.values())
    chs = [_join(name, [places[names[i]] for i in mixing[name]]) for name in mixing]
    fwd = fwd.copy()
    for solution in filter(None, (fwd["sol"], fwd["sol_grad"])):
        solution["data"] = matrix @ solution["data"]
        solution.update(row_names=list(mixing), nrow=len(mixing))
    for name in ("_orig_sol", "_orig_sol_grad"):
        if fwd.get(name) is not None:
            fwd[name] = matrix @ fwd[name]
    fwd["nchan"] = len(mixing)
    update_info(fwd["info"], chs=chs, ch_names=list(mixing), nchan=len(mixing), bads=[])
    return fwd


def _join(name, chs):
    """Describe a channel: as its anode, with the place of its cathode."""
    ch = deepcopy(chs[0])
    ch["ch_name"] = name
    if len(chs) == 2:
        ch["coil_type"] = FIFF.FIFFV_COIL_EEG_BIPOLAR
        ch["loc"][3:6] = chs[1]["loc"][:3]
    return ch


def place_cathodes(info, fwd):
    """Give bipolar channels the two places that they have in a forward, in a copy.

    Parameters
    ----------
    info : Info
        Measurement info of the data.
    fwd : Forward
        What :func:`match_bipolar` returned.

    Returns
    -------
    info : Info
        The same object if there is nothing to place.
    """
    marked = mark_bipolar(info)
    if marked is info:
        return info
    places = {ch["ch_name"]: ch["loc"] for ch in fwd["info"]["chs"]}
    for ch in marked["chs"]:
        if is_bipolar_coil(ch) and ch["ch_name"] in places:
            ch["loc"][:6] = places[ch["ch_name"]][:6]
    return marked
