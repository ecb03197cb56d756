#!/usr/bin/env bash
# What needs a GPU, in one call: tests/gpu/run.sh [build] [tests] [sanitize] [bench]   (default: all)
#
# Needs torch, numpy, pytest, hypothesis, pybind11, safetensors, rich, pillow and nvcc; not the
# installed package. Every part runs, whatever fails before it; logs go to $OUT, or build/gpu.
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
summary=()

wanted() { [[ " ${parts[*]} " == *" all "* || " ${parts[*]} " == *" $1 "* ]]; }

# part NAME SECONDS COMMAND...: its output goes into the log, its outcome into the summary.
part() {
    local name=$1 limit=$2 began=$SECONDS status
    shift 2
    printf '\n==== %s\n$ %s\n' "$name" "$*" >>"$log"
    timeout -k 5 "$limit" "$@" >"$out/part.log" 2>&1
    status=$?
    cat "$out/part.log" >>"$log"
    local last
    last=$(grep -v '^\s*$' "$out/part.log" | tail -1 | cut -c1-150)
    # A run that skipped everything proved nothing.
    if [[ $status == 0 && $last == *skipped* && $last != *passed* ]]; then status=none; fi
    summary+=("$(printf '%-10s %-5s %4ss  %s' "$name" "$([[ $status == 0 ]] && echo ok || echo "FAIL")" \
        $((SECONDS - began)) "$last")")
    if [[ $status != 0 ]]; then
        failed=1
        while read -r line; do summary+=("           $line"); done \
            < <(grep -E '^(FAILED|ERROR) ' "$out/part.log" | head -6 | cut -c1-150)
    fi
    rm -f "$out/part.log"
}

failed=0
marks=(-m cuda)
files=(tests)
if [[ $device == cpu ]]; then marks=(-k "not gpu" -m "not train and not engines"); files=(tests/engines/test_cuda_graphs.py tests/engines/test_folding.py tests/ops/test_decode_faces.py); fi
if wanted build; then
    arch=${PCNN_CUDA_ARCHS:-$("$python" -c 'import torch; print("%d%d" % torch.cuda.get_device_capability())' 2>/dev/null || echo 90)}
    part build 240 env PCNN_CUDA=1 PCNN_CUDA_ARCHS="$arch" "$python" setup.py -q build_ext --inplace
fi
if wanted tests; then
    part tests 240 "$python" -m pytest -q -p no:cacheprovider --durations=8 "${marks[@]}" "${files[@]}"
fi
if wanted sanitize && command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
        part "$tool" 240 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$tool" \
            --error-exitcode 1 "$python" -m pytest -q -p no:cacheprovider "${marks[@]}" "${files[@]}" -k kernels
    done
fi
if wanted bench; then
    part bench_ops 150 "$python" benchmarks/bench_ops.py --device "$device" --json "$out/ops-gpu.json"
    part bench_gpu 200 "$python" benchmarks/bench_gpu.py --device "$device" --json "$out/gpu.json"
fi
if [[ ${#summary[@]} == 0 ]]; then
    echo "nothing ran: parts are build, tests, sanitize, bench" >&2
    exit 2
fi
printf '\n%s\n' "${summary[@]}" | tee -a "$log"
exit $failed
