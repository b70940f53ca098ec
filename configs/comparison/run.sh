#!/usr/bin/env bash
# Methods and baselines on FLAb's data, each with three seeds and five folds: the tables and figures of docs/src/comparison.md.
#
#   configs/comparison/run.sh [FLAb/data] [runs/comparison]
#
# What is finished already is not run again.
set -euo pipefail

data=$(realpath "${1:-FLAb/data}")
output=${2:-runs/comparison}
fedplug=${FEDPLUG:-fedplug}
here=$(dirname "$0")

mkdir -p "$output"
output=$(realpath "$output")

# run NAME [ARGUMENTS]: the experiment with changes, under this name
run() {
  local name=$1 again=()
  shift
  if [ -d "$output/$name" ]; then again=(--resume); fi
  "$fedplug" run "$here/experiment.toml" --output "$output" --name "$name" --set "dataset.root=$data" "$@" "${again[@]}"
}

# baseline NAME MODEL [ARGUMENTS]
baseline() { run "$1" --set "model={ plugin = \"linear\", $2 }" --set 'filter=[]' --set federation.rounds=1 "${@:3}"; }
baseline mean 'method = "mean"'
baseline ridge-letters 'method = "pooled-ridge", kmer = 1, ridge-lambda = 1.0'
baseline ridge-2-mers 'method = "pooled-ridge", kmer = 2, ridge-lambda = 1.0'
# The letter at each position, whose Gram matrix is too large to send: the mean of the clients' own weights, and all rows at one
# place.
one_hot='method = "ridge", features = "one-hot", positions = [130, 113], ridge-lambda = 1.0'
baseline ridge-one-hot "$one_hot"
baseline ridge-one-hot-central "$one_hot" --set dataset.clients.count=1 --set dataset.max-samples=180

# Masked language modelling on the training rows of each fold; the files of `tm`, `binding` and `immunogenicity` have all
# antibodies. One seed, so all seeds of a fold start from the same trunk.
masked=(--set 'dataset.tasks=["binding", "immunogenicity", "tm"]' --set dataset.task-per=folder --set dataset.standardise=false
  --set dataset.max-samples=2000 --set model.objective=masked-lm --set 'filter=[]' --set federation.rounds=20
  --set federation.score=Perplexity --seeds 1)
run pre-training "${masked[@]}"
trained=(--set "model.pretrained=$output/pre-training/seed-1-fold-{fold}/best/export")

alone=(--set federation.rounds=1 --set federation.local-epochs=8)
frozen=(--set model.frozen-trunk=true)
lora=(--set 'model.lora={ rank = 8, targets = ["q", "k", "v", "wo", "w12", "w3"] }' --set model.trunk-lr=5e-3)

run frozen-random "${frozen[@]}"
run frozen-pre-trained "${frozen[@]}" "${trained[@]}"
run local "${alone[@]}"
run shared-heads --set 'filter=[]'
run private-heads
run private-heads-pre-trained "${trained[@]}"
run lora-pre-trained "${lora[@]}" "${trained[@]}"

# The first one is what the others are tested against.
methods=(ridge-letters ridge-2-mers ridge-one-hot ridge-one-hot-central mean frozen-random frozen-pre-trained local shared-heads private-heads
  private-heads-pre-trained lora-pre-trained)
"$fedplug" compare "${methods[@]/#/$output/}" --spread interval
"$fedplug" compare "$output/pre-training" --task tm
