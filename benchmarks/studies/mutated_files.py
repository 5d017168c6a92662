"""What read_deepsif makes of mutated files: one clear error, or a working estimator.

    python -m benchmarks.studies.mutated_files

Small files of three kinds of estimators are changed with knowledge of their structure:
8 bytes with the length of the header, the header (JSON) with types, shapes and offsets
of the tensors, in it the estimator's own header (JSON in JSON), then the tensors. Where
a changed file can still be taken apart, it gets the checksum of its content, as from
somebody who means harm. Flipped and cut bytes keep the old one, as on a bad disk.

What is refused must be a ValueError that names the file and says what to do. What is
read must give finite estimates, or one clear error ("in use") where weights are too
large for some data. After flipped and cut bytes, the content must be as before.
Anything else is a problem. Memory is that of the whole process (Linux only). Writes
``results/mutated_files.json`` and ``.txt``.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse
import json
import os
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from pathlib import Path

import mne
import numpy as np
import safetensors
import safetensors.numpy
import scipy.sparse as sp
import torch

from mne_deepsif import DeepSIFEstimator, Model, Parcels, read_deepsif
from mne_deepsif.inverse.files import _checksum
from mne_deepsif.network.architectures import make_network
from mne_deepsif.network.encoder import N_KERNELS

from ..options import parse_args
from ..provenance import as_lines, provenance

N_PARCELS, N_CHANNELS, N_TIMES = 6, 5, 16
SIZES = {
    "compact": dict(width=7, gate_width=5, n_blocks=2, n_components=3),
    "published": dict(n_hidden=7, n_layers=2),
}
KINDS = (
    ("backprojection", "compact"),
    ("sensors", "compact"),
    ("sensors", "published"),
)
ITEMSIZE = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 1),
}
DTYPES = (*ITEMSIZE, "F4", "F6_E2M3", "C64", "f32", "", "O", None, 3, ["F32"])
NUMBERS = (0, 1, -1, 7, 10_000, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**12, 10**400)
FLOATS = (0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), -float("inf"))
TEXTS = ("", "x", "sensors", "published", "\x00", "é%s", "\ud800", "\u202e", "🧠" * 500)
VALUES = (
    *(None, True, False, *TEXTS, *NUMBERS, *FLOATS),
    *([], [[]], {}, {"width": 10**10}, [1] * 1000, ["A"] * 5, [None], "x" * 10**5),
)
HERE = "@nested@"  # where nested JSON goes, as Python would not write it


# ---------------------------------------------------------------- small files


def make_files(folder):
    """Return the content of a small file of each kind of estimator."""
    fname, contents = folder / "original-deepsif.safetensors", []
    for encoder, architecture in KINDS:
        estimator = DeepSIFEstimator(None, encoder, architecture=architecture)
        estimator.model_ = _make_model(encoder, architecture)
        estimator.save(fname)
        contents.append(fname.read_bytes())
        fname.unlink()
    return contents


def _make_model(encoder, architecture):
    sensors = encoder == "sensors"
    n_features = N_CHANNELS if sensors else N_KERNELS * N_PARCELS
    sizes = SIZES[architecture]
    network = make_network(architecture, n_features, N_PARCELS, N_TIMES, **sizes)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    parcels = Parcels(
        subject="nobody",
        mapping=np.repeat(np.arange(-1, N_PARCELS), 3),
        areas=np.full(N_PARCELS, 1e-4),
        centers=0.01 * np.eye(N_PARCELS, 3),
        adjacency=sp.csr_array(np.eye(N_PARCELS, k=1) + np.eye(N_PARCELS, k=-1) > 0),
        n_vertices_lh=12,
    )
    return Model(
        network=network,
        encoder=encoder,
        parcels=parcels,
        sfreq=125.0,
        n_times=N_TIMES,
        architecture=architecture,
        ch_names=list("ABCDE") if sensors else None,
        recipe={"n_steps": 9},
        history=[(0, 1.0), (9, 0.5)],
        metrics={"localization_error": 4e-3},
        fingerprint={
            "ch_names": ["Cz", "Pz"],
            "sensors": np.full((2, 3), 0.1, np.float32),
            "parcels": np.full((N_PARCELS, 3), 0.1, np.float32),
        },
    )


# ---------------------------------------------------------------- taking files apart


def take_apart(content):
    """Return the header and that of the estimator as dicts, and the tensors' bytes."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    return header, json.loads(header["__metadata__"]["mne_deepsif"]), content[end:]


