#!/usr/bin/env bash
# One digit anywhere on a 256-pixel canvas among 24 fragments: learned gain maps and RAM, with the same network.
#
#   bash experiments/needles.sh DIGITS OUT [METHODS] [ITERATIONS]
#
# DIGITS: an npz with images uint8 [N, 28, 28] and labels [N]. METHODS: gain,ram. ITERATIONS: 2000.
#
# Three glimpses of 32 pixels at 3,249 locations over a 32-pixel overview, three seeds. Hardware: two cores, no GPU, a
# training on each. docs/results/README.md has what was measured with 10,000 digits. Killed, the same line goes on.
set -euo pipefail
digits=$1 out=$2 methods=${3:-gain,ram} iterations=${4:-2000}
export OMP_NUM_THREADS=1
uv run nogs run --data "needles:$digits" --glimpse-size 32 --stride 4 --glimpses 3 --overview 32 --methods "$methods" \
  --seeds 0,1,2 --iterations "$iterations" --schedule cosine --learning-rate 2e-3 --patience 0 --jobs 2 --out "$out" --resume
