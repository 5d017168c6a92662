#!/usr/bin/env bash
# Makes the stored results again, one after the other, from a clean commit.
#
#     bash benchmarks/making/records.sh OUT [NAME ...]
#
# OUT gets results and figures. So the tree stays clean, and all of them name its commit.
# NAMEs choose some of the results below. A stopped run goes on where it was: what is done
# at this commit has a file in OUT/done. At the end, the script says how to put them in
# place. Comments are minutes on two cores that others used as well ("?": not measured).
#
# Not made here: ablation.json (needs the bundle of `benchmarks.making.weights`),
# training_gpu.json (a GPU; gpu.sh) and spectrum_tvb.json (The Virtual Brain).
set -euo pipefail

mkdir -p "$1"
out=$(cd "$1" && pwd)
shift
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[ -z "$(git status --porcelain -uno)" ] || { echo "Commit first." >&2; exit 1; }
done=$out/done/$(git rev-parse --short HEAD)
mkdir -p "$done"
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=1 PYTHONUNBUFFERED=1
wanted=("$@")

record() { # NAME MODULE [OPTION ...]
    local name=$1
    [ "${#wanted[@]}" = 0 ] || [[ " ${wanted[*]} " = *" $name "* ]] || return 0
    [ ! -e "$done/$name" ] || return 0
    local began=$SECONDS
    "${PYTHON:-python}" -m "benchmarks.$2" "${@:3}" --results "$out" >"$out/$name.log" 2>&1 ||
        { echo "$name failed; see $out/$name.log" >&2; exit 1; }
    touch "$done/$name"
    printf '%-16s %4d min\n' "$name" $(((SECONDS - began + 30) / 60))
}

suite() { # NAME OPTION ...: part of the comparison, whose cells are kept, too
    record "$1" comparison "${@:2}" --name "$1" --jobs 2 --store "$out/store" # ?
}

linear="DeepSIF MNE dSPM sLORETA eLORETA"
suite comparison --groups radius early several weak silence --methods $linear # 33
suite conditions --groups radius level pair --only "sample eeg, error all" \
    --methods DeepSIF dSPM sLORETA eLORETA # ?
suite papers --groups papers helmets --methods DeepSIF sLORETA --n 24 # ?
suite slow --groups slow --n 8 --methods DeepSIF sLORETA LCMV MxNE CMEM FAST-IRES # ?

record changes studies.changes --heads 1 # 46
record extents making.extents test # ?
record fast_activity studies.fast_activity # 4
record geometry studies.geometry --n 10 # ?
record jansen_rit studies.jansen_rit # ?
record mutated_files studies.mutated_files # ?
record order studies.order # 9
record personalisation studies.personalisation # ?
record published studies.published --minutes 2.5 --n 24 # ?
record readers studies.readers # 4
record real_extents studies.real_extents # 1
record real_trust studies.real_trust # 4
record shifted_caps studies.shifted_caps # 4
# its times compare with an older checkout (--tree), so they are kept
[ -e "$out/start.json" ] || cp benchmarks/results/start.json "$out"
record start studies.start loss # ?
record trust making.trust test --n 120 # ?
record variants studies.variants # ?

# speed: only on an idle machine
record apply timing.apply --runs 3 --minutes 5 # ?
record cohort timing.cohort --n 4 --repeats 1 # ?
record lanes timing.lanes --repeats 7 # ?
record latency timing.latency # ?
record library timing.library # 4
record exported timing.exported --compile # ?; needs onnxruntime

cat <<END
All is done. Look at $out, then:
    cp $out/*.{csv,json,md,txt} benchmarks/results
    cp $out/*.png doc/figures
and make the model card again (python -m benchmarks.making.release generic).
END