def put_together(header, estimator, body, inside=""):
    """Undo :func:`take_apart`; ``inside`` replaces what is marked as nested JSON."""
    if estimator is not None:
        text = json.dumps(estimator).replace(f'"{HERE}"', inside)
        header["__metadata__"]["mne_deepsif"] = text
    return _pack(json.dumps(header).replace(f'"{HERE}"', inside), body)


def _pack(text, body):
    text = text.encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + body


def sign(content):
    """Give a file the checksum of its content, if it can be taken apart."""
    try:
        arrays = safetensors.numpy.load(content)
        end = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:end])
        metadata = header["__metadata__"]
        metadata["sha256"] = _checksum(metadata["mne_deepsif"], arrays)
        return _pack(json.dumps(header), content[end:])
    except Exception:  # then it stays as it is
        return content


def _pick(values, rng):
    values = list(values)
    return values[rng.integers(len(values))]


def _tensor(header, rng):
    """Return what the header says of one of the tensors."""
    return header[_pick([name for name in header if name != "__metadata__"], rng)]


def _some_place(place, rng):
    """Return a list or dict in nested JSON, and a key of it."""
    while True:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        key = _pick(keys, rng)
        inner = isinstance(place[key], dict | list) and len(place[key])
        if not inner or rng.random() < 0.3:
            return place, key
        place = place[key]


# ---------------------------------------------------------------- mutations


def header_length(content, rng):
    """Another length of the header, near the right one or far from it."""
    right = int.from_bytes(content[:8], "little")
    numbers = [0, 1, 2, 7, 8, 10**8, 10**8 + 1, 2**31, 2**63, 2**64 - 1, len(content)]
    near = right + _pick([-100, -8, -1, 1, 8, 100], rng)
    size = near if rng.random() < 0.5 else _pick(numbers, rng)
    return size.to_bytes(8, "little") + content[8:]


def tensor_dtypes(content, rng):
    """Another type of a tensor, of the same size or not."""
    header, _, body = take_apart(content)
    tensor = _tensor(header, rng)
    size = ITEMSIZE[tensor["dtype"]]
    same = [name for name, itemsize in ITEMSIZE.items() if itemsize == size]
    tensor["dtype"] = _pick(same if rng.random() < 0.5 else DTYPES, rng)
    return put_together(header, None, body)


def tensor_shapes(content, rng):
    """Another shape of a tensor, of as many numbers or not."""
    header, _, body = take_apart(content)
    tensor = _tensor(header, rng)
    shape = tensor["shape"]
    wild = [_pick((*NUMBERS[:-1], -7, 2**62), rng) for _ in range(rng.integers(9))]
    tensor["shape"] = _pick(
        [
            *([int(np.prod(shape))], shape[::-1], [1, *shape], [*shape, 1]),
            *([1] * 70 + shape, [0, *shape], [0, 2**63], shape[:-1], wild, wild),
            *([float(n) for n in shape], [str(n) for n in shape], None, [None], 3, {}),
        ],
        rng,
    )
    return put_together(header, None, body)


def tensor_offsets(content, rng):
    """Tensors that lie elsewhere: on others, back to front, beyond the end."""
    header, _, body = take_apart(content)
    tensor, other = _tensor(header, rng), _tensor(header, rng)
    start, stop = tensor["data_offsets"]
    shift = int(_pick([-start, -8, -1, 1, 8, len(body) - stop, 2**63, 2**64], rng))
    tensor["data_offsets"] = _pick(
        [
            *([stop, start], other["data_offsets"], [start + shift, stop + shift]),
            *([start, stop + shift], [start + shift, stop], [start, start], [start]),
            *([], None, [float(start), float(stop)], [str(start), str(stop)], {}),
            [start, stop, stop],
        ],
        rng,
    )
    return put_together(header, None, body)


