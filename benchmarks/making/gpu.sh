#!/usr/bin/env bash
# Trains generic weights on one GPU within 12 minutes, from those of the package.
#
#     bash benchmarks/making/gpu.sh BUNDLE OUT [MINUTES]
#
# Run it in a clone of the repository. BUNDLE is what
# `python -m benchmarks.making.weights bundle` wrote. The machine needs PyTorch, NumPy,
# lazy_loader and safetensors, and no network; PYTHON names its interpreter, if that
# is not `python3`. OUT gets the weights in files of at most
# 14 MiB, a log and a record; the checkpoint, which is larger, stays in
# the folder RUN (a new one in /tmp, if it is not set), from which a stopped run goes on.
# `python -m benchmarks.making.weights export` makes a model file of them. On several GPUs,
# call the command below by `torchrun --nproc_per_node N -m` instead of Python's `-m`.
set -euo pipefail

bundle=$1 out=$2 minutes=${3:-9}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
run=${RUN:-$(mktemp -d)}
export PYTHONPATH=$root PYTHONUNBUFFERED=1

mkdir -p "$run" "$out"
"${PYTHON:-python3}" -m mne_deepsif.training "$bundle" "$run" --minutes "$minutes" \
    --start "$root/mne_deepsif/data/generic.safetensors" ${OPTIONS:-} | tee "$out/log.txt"
cp "$run"/weights-*.npz "$run"/record.json "$run"/log.jsonl "$out"
