#!/usr/bin/env bash
# A pointer to the label's place among three digits: learned gain maps that look ahead of the next glimpse, and others.
#
#   bash experiments/pointers.sh DIGITS OUT      (DIGITS: an npz with images uint8 [N, 28, 28] and labels [N])
#
# For ten places give --image-size 128 and --gain-candidates 16: docs/log.md says what bounds that. Hardware: two cores, no
# GPU, minutes. docs/results/README.md has what was measured with 10,000 digits. Killed, the same line goes on.
set -euo pipefail
digits=$1 out=$2
export OMP_NUM_THREADS=1

one() { # name, weight of the best gain after a glimpse
  uv run nogs train --data "pointers:$digits" --image-size 64 --glimpse-size 32 --stride 32 --glimpses 3 --method gain \
    --foresight "$2" --gain-candidates 4 --exploration 0.3 --initial he --iterations 800 --schedule cosine \
    --learning-rate 2e-3 --patience 0 --out "$out/$1" --resume
}

one foresight 0.9 &
one one-step 0 &
wait
uv run python experiments/pointers.py "$out/foresight" "$out/one-step"
