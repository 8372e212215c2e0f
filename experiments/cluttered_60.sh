#!/usr/bin/env bash
# Cluttered translated MNIST at 60 pixels with an overview, averaged weights and 128 hidden units: learned gain and RAM.
#
#   bash experiments/cluttered_60.sh DIGITS OUT      (DIGITS: an npz with images uint8 [N, 28, 28] and labels [N])
#
# Hardware: two cores, no GPU, a training of 7 to 13 minutes on each. docs/results/README.md has what was measured with 10,000
# digits. Killed, the same line goes on.
set -euo pipefail
digits=$1 out=$2
mkdir -p "$out"
export OMP_NUM_THREADS=1
data="$out/cluttered-60.npz"
[ -f "$data" ] || uv run python experiments/cluttered_mnist.py "$digits" "$data" --canvas 60
uv run nogs run --data "npz:$data" --glimpse-size 28 --stride 4 --glimpses 3 --overview 30 --hidden 128 --methods gain,ram \
  --seeds 0,1 --iterations 5000 --schedule cosine --learning-rate 2e-3 --average 0.999 --patience 0 --validate-every 250 \
  --jobs 2 --out "$out/overview-60" --resume
