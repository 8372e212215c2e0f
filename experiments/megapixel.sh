#!/usr/bin/env bash
# Five digits, of which three agree, among fifty lines on a canvas of 1500 pixels: learned gain maps against attention
# sampling, iterative patch selection and whole-image CNNs, from 1,000 training canvases.
#
#   bash experiments/megapixel.sh DIGITS OUT [DEVICE]      (DIGITS: an npz with images uint8 [N, 28, 28] and labels [N])
#
# Hardware: one accelerator (DEVICE cuda), which the trainings share, all at the same time. The numbers of iterations
# are those that take about the same time there; log.jsonl of each training has its seconds. Killed, the same line goes on.
set -euo pipefail
digits=$1 out=$2 device=${3:-auto}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
images=(--data "megapixel:$digits" --device "$device" --patience 0 --resume)
fit=(uv run nogs baselines "${images[@]}" --no-upper-bound --validate-every 250)
uv run nogs train "${images[@]}" --method gain --glimpse-size 40 --stride 10 --glimpses 10 --overview 150 --hidden 128 \
  --gain-candidates 16 --iterations "${GAIN:-5000}" --schedule cosine --learning-rate 2e-3 --out "$out/train/gain-seed0" &
"${fit[@]}" --architectures attention-sampling --learning-rates 1e-3 --batch-size 64 --iterations "${SAMPLING:-8000}" \
  --out "$out/attention-sampling" &
"${fit[@]}" --architectures patch-selection --learning-rates 1e-3 --batch-size 16 --iterations "${SELECTION:-4000}" \
  --out "$out/patch-selection" &
"${fit[@]}" --architectures mobilenet-v2 --resolutions 375,750 --widths 0.5 --learning-rates 1e-3 --batch-size 32 \
  --iterations "${CNN:-3000}" --out "$out/cnns" &
wait
uv run nogs evaluate "$out/train/gain-seed0" --device "$device" --out "$out/evaluation" --resume