def header_keys(content, rng):
    """Names that are missing, unknown, strange, exchanged or there twice."""
    header, _, body = take_apart(content)
    place = header if rng.random() < 0.7 else _tensor(header, rng)
    key = _pick(place, rng)
    kind = rng.integers(5)
    if kind == 0:
        del place[key]
    elif kind == 1:
        place[_pick(TEXTS, rng) + key] = place.pop(key)
    elif kind == 2:
        place[_pick((*TEXTS, "network.x", "__metadata__ "), rng)] = place[key]
    elif kind == 3:
        other = _pick(place, rng)
        place[key], place[other] = place[other], place[key]
    else:
        twice = json.dumps({key: _pick([_tensor(header, rng), *VALUES], rng)})
        return _pack(twice[:-1] + ", " + json.dumps(header)[1:], body)
    return put_together(header, None, body)


def metadata(content, rng):
    """Metadata of another type, with other or without entries, or there twice."""
    header, _, body = take_apart(content)
    entries = header["__metadata__"]
    key, kind = _pick(entries, rng), rng.integers(5)
    if kind == 0:
        header["__metadata__"] = _pick(VALUES, rng)
    elif kind == 1:
        del entries[key]
    elif kind == 2:
        entries[key] = _pick(VALUES, rng)
    elif kind == 3:
        entries[_pick(TEXTS, rng)] = _pick([*TEXTS, entries[key]], rng)
    else:
        text = entries[key]
        at = rng.integers(len(text))
        entries[key] = text[:at] + _pick(TEXTS, rng) + text[at + rng.integers(9) :]
    return put_together(header, None, body)


def estimator_values(content, rng):
    """Other values in the estimator's header."""
    header, estimator, body = take_apart(content)
    for _ in range(rng.integers(1, 4)):
        place, key = _some_place(estimator, rng)
        place[key] = _pick(VALUES, rng)
    return put_together(header, estimator, body)


def estimator_keys(content, rng):
    """Entries of the estimator's header that are missing, unknown or exchanged."""
    header, estimator, body = take_apart(content)
    for _ in range(rng.integers(1, 3)):
        place, key = _some_place(estimator, rng)
        value = place.pop(key)
        if isinstance(place, dict) and rng.random() < 0.6:
            name = _pick((*TEXTS, *estimator), rng)
            place[name] = value
    return put_together(header, estimator, body)


def nested(content, rng):
    """JSON lists in lists, or objects in objects, up to 100 000 deep."""
    header, estimator, body = take_apart(content)
    depth = int(10 ** rng.uniform(0, 5))
    inside = _pick(
        ["[" * depth + "]" * depth, '{"x":' * depth + "1" + "}" * depth], rng
    )
    if rng.random() < 0.5:
        place, key = _some_place(estimator, rng)
        place[key] = HERE
        return put_together(header, estimator, body, inside)
    place, key = _some_place(header, rng)
    place[key] = HERE
    return put_together(header, None, body, inside)


def _change_tensors(content, change):
    header, _, _ = take_apart(content)
    arrays = {k: v.copy() for k, v in safetensors.numpy.load(content).items()}
    change(arrays)
    arrays = {k: np.ascontiguousarray(v) for k, v in arrays.items()}
    return safetensors.numpy.save(arrays, header["__metadata__"])


def tensors(content, rng):
    """Tensors that are exchanged, missing, there twice, repeated or converted."""

    def change(arrays):
        name, other = _pick(arrays, rng), _pick(arrays, rng)
        kind = rng.integers(7)
        if kind == 0:
            arrays[name], arrays[other] = arrays[other], arrays[name]
        elif kind == 1:
            del arrays[name]
        elif kind == 2:
            arrays[_pick((*TEXTS[:-3], "network.x"), rng) + name] = arrays[name]
        elif kind == 3:
            n_times = int(10 ** rng.uniform(0, 4))
            arrays[name] = np.resize(arrays[name], (n_times, *arrays[name].shape[1:]))
        elif kind == 4:
            arrays[name] = arrays[other]
        elif kind == 5:
            arrays[name] = np.zeros((0, int(10 ** rng.uniform(0, 15))), np.float32)
        else:
            types = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u1", "?"]
            arrays[name] = arrays[name].astype(_pick(types, rng))

    return _change_tensors(content, change)


