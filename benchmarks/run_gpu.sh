#!/usr/bin/env bash
# The tests, the sanitizers and the benchmarks on an NVIDIA GPU, within ten minutes: benchmarks/run_gpu.sh [--rehearse].
# It writes benchmarks/results/gpu.json and its tables, or, without a GPU, says so and writes nothing.
# Before: pip install -e '.[bench,test,gpu13]' (or gpu12), jax[cuda13] and torch, each with CUDA; those that miss are left
# out, as is compute-sanitizer, of CUDA's toolkit, where it is not in the PATH.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-python3}
[ -x .venv/bin/python ] && [ "$PYTHON" = python3 ] && PYTHON=.venv/bin/python
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
exec timeout --kill-after=10 600 "$PYTHON" benchmarks/on_gpu.py --seconds 540 "$@"
