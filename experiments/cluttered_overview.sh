#!/usr/bin/env bash
# Cluttered translated MNIST at 100 pixels with an overview: learned gain maps and RAM, with the same network.
#
#   bash experiments/cluttered_overview.sh DIGITS OUT      (DIGITS: an npz with images uint8 [N, 28, 28] and labels [N])
#
# Hardware: two cores, no GPU, a training on each. docs/results/README.md has what was measured with 10,000 digits.
# Killed, the same line goes on.
set -euo pipefail
digits=$1 out=$2
mkdir -p "$out"
export OMP_NUM_THREADS=1
data="$out/cluttered-100.npz"
[ -f "$data" ] || uv run python experiments/cluttered_mnist.py "$digits" "$data" --canvas 100
uv run nogs run --data "npz:$data" --glimpse-size 28 --stride 4 --glimpses 3 --overview 25 --methods gain,ram --seeds 0,1 \
  --iterations 2500 --schedule cosine --learning-rate 2e-3 --patience 0 --jobs 2 --out "$out/overview-100" --resume
