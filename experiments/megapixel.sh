#!/usr/bin/env bash
# Five digits, of which three agree, among fifty lines on a canvas of 1500 pixels: learned gain maps against attention
# sampling, iterative patch selection and whole-image CNNs, from 1,000 training canvases.
#
#   bash experiments/megapixel.sh DIGITS OUT [DEVICE]      (DIGITS: an npz with images uint8 [N, 28, 28] and labels [N])
#
# Hardware: one accelerator (DEVICE cuda), on which the trainings run at the same time. At equal wall-clock, so set the
# iterations of each (GAIN, SAMPLING, SELECTION, CNN, SMALL_CNN) to what the hardware does in the same time: log.jsonl of each
# training has its seconds. Killed, the same line goes on.
set -euo pipefail
digits=$1 out=$2 device=${3:-auto}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2}
images=(--data "megapixel:$digits" --device "$device")
how=(--patience 0 --schedule cosine --resume)
rival() { # name, iterations, batch size, options
  uv run nogs baselines "${images[@]}" "${how[@]}" --no-upper-bound --learning-rates 1e-3 --iterations "$2" \
    --validate-every "$((($2 + 7) / 8))" --batch-size "$3" --out "$out/$1" "${@:4}"
}
uv run nogs train "${images[@]}" "${how[@]}" --method gain --glimpse-size 40 --stride 10 --glimpses 8 --overview 150 \
  --gain-candidates 32 --detail 0.9 --jitter 4 --learning-rate 2e-3 --iterations "${GAIN:-1200}" --out "$out/train/gain-seed0" &
rival attention-sampling "${SAMPLING:-5000}" 64 --architectures attention-sampling &
rival patch-selection "${SELECTION:-900}" 16 --architectures patch-selection &
rival cnn-750 "${CNN:-650}" 32 --architectures mobilenet-v2 --resolutions 750 --widths 0.5 &
rival cnn-375 "${SMALL_CNN:-2000}" 64 --architectures mobilenet-v2 --resolutions 375 --widths 0.5 &
wait
uv run nogs evaluate --models "$out/train/gain-seed0" --device "$device" --out "$out/evaluation" --resume
