#!/usr/bin/env bash
# Stopping by the gain map against stopping heads and every rival rule, on needles and on two labels of CelebA.
#
#   bash experiments/map_stopping.sh DIGITS CELEBA OUT
#
# DIGITS: an npz with images uint8 [N, 28, 28] and labels [N]. CELEBA: a folder in the official layout. One seed each.
# Hardware: one core, no GPU, 20 minutes. docs/results/README.md has what was measured. Killed, the same line goes on.
set -euo pipefail
digits=$1 celeba=$2 out=$3
mkdir -p "$out"
export OMP_NUM_THREADS=1

judge() { # name of a training: its stopping heads, and all rules on the test split
  uv run nogs fit-stopping --model "$out/$1" --out "$out/$1-stopping" --resume
  uv run nogs evaluate --models "$out/$1" --stopping "$out/$1-stopping" --out "$out/$1-evaluation" --resume
}

uv run nogs train --data "needles:$digits" --glimpse-size 32 --stride 4 --glimpses 3 --overview 32 --method gain \
  --iterations 1500 --schedule cosine --learning-rate 2e-3 --patience 0 --out "$out/needles" --resume
judge needles
for task in Smiling Eyeglasses; do
  images=(--data "celeba:$celeba" --image-size 64 --task "$task")
  geometry=(--glimpse-size 8 --stride 4 --glimpses 5)
  uv run nogs fit-posterior "${images[@]}" "${geometry[@]}" --batch-size 128 --iterations 2000 --learning-rate 2e-3 \
    --out "$out/$task-posterior" --resume
  uv run nogs build-bank "${images[@]}" --out "$out/$task-bank" --resume
  uv run nogs search --posterior "$out/$task-posterior" --bank "$out/$task-bank" --out "$out/$task-sequences" --resume
  uv run nogs train "${images[@]}" "${geometry[@]}" --method gain-nogs --sequences "$out/$task-sequences" \
    --exploration 0.02 --iterations 2000 --schedule cosine --patience 0 --out "$out/$task" --resume
  judge "$task"
done
