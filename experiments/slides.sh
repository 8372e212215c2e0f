#!/usr/bin/env bash
# Synthetic slides: what training from tiles costs, and the accuracy of learned gain.
#
#   bash experiments/slides.sh OUT [COUNT]
#
# COUNT: slides of 2,000 x 2,000 pixels with lesions of 1e-4 of the area, on which steps are timed; 0.65 MB and a tenth of
# a second each (20000). The accuracy is on 1,500 others with lesions of 1.5e-3 of the area, 900 of them for training.
# Hardware: one core, half an hour. docs/large-images.md has what was measured. Killed, the same line goes on.
set -euo pipefail
out=$1 count=${2:-20000}
export OMP_NUM_THREADS=1
uv run nogs slides --count "$count" --side 2000 --lesion-share 1e-4 --out "$out/small" --resume
uv run python benchmarks/tiles.py "csv:$out/small/labels.csv" --warm-up 18 | tee "$out/steps.json"
uv run nogs slides --count 1500 --side 2000 --lesion-share 1.5e-3 --out "$out/large" --resume
uv run nogs train --data "csv:$out/large/labels.csv" --image-size 2000 --glimpse-size 64 --stride 32 --glimpses 4 \
  --overview 64 --method gain --gain-candidates 8 --detail 0.9 --learning-rate 2e-3 --schedule cosine --batch-size 32 \
  --iterations 900 --validate-every 100 --patience 0 --device cpu --out "$out/train" --resume
uv run nogs evaluate --models "$out/train" --device cpu --out "$out/evaluation" --resume
