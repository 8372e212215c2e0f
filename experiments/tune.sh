#!/usr/bin/env bash
# An architecture search on Male at 64 pixels, with the CNNs of `nogs baselines` beside its trials.
#
#   bash experiments/tune.sh CELEBA OUT [TRIALS]      (CELEBA: a folder in the official layout; TRIALS: 60)
#
# Hardware: one core, no GPU, an hour. docs/results/README.md has what was measured. Killed, the same line goes on.
set -euo pipefail
celeba=$1 out=$2 trials=${3:-60}
export OMP_NUM_THREADS=1
uv run nogs tune --data "celeba:$celeba" --image-size 64 --task Male --method ram --trials "$trials" --iterations 1500 \
  --final-iterations 6000 --glimpse-sizes 8,12,16,24,32 --strides 4,8 --glimpses 1,2,3,4 --scales 1,2,3 \
  --hidden 32,64,128 --learning-rates 1e-3,5e-3 --out "$out" --resume
