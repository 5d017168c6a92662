"""What helps the network, at equal compute: variants trained for the same time.

    python -m benchmarks.studies.ablation BUNDLE [--minutes 1] [--only base ...]

``benchmarks.making.weights`` makes the bundle of heads. Each variant runs in a process
of its own, on one thread: the time of an update is measured first, then the learning
rate falls over as many updates as fit in ``--minutes``. The error is that on the last
head (1 = nothing explained), always over all times of the window. Results go to
results/ablation.json, variant by variant.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch._dynamo  # noqa: F401 optimisers import it: here once, not for each variant
from torch import nn

from mne_deepsif.head.parcels import make_template_parcels
from mne_deepsif.network import architectures, encoder
from mne_deepsif.simulation.library import make_library
from mne_deepsif.training import batches, trainer
from mne_deepsif.training.batches import TrainingLeadfield
from mne_deepsif.training.bundle import read_bundle
from mne_deepsif.training.heads import KINDS, draw_sensors

from ..options import SMALL_LIBRARY, parse_args
from ..provenance import provenance


# ------------------------------------------------------------- patches of the modules
def all_times():
    """Let windows pass as they are, with unit vectors as time courses."""

    def keep(data, n_components, exact=True):
        unit = torch.eye(data.shape[2], device=data.device)
        return data, unit.expand(len(data), -1, -1)

    encoder.principal_components = keep


def mixing(temporal=None):
    """Use the first network of this project: layers per time, then over times."""

    class Residual(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(width, width), nn.Linear(width, width)

        def forward(self, x):
            return nn.functional.elu(self.fc2(nn.functional.elu(self.fc1(x))) + x)

    class Mixing(nn.Module):
        def __init__(self, width, n_times=64):
            super().__init__()
            self.fc1 = nn.Linear(n_times, 2 * n_times)
            self.fc2 = nn.Linear(2 * n_times, n_times)

        def forward(self, x):
            hidden = nn.functional.elu(self.fc1(x.transpose(1, 2)))
            return x + self.fc2(hidden).transpose(1, 2)

    class Network(nn.Module):
        def __init__(self, n_features, n_parcels, n_times, **sizes):
            super().__init__()
            self.sizes, width = sizes, sizes["width"]
            kind = Mixing if temporal is None else temporal
            self.embed = nn.Linear(n_features, width)
            blocks = [(Residual(width), kind(width)) for _ in range(sizes["n_blocks"])]
            self.blocks = nn.Sequential(*(part for pair in blocks for part in pair))
            self.readout = nn.Linear(width, n_parcels)
            nn.init.zeros_(self.readout.weight)
            nn.init.zeros_(self.readout.bias)

        def forward(self, X):
            X = X * X.shape[1] ** 0.5  # unit size per time, as it was
            return self.readout(self.blocks(nn.functional.elu(self.embed(X))))

    all_times()
    torch.set_flush_denormal(True)
    architectures.ARCHITECTURES["compact"] = Network


def lstm():
    class Recurrent(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.lstm = nn.LSTM(width, width // 2, batch_first=True, bidirectional=True)

        def forward(self, x):
            return x + self.lstm(x)[0]

    mixing(Recurrent)


def convolution():
    class Convolution(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.conv = nn.Conv1d(width, width, 9, padding=4, groups=width // 20)

        def forward(self, x):
            return x + nn.functional.elu(self.conv(x.mT)).mT

    mixing(Convolution)


def attention():
    class Attention(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.norm = nn.LayerNorm(width)
            self.heads = nn.MultiheadAttention(width, 8, batch_first=True)

        def forward(self, x):
            normed = self.norm(x)
            return x + self.heads(normed, normed, normed, need_weights=False)[0]

    mixing(Attention)


def center():
    components = encoder.principal_components

    def centred(data, n_components, exact=True):
        return components(data - data.mean(-1, keepdim=True), n_components, exact)

    encoder.principal_components = centred


def _use_kernels(*regularizations):
    make, n_kernels = batches.backprojection_kernels, len(regularizations)
    batches.backprojection_kernels = partial(make, regularizations=regularizations)
    encoder.encode = partial(encoder.encode, n_kernels=n_kernels)
    encoder.N_KERNELS = n_kernels


def kernel_01():
    _use_kernels(0.1)


def kernel_0003():
    _use_kernels(0.003)


def four_kernels():
    _use_kernels(1.0, 0.1, 0.01, 0.001)


def minimum_norm(by_noise=False):
    """Leave out the normalisation of the kernels, or take dSPM's."""

    def kernels(gain):
        gram = gain @ gain.T
        unit = torch.eye(len(gram)) * gram.trace() / len(gram)
        parts = []
        for regularization in encoder.REGULARIZATIONS:
            kernel = torch.linalg.solve(gram + regularization * unit, gain).T
            if by_noise:
                size = kernel.norm(dim=1, keepdim=True)
                kernel = kernel / size.clamp_min(1e-6 * size.max())
            parts.append(kernel)
        return torch.cat(parts)

    batches.backprojection_kernels = kernels


