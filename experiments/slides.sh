#!/usr/bin/env bash
# Synthetic slides with a lesion of 1e-4 of the area: cost of training from tiles, and accuracy of learned gain.
#
#   bash experiments/slides.sh OUT [COUNT] [ITERATIONS]
#
# COUNT: slides of 2,000 x 2,000 pixels, 0.65 MB and a tenth of a second each (20000). ITERATIONS: 2500. Hardware: one
# core. docs/large-images.md has what was measured. Killed, the same line goes on.
set -euo pipefail
out=$1 count=${2:-20000} iterations=${3:-2500}
export OMP_NUM_THREADS=1
uv run nogs slides --count "$count" --side 2000 --lesion-share 1e-4 --out "$out/slides" --resume
uv run python benchmarks/tiles.py "csv:$out/slides/labels.csv" | tee "$out/steps.json"
uv run nogs train --data "csv:$out/slides/labels.csv" --image-size 2000 --glimpse-size 32 --stride 8 --glimpses 4 \
  --overview 128 --method gain --gain-candidates 16 --detail 0.9 --learning-rate 2e-3 --schedule cosine \
  --batch-size 32 --iterations "$iterations" --validate-every 100 --patience 0 --device cpu --out "$out/train" --resume
uv run nogs evaluate --models "$out/train" --device cpu --out "$out/evaluation" --resume
