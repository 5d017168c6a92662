"""Simulate with The Virtual Brain; run by jansen_rit.py in the Python that has it.

python jansen_rit_tvb.py input.npz output.npz: reads ``weights``, ``lengths``, ``A``,
``mu``, ``noise_std``, ``duration`` (s), ``speed``, ``initial`` (6 states); writes
``psp`` (n_parcels, n_steps), the steps 1, 2, ..., and ``seconds``.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import sys
import time

import numpy as np
from tvb.simulator.lab import (
    connectivity,
    coupling,
    integrators,
    models,
    monitors,
    noise,
    simulator,
)


def simulate(
    weights, lengths, A, mu, noise_std, duration, speed, initial, dt=0.5, seed=0
):
    n_parcels = len(weights)
    connectome = connectivity.Connectivity(
        weights=weights,
        tract_lengths=lengths,
        region_labels=np.array([str(i) for i in range(n_parcels)]),
        centres=np.zeros((n_parcels, 3)),
        speed=np.array([speed]),
    )
    model = models.JansenRit(A=A, mu=np.array([mu]), v0=np.array([6.0]))
    model.variables_of_interest = ("y0", "y1", "y2", "y3")
    if noise_std > 0:
        nsig = np.zeros(6)
        nsig[4] = (0.1 * 3.25 * 0.06 * noise_std) ** 2 / 2
        source = noise.Additive(nsig=nsig, noise_seed=seed)
        integrator = integrators.HeunStochastic(dt=dt, noise=source)
    else:
        integrator = integrators.HeunDeterministic(dt=dt)
    horizon = int(np.rint(lengths / speed / dt).max()) + 1
    past = np.zeros((horizon, 6, n_parcels, 1)) + initial[:, None, None]
    whole = simulator.Simulator(
        model=model,
        connectivity=connectome,
        coupling=coupling.SigmoidalJansenRit(a=np.array([1.0])),
        integrator=integrator,
        monitors=(monitors.Raw(),),
        initial_conditions=past,
    ).configure()
    start = time.perf_counter()
    ((_, states),) = whole.run(simulation_length=duration * 1000)
    seconds = time.perf_counter() - start
    return (states[:, 1] - states[:, 2])[..., 0].T, seconds


if __name__ == "__main__":
    options = dict(np.load(sys.argv[1]))
    scalars = ("mu", "noise_std", "duration", "speed")
    options |= {name: float(options[name]) for name in scalars}
    psp, seconds = simulate(**options)
    np.savez(sys.argv[2], psp=psp, seconds=seconds)