def tensor_values(content, rng):
    """Values that are not finite, huge, tiny, or out of range; in one place or all."""

    def change(arrays):
        array = arrays[_pick(arrays, rng)]
        values = [np.nan, np.inf, -np.inf, 0, -1, 1, 7, 1e4, 1e30, 3e38, 1e308, 1e-45]
        where = np.s_[:] if rng.random() < 0.3 else rng.integers(array.size)
        with np.errstate(all="ignore"):
            array.flat[where] = np.array(_pick(values, rng)).astype(array.dtype)

    return _change_tensors(content, change)


def huge_sizes(content, rng):
    """Sizes that would fill the memory, alone or as many as agree with one another."""
    header, estimator, body = take_apart(content)
    places = [(estimator, "n_times_"), (estimator, "sfreq_"), (estimator, "n_features")]
    places += [(estimator, "n_vertices_lh")]
    places += [(estimator["sizes"], key) for key in estimator["sizes"]]
    for _ in range(rng.integers(1, 3)):
        place, key = _pick(places, rng)
        place[key] = int(10 ** rng.uniform(0, 13))
    if rng.random() < 0.3:  # as long a window as may be
        estimator["n_times_"] = int(10 ** rng.uniform(3, 4.01))
        estimator["sfreq_"] = int(10 ** rng.uniform(1.9, 5.1))
    return put_together(header, estimator, body)


def flipped(content, rng):
    """Up to 8 bits flipped, anywhere or in the header alone."""
    content = bytearray(content)
    end = 8 + int.from_bytes(content[:8], "little")
    for _ in range(rng.integers(1, 9)):
        stop = end if rng.random() < 0.5 else len(content)
        content[rng.integers(stop)] ^= 1 << rng.integers(8)
    return bytes(content)


def cut(content, rng):
    """Bytes that are missing, too many, or overwritten; or nothing but noise."""
    start, size = rng.integers(len(content)), rng.integers(1, 64)
    noise = rng.bytes(size)
    changed = content[:start] + noise + content[start + size :]
    more = [content[:start], content + noise, content[:start] + content[start + size :]]
    return _pick([*more, changed, rng.bytes(rng.integers(3000)), b""], rng)


SIGNED = (tensor_dtypes, tensor_shapes, tensor_offsets, header_keys, metadata)
SIGNED += (estimator_values, estimator_keys, nested, tensors, tensor_values, huge_sizes)
UNSIGNED = (header_length, flipped, cut)


def mutate(original, case, rng):
    """Return a mutated file, the kind of mutation and whether its checksum is new."""
    kind = (SIGNED + UNSIGNED)[case % len(SIGNED + UNSIGNED)]
    content = kind(original, rng)
    return (content if kind in UNSIGNED else sign(content)), kind


# ---------------------------------------------------------------- what comes of it


FINE = "refused", "read", "refused in use"


def content_of(fname):
    """Return the checksum of what a file holds."""
    with safetensors.safe_open(fname, "numpy") as file:
        text = file.metadata()["mne_deepsif"]
    return _checksum(text, safetensors.numpy.load_file(fname))


