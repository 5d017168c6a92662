"""What explicit SIMD vectors are worth: the integrator beside plain numba loops.

    python -m benchmarks.timing.lanes [--repeats 9] [--duration 2] [--results FOLDER]

``mne_deepsif.simulation._lanes`` gives LLVM vectors of 16 numbers. This script has the
same integrator in plain loops over 16 lanes, with the same polynomials and generator,
and times both in turn, on one thread: once for this processor, once with numba told
that it is a Haswell (AVX2, no AVX-512). Prints and writes results/lanes.json.
"""

# Authors: the mne_deepsif developers
# License: BSD-3-Clause

import argparse
import json
import os
import subprocess
import sys
import time

import mne
import numpy as np
from numba import njit

import mne_deepsif
from mne_deepsif.simulation import _blocks, _lanes

from ..options import parse_args
from ..provenance import ROOT, provenance

PROCESSORS = {"this processor": {}, "Haswell (AVX2)": {"NUMBA_CPU_NAME": "haswell"}}
N_LANES, N_ROWS = _lanes.N_LANES, 9
OPTIONS = dict(fastmath=True, error_model="numpy", nogil=True)

E0, E1, E2, E3, E4, E5, E6 = (getattr(_lanes, f"_E{i}") for i in range(7))
L0, L1, L2, L3, L4, L5, L6, L7, L8 = (getattr(_lanes, f"_L{i}") for i in range(9))
S0, S1, S2, S3, S4 = (getattr(_lanes, f"_S{i}") for i in range(5))
C0, C1, C2, C3, C4, C5 = (getattr(_lanes, f"_C{i}") for i in range(6))
FLOAT, INT, UINT = np.float32, np.int32, np.uint32
HALF, ONE, TWO, M2 = FLOAT(0.5), FLOAT(1), FLOAT(2), FLOAT(-2)
LN2, TINY31, TINY32, F128 = FLOAT(np.log(2)), FLOAT(2**-31), FLOAT(2**-32), FLOAT(128)
LOW, HIGH, ROUND = FLOAT(-60), FLOAT(60), FLOAT(128.5)


# --------------------------------------------------------------- in plain loops


@njit(inline="always", **OPTIONS)
def exp2(x):
    """Two to the power of x."""
    x = min(max(x, LOW), HIGH)
    whole = INT(INT(x + ROUND) - INT(128))
    f = x - FLOAT(whole)
    p = E0 + f * (E1 + f * (E2 + f * (E3 + f * (E4 + f * (E5 + f * E6)))))
    return p * np.int32((whole + INT(127)) << INT(23)).view(np.float32)


@njit(inline="always", **OPTIONS)
def logistic2(x):
    """Sigmoid ``1 / (1 + 2**x)``."""
    return ONE / (ONE + exp2(x))


@njit(inline="always", **OPTIONS)
def log(x):
    """Natural logarithm."""
    bits = INT(np.float32(x).view(np.int32) - INT(0x3F3504F3))
    exponent = FLOAT(INT(UINT(bits + INT(0x40000000)) >> UINT(23))) - F128
    f = np.int32((bits & INT(0x7FFFFF)) + INT(0x3F3504F3)).view(np.float32) - ONE
    p = L4 + f * (L5 + f * (L6 + f * (L7 + f * L8)))
    return exponent * LN2 + f * (L0 + f * (L1 + f * (L2 + f * (L3 + f * p))))


@njit(inline="always", **OPTIONS)
def xoshiro(s0, s1, s2, s3):
    """One draw of xoshiro128++."""
    total = UINT(s0 + s3)
    draw = UINT(UINT(UINT(total << UINT(7)) | UINT(total >> UINT(25))) + s0)
    shifted = UINT(s1 << UINT(9))
    s2, s3 = UINT(s2 ^ s0), UINT(s3 ^ s1)
    s1, s0 = UINT(s1 ^ s2), UINT(s0 ^ s3)
    return (
        draw,
        s0,
        s1,
        UINT(s2 ^ shifted),
        UINT(UINT(s3 << UINT(11)) | UINT(s3 >> UINT(21))),
    )


@njit(**OPTIONS)
def draw_normals(state, z):
    """Draw two rows of standard normals."""
    for lane in range(N_LANES):
        s0, s1, s2, s3 = state[0, lane], state[1, lane], state[2, lane], state[3, lane]
        r1, s0, s1, s2, s3 = xoshiro(s0, s1, s2, s3)
        r2, s0, s1, s2, s3 = xoshiro(s0, s1, s2, s3)
        state[0, lane], state[1, lane], state[2, lane], state[3, lane] = s0, s1, s2, s3
        radius = np.sqrt(M2 * log((FLOAT(INT(r1 >> UINT(1))) + HALF) * TINY31))
        turn = FLOAT(INT(r2)) * TINY32
        w = turn * turn
        sine = turn * (S0 + w * (S1 + w * (S2 + w * (S3 + w * S4))))
        cosine = C0 + w * (C1 + w * (C2 + w * (C3 + w * (C4 + w * C5))))
        z[0, lane] = radius * (TWO * sine * cosine)
        z[1, lane] = radius * (ONE - TWO * sine * sine)


@njit(**OPTIONS)
def add_input(drive, weight, firing):
    """Add what comes in through a tract."""
    for lane in range(N_LANES):
        drive[lane] += weight * firing[lane]


