#!/usr/bin/env bash
# What needs a GPU: tests/gpu/run.sh [build] [tests] [sanitize] [bench]   (default: all)
#
# Needs torch, numpy, pytest, hypothesis, pybind11, safetensors, rich, pillow and nvcc; not the
# installed package. Every part runs, whatever fails before it; logs go to $OUT, or build/gpu.
# Where a call may last ten minutes, give `build tests bench` first and `sanitize` after it.
# PCNN_GPU_DEVICE=cpu rehearses it where there is no GPU.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=${OUT:-build/gpu}
mkdir -p "$out"
python=$(command -v python3 || command -v python)
device=${PCNN_GPU_DEVICE:-cuda}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
parts=("${@:-all}")
log="$out/gpu.log"
: >"$log"

wanted() { [[ " ${parts[*]} " == *" all "* || " ${parts[*]} " == *" $1 "* ]]; }

# part NAME SECONDS COMMAND...: its output goes into the log; its outcome is printed at once.
part() {
    local name=$1 limit=$2 began=$SECONDS status last outcome=ok
    shift 2
    printf '\n==== %s\n$ %s\n' "$name" "$*" >>"$log"
    timeout -k 5 "$limit" "$@" 2>&1 | tee "$out/part.log" >>"$log"
    status=${PIPESTATUS[0]}
    # pytest's own line, if there is one: compute-sanitizer writes more after it.
    last=$(grep -E '[0-9]+ (passed|failed|skipped)' "$out/part.log" | tail -1)
    # A run that skipped everything proved nothing.
    if [[ $status != 0 || ($last == *skipped* && $last != *passed*) ]]; then outcome=FAIL; fi
    last=${last:-$(grep -v '^\s*$' "$out/part.log" | tail -1)}
    printf '%-10s %-5s %4ss  %.150s\n' "$name" "$outcome" $((SECONDS - began)) "$last" | tee -a "$log"
    if [[ $outcome != ok ]]; then
        failed=1
        grep -E '^(FAILED|ERROR) ' "$out/part.log" | head -6 | sed 's/^/           /' | cut -c1-160
    fi
    ran=1
    rm -f "$out/part.log"
}

failed=0
ran=0
marks=(-m cuda)
files=(tests)
if [[ $device == cpu ]]; then marks=(-k "not gpu" -m "not train and not engines"); files=(tests/engines/test_cuda_graphs.py tests/engines/test_folding.py tests/ops/test_decode_faces.py); fi
if wanted build; then
    arch=${PCNN_CUDA_ARCHS:-$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())' 2>/dev/null || echo 90)}
    part build 120 env PCNN_CUDA=1 PCNN_CUDA_ARCHS="$arch" "$python" setup.py -q build_ext --inplace
fi
if wanted tests; then
    part tests 200 "$python" -m pytest -q -p no:cacheprovider --durations=8 "${marks[@]}" "${files[@]}"
fi
if wanted sanitize && [[ $device != cpu ]]; then
    # The kernels have no shared memory, so that racecheck would find nothing.
    part memcheck 240 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 "PATH=$PATH:/usr/local/cuda/bin" \
        compute-sanitizer --tool memcheck --report-api-errors no --error-exitcode 1 \
        "$python" -m pytest -q -p no:cacheprovider -m cuda tests/ops/test_cuda.py -k kernels
fi
if wanted bench; then
    part bench_ops 90 "$python" benchmarks/bench_ops.py --quick --device "$device" --json "$out/ops-gpu.json"
    part bench_gpu 150 "$python" benchmarks/bench_gpu.py --device "$device" --json "$out/gpu.json"
fi
if [[ $ran == 0 ]]; then
    echo "nothing ran: parts are build, tests, sanitize, bench" >&2
    exit 2
fi
exit $failed
