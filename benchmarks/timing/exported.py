"""Time the network compiled, exported and in half precision, beside plain torch.

    python -m benchmarks.timing.exported [--windows 3] [--runs 200] [--compile]

Needs ``pip install onnxruntime onnx onnxscript``, which nothing else here does;
``--compile`` needs a C++ compiler. The network with its input (back-projection and
scan) runs on one thread, on as many windows as a stream estimates at once. The ways
take turns, and other data pass through the cache between them. Prints the table and
writes it to ``benchmarks/results/exported.txt``.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse
import tempfile
import time
from importlib.metadata import distribution
from pathlib import Path

import mne
import numpy as np
import onnxruntime
import torch

import mne_deepsif
from mne_deepsif.network.encoder import encode, scan

from ..comparison.subjects import biosemi_info
from ..options import parse_args
from ..provenance import Lines

LINES = Lines()
say = LINES.say


class Graph(torch.nn.Module):
    """What lies between the patterns of the windows and the network's answer."""

    def __init__(self, network, prepared):
        super().__init__()
        self.network = network
        self.kernels = torch.nn.Buffer(prepared.kernels)
        self.scanning = torch.nn.Buffer(prepared.scanning)

    def forward(self, patterns):
        """Map (n_windows, n_channels, n_components) to the answer."""
        X = [encode(patterns, self.kernels), scan(patterns, self.scanning)]
        return self.network(torch.cat(X, 2))


def export(graph, patterns):
    """Return a function that runs the graph in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        fname = Path(folder) / "graph.onnx"
        torch.onnx.export(graph, (patterns,), fname, external_data=False)
        session = onnxruntime.InferenceSession(fname, options)
    name = session.get_inputs()[0].name
    return lambda x: torch.as_tensor(session.run(None, {name: x.numpy()})[0])


def make_ways(patterns, compiles):
    """Return a function from patterns to the answer for each way."""
    info = biosemi_info()
    fwd = mne_deepsif.make_template_forward(info)
    cov = mne.make_ad_hoc_cov(info)
    prepared = mne_deepsif.make_deepsif_operator(info, fwd, cov)._prepared
    torch.set_num_threads(1)  # numba, in the forward, changes them
    graph = Graph(prepared.model.network, prepared).eval()
    ways = {
        "torch": graph,
        "torch, half": Graph(prepared.model._device_network, prepared).eval(),
        "ONNX Runtime": export(graph, patterns(len(prepared.gain))),
    }
    if compiles:
        ways["compiled"] = torch.compile(graph)
    return ways, patterns(len(prepared.gain))


def compare(ways, x, n_runs):
    """Time the ways in turn; print medians and the differences of the answers."""
    other = torch.zeros(10_000_000)
    seconds = {name: [] for name in ways}
    processor = {name: [] for name in ways}
    expected = ways["torch"](x)
    say(f"\n== {len(x)} windows, one thread (ms)")
    say(f"{'':16s}{'least':>8s}{'median':>8s}{'processor':>11s}{'difference':>12s}")
    for _ in range(n_runs):
        for name, run in ways.items():
            other += 1
            began = time.perf_counter(), time.process_time()
            run(x)
            seconds[name].append(time.perf_counter() - began[0])
            processor[name].append(time.process_time() - began[1])
    for name, run in ways.items():
        row = 1e3 * np.percentile(seconds[name], (0, 50))
        used = 1e3 * np.median(processor[name])
        away = ((run(x) - expected).abs().max() / expected.abs().max()).item()
        say(f"{name:16s}{row[0]:8.1f}{row[1]:8.1f}{used:11.1f}{away:12.0e}")


def say_sizes():
    """Print what the libraries take on disk."""
    say("\n== size of the installed library alone (MB)")
    for name in ("torch", "onnxruntime"):
        files = (file.locate() for file in distribution(name).files)
        size = sum(file.stat().st_size for file in files if file.exists())
        say(f"{name:16s}{size / 1e6:8.0f}")


def main():
    """Compare and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--compile", action="store_true")
    args = parse_args(parser)
    mne.set_log_level("ERROR")
    LINES.say_provenance()
    say(f"onnxruntime {onnxruntime.__version__}")
    generator = torch.Generator().manual_seed(0)

    def patterns(n_channels):
        size = args.windows, n_channels, 4
        return torch.randn(size, generator=generator)

    ways, x = make_ways(patterns, args.compile)
    with torch.inference_mode():
        compare(ways, x, args.runs)
    say_sizes()
    LINES.write(args.results / "exported.txt")


if __name__ == "__main__":
    main()