@njit(**OPTIONS)
def heun(x, now, then, drive, z, c):
    """Advance a parcel by a step."""
    for i in range(N_LANES):
        y0, y1, y2, y3, y4, y5 = x[0, i], x[1, i], x[2, i], x[3, i], x[4, i], x[5, i]
        gain, noise = x[6, i], x[8, i] * z[i]
        d3 = gain * (c.gs * now[i]) - c.a2 * y3 - c.aa * y0
        d4 = gain * (drive[i] + c.ge * logistic2(c.k0 + c.k1 * y0))
        d4 = d4 - c.a2 * y4 - c.aa * y1
        d5 = c.gi * logistic2(c.k0 + c.k3 * y0) - c.b2 * y5 - c.bb * y2
        p0, p1, p2 = y0 + c.dt * y3, y1 + c.dt * y4, y2 + c.dt * y5
        p3, p4, p5 = y3 + c.dt * d3, y4 + c.dt * d4 + noise, y5 + c.dt * d5
        e3 = gain * (c.gs * logistic2(c.k0 + c.kv * (p1 - p2))) - c.a2 * p3 - c.aa * p0
        e4 = gain * (drive[i] + c.ge * logistic2(c.k0 + c.k1 * p0))
        e4 = e4 - c.a2 * p4 - c.aa * p1
        e5 = c.gi * logistic2(c.k0 + c.k3 * p0) - c.b2 * p5 - c.bb * p2
        y1, y2 = y1 + c.half * (y4 + p4), y2 + c.half * (y5 + p5)
        x[0, i] = y0 + c.half * (y3 + p3)
        x[1, i], x[2, i] = y1, y2
        x[3, i] = y3 + c.half * (d3 + e3)
        x[4, i] = y4 + c.half * (d4 + e4) + noise
        x[5, i] = y5 + c.half * (d5 + e5)
        then[i] = logistic2(c.k0 + c.kv * (y1 - y2))


@njit(**OPTIONS)
def integrate_arrays(x, history, state, coupling, c, steps, picks, out):
    """Advance 16 networks, without stimulus."""
    indptr, offsets, weights = coupling.indptr, coupling.offsets, coupling.weights
    n_parcels, n_rows = indptr.size - 1, history.shape[0]
    z, drive = np.empty((2, N_LANES), np.float32), np.empty(N_LANES, np.float32)
    for step in range(steps.n_steps):
        if steps.decim > 0 and step % steps.decim == 0:
            sample = (step // steps.decim) * picks.size
            for i in range(picks.size):
                lane = i % N_LANES
                out[sample + i] = x[picks[i], 1, lane] - x[picks[i], 2, lane]
        now = ((steps.start + step) % (n_rows // n_parcels)) * n_parcels
        then = ((steps.start + step + 1) % (n_rows // n_parcels)) * n_parcels
        for parcel in range(n_parcels):
            if parcel % 2 == 0:
                draw_normals(state, z)
            for lane in range(N_LANES):
                drive[lane] = x[parcel, 7, lane]
            for j in range(indptr[parcel], indptr[parcel + 1]):
                row = now - offsets[j]
                if row < 0:
                    row += n_rows
                add_input(drive, weights[j], history[row])
            here = history[now + parcel], history[then + parcel]
            heun(x[parcel], here[0], here[1], drive, z[parcel % 2], c)


def integrate(memory, coupling, c, pulses, steps, samples):
    """Take what the package's integrator takes."""
    integrate_arrays(
        memory.x.reshape(-1, N_ROWS, N_LANES),
        memory.history.reshape(-1, N_LANES),
        memory.state.reshape(4, N_LANES),
        coupling,
        c,
        steps,
        samples.picks,
        samples.out,
    )


# --------------------------------------------------------------- timing


def time_both(duration, repeats):
    """Time both integrators in turn, coupled and not, in this process."""
    parcels = mne_deepsif.make_template_parcels()
    connectome = mne_deepsif.make_distance_connectome(parcels.centers, parcels.hemi)
    settings = dict(n_networks=N_LANES, n_jobs=1, transient=0.1, random_state=0)
    cases = {
        "994 coupled parcels": dict(connectome=connectome),
        "994 uncoupled parcels": dict(n_parcels=parcels.n_parcels),
    }
    integrators = {"vectors": _blocks._integrate, "plain": integrate}
    figures = {}
    for case, options in cases.items():
        seconds = {name: [] for name in integrators}
        first = {}
        for _ in range(repeats + 1):
            for name, integrator in integrators.items():
                _blocks._integrate = integrator
                start = time.process_time()
                psp = mne_deepsif.simulate_jansen_rit(duration, **options, **settings)
                seconds[name].append(time.process_time() - start)
                first.setdefault(name, psp)
        medians = {name: float(np.median(x[1:])) for name, x in seconds.items()}
        difference = np.abs(first["plain"] - first["vectors"]).max()
        figures[case] = {
            "processor seconds": medians,
            "plain over vectors": medians["plain"] / medians["vectors"],
            "largest difference (mV)": float(difference),
        }
    return figures


def time_elsewhere(environment, arguments):
    """Run :func:`time_both` in a process with other environment variables."""
    command = [sys.executable, "-m", "benchmarks.timing.lanes", "--here", *arguments]
    text = subprocess.run(
        command,
        check=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | environment,
    ).stdout
    return json.loads(text.splitlines()[-1])


def main():
    """Time, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--duration", type=float, default=2.0, help="s of activity")
    parser.add_argument("--here", action="store_true", help="only here, as JSON")
    args = parse_args(parser)
    if args.here:
        mne.set_log_level("ERROR")
        print(json.dumps(time_both(args.duration, args.repeats)))
        return
    arguments = ["--repeats", str(args.repeats), "--duration", str(args.duration)]
    record = provenance()
    record["figures"] = {
        name: time_elsewhere(environment, arguments)
        for name, environment in PROCESSORS.items()
    }
    for name, cases in record["figures"].items():
        for case, found in cases.items():
            print(f"{name}, {case}: plain loops {found['plain over vectors']:.2f} x")
    fname = args.results / "lanes.json"
    fname.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
