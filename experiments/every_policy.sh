#!/usr/bin/env bash
# RAM, one designed path, PS-NOGS, learned gain after designed sequences, DIME and GDFS on CelebA, compared on the same
# test images after each glimpse.
#
#   bash experiments/every_policy.sh CELEBA OUT [SEED]      (CELEBA: a folder in the official layout)
#
# RAM has twice the iterations of the others, and no training is stopped before its last one. Hardware: two cores, two
# labels side by side; about half an hour a label. Killed, the same line goes on. Ends with a table.
set -euo pipefail
celeba=$1 out=$2 seed=${3:-1}
export OMP_NUM_THREADS=1
rows=(Smiling-64 Eyeglasses-64 Male-64 Bangs-64 Wearing_Hat-64 Bald-64 Smiling-128 Eyeglasses-128 Bangs-128)

one() { # label-pixels
  local images=(--data "celeba:$celeba" --task "${1%-*}" --image-size "${1#*-}") out="$out/$1" models=()
  uv run nogs run "${images[@]}" --jobs 1 --out "$out" --resume --seeds "$seed" --no-stopping --patience 0 \
    --iterations 5000 --reference-iterations 10000 --methods ram,path,ps-nogs,gain-nogs,dime
  uv run nogs train "${images[@]}" --method gdfs --seed "$seed" --patience 0 --iterations 3000 --out "$out/gdfs" --resume
  for method in ram path ps-nogs gain-nogs dime; do models+=("$out/train/$method-seed$seed"); done
  uv run nogs evaluate --models "${models[@]}" "$out/gdfs" --out "$out/every-policy-seed$seed" --resume
}

for row in "${rows[@]}"; do
  (($(jobs -rp | wc -l) < 2)) || wait -n
  one "$row" &
done
wait
evaluations=()
for row in "${rows[@]}"; do evaluations+=("$out/$row/every-policy-seed$seed"); done
uv run python experiments/every_policy.py "${evaluations[@]}"
