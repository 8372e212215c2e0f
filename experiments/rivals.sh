#!/usr/bin/env bash
# Rivals at their best on CelebA at 64 pixels: WS-RAM with an entropy bonus, the paper's own PS-NOGS, ACT trained with the
# network, and labels with a rare class beside small CNNs.
#
#   bash experiments/rivals.sh CELEBA OUT      (CELEBA: a folder in the official layout)
#
# The paper's own: a posterior that is a CNN on the masked image, expected posterior entropy, no pooling, and designed
# glimpses that train the classifier too. Hardware of docs/results/README.md: 16 cores, a training on each, and an
# accelerator for the CNNs and for that posterior and its search; in all 12 minutes. ACT and Bald: two cores, two hours.
# Killed, the same line goes on.
set -euo pipefail
celeba=$1 out=$2
at_once=${AT_ONCE:-2}
export OMP_NUM_THREADS=1
geometry=(--glimpse-size 8 --stride 4 --glimpses 5)
seeds=(0 1 2)
mkdir -p "$out"

data() { echo "--data celeba:$celeba --image-size 64 --task $1"; }
train() { # task, method, seed, directory, the rest as flags
  # shellcheck disable=SC2046
  uv run nogs train $(data "$1") "${geometry[@]}" --method "$2" --seed "$3" --patience 0 --device cpu \
    --out "$out/$4" --resume "${@:5}"
}
side_by_side() { # wait while as many trainings as there are cores are running
  while (($(jobs -rp | wc -l) >= at_once)); do wait -n; done
}
design() { # task, directory, the rest as flags of fit-posterior: posterior, bank and designed sequences
  # shellcheck disable=SC2046
  uv run nogs fit-posterior $(data "$1") "${geometry[@]}" --batch-size 128 --out "$out/$2-posterior" --resume "${@:3}"
  # shellcheck disable=SC2046
  uv run nogs build-bank $(data "$1") --out "$out/$2-bank" --resume
}
search() { # directory of posterior and bank, directory of sequences, the rest as flags
  uv run nogs search --posterior "$out/$1-posterior" --bank "$out/$1-bank" --out "$out/$2" --resume "${@:3}"
}
score() { # directory, the rest as names of trainings
  local models=()
  for name in "${@:2}"; do models+=("$out/$name"); done
  uv run nogs evaluate --models "${models[@]}" --out "$out/$1" --resume
}
of_seeds() { for seed in "${seeds[@]}"; do echo "$1-seed$seed"; done; }

for task in Smiling Male; do
  design "$task" "$task-paper" --posterior avp-cnn --iterations 2500 --learning-rate 1e-3
  search "$task-paper" "$task-paper" --pooling 0 --criterion epe
done
for task in Mustache Bald Smiling; do
  design "$task" "$task" --iterations 3000 --learning-rate 2e-3
  search "$task" "$task"
  search "$task" "$task-path" --pooling 1
done

for seed in "${seeds[@]}"; do
  for task in Smiling Male Eyeglasses; do
    side_by_side
    train "$task" ws-ram "$seed" "$task-ws-ram-seed$seed" --iterations "$([ "$task" = Eyeglasses ] && echo 4500 || echo 7000)" &
  done
  for task in Smiling Male; do
    side_by_side
    train "$task" ps-nogs "$seed" "$task-paper-seed$seed" --iterations 5000 --supervision published \
      --sequences "$out/$task-paper" &
  done
  for task in Mustache Bald; do
    side_by_side
    train "$task" ram "$seed" "$task-ram-seed$seed" --iterations "$([ "$task" = Bald ] && echo 4000 || echo 8000)" &
    side_by_side
    train "$task" ps-nogs "$seed" "$task-ps-nogs-seed$seed" --iterations "$([ "$task" = Bald ] && echo 2500 || echo 5000)" \
      --sequences "$out/$task" &
    side_by_side
    train "$task" path "$seed" "$task-path-seed$seed" --iterations "$([ "$task" = Bald ] && echo 2500 || echo 4000)" \
      --sequences "$out/$task-path" &
  done
done
wait
for task in Mustache Bald; do
  # shellcheck disable=SC2046
  uv run nogs baselines $(data "$task") --resolutions 24,48 --widths 0.05,0.15,0.5 --learning-rates 0.004 \
    --batch-size 512 --iterations 1000 --validate-every 50 --patience 0 --no-upper-bound --out "$out/$task-cnns" --resume
done

train Smiling ps-nogs 0 Smiling-ps-nogs-seed0 --iterations 4000 --sequences "$out/Smiling"
uv run nogs fit-stopping --model "$out/Smiling-ps-nogs-seed0" --out "$out/Smiling-stopping-seed0" --resume
joint=()
for cost in 0.002 0.01 0.04; do
  train Smiling act 0 "Smiling-act-$cost-seed0" --iterations 4000 --halting-cost "$cost" --sequences "$out/Smiling"
  joint+=("$out/Smiling-act-$cost-seed0")
done

# shellcheck disable=SC2046
{
  for task in Smiling Male; do score "$task-evaluation" $(of_seeds "$task-ws-ram") $(of_seeds "$task-paper"); done
  score Eyeglasses-evaluation $(of_seeds Eyeglasses-ws-ram)
  for task in Mustache Bald; do
    score "$task-evaluation" $(of_seeds "$task-ram") $(of_seeds "$task-ps-nogs") $(of_seeds "$task-path")
  done
}
uv run nogs evaluate --models "$out/Smiling-ps-nogs-seed0" --stopping "$out/Smiling-stopping-seed0" \
  --halting "${joint[@]}" --out "$out/Smiling-act-evaluation" --resume