def dspm():
    minimum_norm(by_noise=True)


def no_last_gates():
    def forward(self, X):
        state = self.power(architectures._root_power(X))
        gated, state = self.gates[0](self.embed(X), state)
        for linear, gates in zip(self.linear, self.gates[1:], strict=True):
            gated, state = gates(gated + linear(gated), state)
        opening = self.parcel_gates(architectures._normalise(state))
        return self.readout(gated) * nn.functional.softplus(opening)[:, None]

    architectures.CompactNetwork.forward = forward


def noise_level():
    """Add the share of power that the components leave, as one more feature."""
    components, backproject = encoder.principal_components, encoder._backproject
    left = []

    def remember(data, n_components, exact=True):
        patterns, courses = components(data, n_components, exact)
        share = patterns.square().sum((1, 2)) / data.square().sum((1, 2))
        left.append((1 - share).clamp_min(1e-4))
        return patterns, courses

    def append(X, kernels):
        X, size = backproject(X, kernels)
        level = torch.zeros(*X.shape[:2], 1)
        level[:, 0, 0] = left.pop().log()  # the power of the feature over components
        return torch.cat([X, level], 2), size

    encoder.principal_components, encoder._backproject = remember, append
    linear = architectures.CompactNetwork.__init__

    def wider(self, n_features, *args, **kwargs):
        linear(self, n_features + 1, *args, **kwargs)

    architectures.CompactNetwork.__init__ = wider


def muon():
    class Both:
        """Muon for the matrices inside, AdamW for the rest, one learning rate."""

        def __init__(self, net, lr):
            inner = [
                parameter
                for name, parameter in net.named_parameters()
                if parameter.ndim == 2 and name != "readout.weight"
            ]
            chosen = {id(parameter) for parameter in inner}
            rest = [p for p in net.parameters() if id(p) not in chosen]
            self.parts = [
                torch.optim.Muon(
                    inner, lr=lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
                ),
                torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), fused=True),
            ]
            self.param_groups = [g for part in self.parts for g in part.param_groups]

        def zero_grad(self, set_to_none=True):
            for part in self.parts:
                part.zero_grad(set_to_none)

        def step(self):
            for part in self.parts:
                part.step()

    init = trainer.Trainer.__init__

    def with_muon(self, net, library, leadfields, options, **kwargs):
        init(self, net, library, leadfields, options, **kwargs)
        self.optimizer = Both(self.network, options.learning_rate)

    trainer.Trainer.__init__ = with_muon


def ema():
    step, validate = trainer.Trainer._train_step, trainer.Trainer._validate

    def averaged_step(self):
        step(self)
        weights = [p.detach() for p in self.network.parameters()]
        if not hasattr(self, "average"):
            self.average = [p.clone() for p in weights]
        decay = min(0.995, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.average, weights, 1 - decay)

    def averaged_validation(self):
        if hasattr(self, "average"):
            with torch.no_grad():
                for parameter, value in zip(self.network.parameters(), self.average):
                    parameter.copy_(value)
        validate(self)

    trainer.Trainer._train_step = averaged_step
    trainer.Trainer._validate = averaged_validation