def outcome_of(fname, before=None):
    """Read a file; return one of ``FINE``, or what is wrong."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            estimator = read_deepsif(fname)
        except ValueError as error:
            text = str(error)
            clear = repr(str(fname)) in text and "DeepSIFEstimator.save wrote" in text
            return "refused" if clear and not said else f"unclear: {text}, {said}"
        except BaseException as error:  # panics of Rust are no Exception
            if isinstance(error, KeyboardInterrupt):
                raise
            return f"{type(error).__name__}: {error}"
    if said:
        return f"warning: {said[0].message}"
    if before is not None and content_of(fname) != before:
        return "read, content changed"
    model = estimator.model_
    n_channels, n_parcels = len(model.ch_names or "12345"), model.parcels.n_parcels
    data = np.cos(np.arange(n_channels * N_TIMES)).reshape(n_channels, -1)
    gain = np.sin(1.0 + np.arange(n_channels * n_parcels)).reshape(n_channels, -1)
    try:
        sources = model.estimate(data, gain, model.sfreq)
    except ValueError as error:
        clear = "The network's answer is not finite" in str(error)
        return "refused in use" if clear else f"unclear in use: {error}"
    if sources.shape != (n_parcels, N_TIMES) or not np.isfinite(sources).all():
        return "estimates are wrong"
    return "read"


def memory(what):
    """Return a line (MB) of what Linux says of this process, NaN elsewhere."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return int(next(x for x in lines if x.startswith(what)).split()[1]) / 1e3


def forget_peak():
    """Set the peak of the memory to what is used now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def run(folder, n_cases, seed=0):
    """Mutate and read files in all ways in turn.

    Return counts, longest reading and peak of the memory by kind, and the problems.
    """
    rng = np.random.default_rng(seed)
    fname = folder / "mutated-deepsif.safetensors"
    originals, contents = make_files(folder), []
    for content in originals:  # so that all is imported
        fname.write_bytes(content)
        assert outcome_of(fname) == "read"
        contents.append(content_of(fname))
    start = memory("VmRSS")
    counts, problems = defaultdict(Counter), []
    seconds, peaks = Counter(), Counter()
    for case in range(n_cases):
        which = rng.integers(len(KINDS))
        content, kind = mutate(originals[which], case, rng)
        fname.write_bytes(content)
        forget_peak()
        began = time.process_time()
        outcome = outcome_of(fname, contents[which] if kind in UNSIGNED else None)
        name = kind.__name__
        seconds[name] = max(seconds[name], time.process_time() - began)
        peaks[name] = max(peaks[name], memory("VmHWM") - start)
        if outcome not in FINE:
            problems.append(f"case {case}, {name}: {outcome}"[:500])
            outcome = "problem"
        counts[name][outcome] += 1
    left = sorted(set(os.listdir(folder)) - {fname.name})
    return dict(
        n_cases=n_cases,
        counts={name: dict(count) for name, count in counts.items()},
        longest={name: round(value, 2) for name, value in seconds.items()},
        peak_mb={name: round(value, 1) for name, value in peaks.items()},
        problems=problems,
        left=left,
    )


def table(found):
    """Return the counts as lines of text."""
    columns = *FINE, "problem"
    title = "".join(f"{name:>9s}" for name in ("cases", "refused", "read", "in use"))
    title += "  problem"
    lines = ["", f"{'mutation':20s}{title}   longest (s)   memory (MB)"]
    for name, count in found["counts"].items():
        numbers = [sum(count.values()), *(count.get(key, 0) for key in columns)]
        line = f"{name.replace('_', ' '):20s}" + "".join(f"{n:9d}" for n in numbers)
        extremes = f"{found['longest'][name]:14.2f}{found['peak_mb'][name]:14.1f}"
        lines.append(line + extremes)
    left = ", ".join(found["left"]) or "none"
    lines += ["", f"peak above the start: {max(found['peak_mb'].values()):.1f} MB"]
    return [*lines, f"files left behind: {left}", *found["problems"][:20]]


def main():
    """Print and store what came of the mutations."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=100_000, help="number of files")
    args = parse_args(parser, smoke=True)
    mne.set_log_level("ERROR")
    with tempfile.TemporaryDirectory() as folder:
        # what the package or its libraries might leave would be in there as well
        tempfile.tempdir = os.environ["MNE_DEEPSIF_DATA"] = folder
        found = run(Path(folder), 300 if args.smoke else args.n)
        tempfile.tempdir = None
    text = "\n".join(as_lines(provenance()) + table(found)) + "\n"
    print(text)
    (args.results / "mutated_files.txt").write_text(text, encoding="utf-8")
    text = json.dumps(provenance() | found, indent=1) + "\n"
    (args.results / "mutated_files.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
