#!/usr/bin/env bash
# 100, 300 and 1,000 labelled faces with all others unlabelled: completions, learned maps, RAM and whole-image CNNs.
#
#   bash experiments/few_labels.sh CELEBA OUT      (CELEBA: a folder in the official layout)
#
# Two draws of the labelled images for each label. Hardware: one core, some four minutes a table if it is idle, twelve
# tables. Killed, the same line goes on. Ends with a table.
set -euo pipefail
celeba=$1 out=$2
export OMP_NUM_THREADS=1
for draw in 0 1; do
  uv run python experiments/few_labels.py draw "$celeba" "$out" "$draw"
  for task in Smiling Eyeglasses; do
    for labelled in 100 300 1000; do
      uv run python experiments/few_labels.py train "$out" "$draw" "$labelled" "$task"
    done
  done
done
uv run python experiments/few_labels.py table "$out"