def linear_decay():
    def rate(self):
        options = self.options
        warmup = min(1.0, (self.step + 1) / options.n_warmup)
        return options.learning_rate * warmup * (1 - self.step / options.n_steps)

    trainer.Trainer._learning_rate = rate


def smooth_targets():
    """Let extents fade out over the next parcels (validation as ever)."""
    from mne_deepsif import make_template_parcels

    adjacency = make_template_parcels().adjacency.toarray() > 0
    spread = np.eye(len(adjacency)) + 0.3 * adjacency / adjacency.sum(1, keepdims=True)
    spread = torch.as_tensor(spread / spread.sum(0)).float()
    error = trainer.relative_error

    def smoothed(estimate, target, power):
        if estimate.requires_grad:
            target = target @ spread
        return error(estimate, target, power)

    trainer.relative_error = smoothed


def root_loss():
    """Weak and strong parcels weigh more alike: roots of amplitudes over the window."""
    error = trainer.relative_error

    def roots(estimate, target, power):
        if not estimate.requires_grad:
            return error(estimate, target, power)
        sizes = [(x.float().square().sum(1) + 1e-8).sqrt() for x in (estimate, target)]
        mask = (sizes[0].sqrt() - sizes[1].sqrt()).square().sum()
        scale = sizes[1].sum().clamp_min(1e-6)
        return error(estimate, target, power) + 0.3 * mask / scale

    trainer.relative_error = roots


# --------------------------------------------------------------------- the variants
BASE = dict(width=640, n_blocks=2)  # the defaults, for networks of other kinds
SMALL_SIZES = dict(width=40)  # of a smoke run
SMALL_OPTIONS = dict(batch_size=8, n_validation=8)
# name: (sizes of the network, training options, function that patches the modules)
VARIANTS = {
    "base": ({}, {}, None),
    "base, another seed": ({}, {"seed": 1}, None),
    "2 components": ({"n_components": 2}, {}, None),
    "8 components": ({"n_components": 8}, {}, None),
    "all 64 times instead of components": ({}, {}, all_times),
    "earlier network: ELU layers, mixing over times": ({}, {}, mixing),
    "bidirectional LSTM instead of mixing": ({}, {}, lstm),
    "temporal convolution instead of mixing": ({}, {}, convolution),
    "attention over times instead of mixing": ({}, {}, attention),
    "window's mean removed": ({}, {}, center),
    "one kernel, 0.1": ({}, {}, kernel_01),
    "one kernel, 0.003": ({}, {}, kernel_0003),
    "four kernels, 1 to 0.001": ({}, {}, four_kernels),
    "kernels not normalised (minimum norm)": ({}, {}, minimum_norm),
    "kernels normalised by noise (dSPM)": ({}, {}, dspm),
    "no last gates": ({}, {}, no_last_gates),
    "noise level as input": ({}, {}, noise_level),
    "1 block": ({"n_blocks": 1}, {}, None),
    "3 blocks": ({"n_blocks": 3}, {}, None),
    "width 1024": ({"width": 1024}, {}, None),
    "gate width 1024": ({"gate_width": 1024}, {}, None),
    "learning rate 2e-3": ({}, {"learning_rate": 2e-3}, None),
    "learning rate 5e-4": ({}, {"learning_rate": 5e-4}, None),
    "learning rate falls linearly": ({}, {}, linear_decay),
    "batches of 64": ({}, {"batch_size": 64}, None),
    "each sample used once": ({}, {"n_uses": 1}, None),
    "each sample used 4 times": ({}, {"n_uses": 4}, None),
    "a quarter of the leadfields a batch": ({}, {"n_leadfields": 2}, None),
    "Muon": ({}, {}, muon),
    "average of the weights (EMA)": ({}, {}, ema),
    "loss on amplitudes' square roots": ({}, {}, root_loss),
    "smoothed extents as targets": ({}, {}, smooth_targets),
}


def make_training_set(bundle, small):
    """Return a library, leadfields to train on, and leadfields of the last head."""
    options = SMALL_LIBRARY if small else dict(random_state=1)
    library = make_library(make_template_parcels(), **options)
    cortex, heads, _ = read_bundle(bundle)
    *others, last = heads.values()
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    n_train, n_validation = (2, 2) if small else (64, 16)

    def draw_some(some, n_leadfields):
        chosen = (some[number % len(some)] for number in range(n_leadfields))
        return [draw_leadfield(head, cortex, rng, generator) for head in chosen]

    # a smoke run has one head
    return (
        library,
        draw_some(others or [last], n_train),
        draw_some([last], n_validation),
    )


def draw_leadfield(head, cortex, rng, generator):
    """Draw sensors and folds of a head, and return the gain of its parcels."""
    kind = rng.choice(list(KINDS), p=list(KINDS.values()))
    normals = head.normals[rng.integers(len(head.normals))]
    parcel = head.parcel[rng.integers(len(head.parcel))]
    gain = draw_sensors(head, kind, normals, rng, generator).assumed
    used = torch.nonzero(parcel >= 0)[:, 0]
    owner, n_parcels = parcel[used], len(cortex.parcel_areas)
    counts = torch.bincount(owner, minlength=n_parcels).clamp_min(1)
    share = (cortex.parcel_areas / counts)[owner]
    total = torch.zeros(len(gain), n_parcels).index_add(1, owner, gain[:, used] * share)
    return TrainingLeadfield(total.numpy(), np.eye(len(total), dtype=np.float32))


def run_variant(name, bundle, seconds, small):
    """Train one variant in this process and return its figures."""
    torch.set_num_threads(1)
    sizes, options, patch = VARIANTS[name]
    sizes = BASE | (SMALL_SIZES if small else {}) | sizes
    options = (SMALL_OPTIONS if small else {}) | options
    if patch is not None:
        patch()
    library, leadfields, validation = make_training_set(bundle, small)
    n_parcels = len(library.background)

    def make_trainer(n_steps, callback=None):
        network = architectures.make_network(
            "compact",
            encoder.N_KERNELS * n_parcels,
            n_parcels,
            trainer.TrainingOptions.n_times,
            **sizes,
        )
        return trainer.Trainer(
            network,
            library,
            leadfields,
            trainer.TrainingOptions(n_steps, validate_every=10**9, **options),
            validation_leadfields=validation,
            callback=callback,
        )

    times = []
    make_trainer(5 if small else 33, lambda _: times.append(time.process_time())).run()
    step = float(np.mean(np.diff(times)[-16:]))  # whole pools, however often used
    last = make_trainer(max(10, int(seconds / step)))
    last.run()
    return {
        "error": last.history[-1][1],
        "updates": last.step,
        "ms per update": 1e3 * step,
        "parameters": sum(p.numel() for p in last.network.parameters()),
    }


def main():
    """Run the variants, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bundle", type=Path, help="heads to draw leadfields from")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS))
    args = parse_args(parser, smoke=True)
    if args.smoke:
        args.minutes = 0.0
    seconds = 60 * args.minutes
    result = args.results / "ablation.json"
    results = json.loads(result.read_text()) if result.exists() else {}
    results |= provenance()
    variants = results.setdefault("variants", {})
    fork = get_context("fork")  # torch is imported there, and nothing is patched
    for name in args.only or VARIANTS:
        with ProcessPoolExecutor(1, fork) as pool:
            job = pool.submit(run_variant, name, args.bundle, seconds, args.smoke)
            figures = job.result()
        variants[name] = {"minutes": args.minutes} | figures
        print(f"{name:50s} {figures['error']:.4f} {figures['updates']:5d} updates")
        result.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
