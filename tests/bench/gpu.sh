#!/usr/bin/env bash
# All that takes a GPU, in one call of at most ten minutes: model-amplify's tests and the parity folder on it, training steps
# beside PyTorch's best form, and a run of six clients of the 120M shape. A part that fails or takes too long does not stop
# the others. The tables go to stdout, what the parts say to files in target/gpu.
#
# It needs: Linux on x86-64 with an NVIDIA driver and one GPU; `make setup FEDPLUG_CUDA=1` done, which brings PyTorch with
# CUDA along, so that no network is needed; the builds below done before (`make bench-gpu` builds first), else they take
# their time out of these ten minutes. FEDPLUG_SHARED names the folder whose parity/ holds what the published code computes;
# without it that part says that it was left out. FEDPLUG_TORCH_PYTHON may name another Python with PyTorch for its side.
#
#   make bench-gpu                   all parts
#   tests/bench/gpu.sh steps run     some of: tests, parity, steps, run
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2
out=target/gpu
mkdir -p "$out"
# What an earlier call left is not this one's.
rm -rf "$out"/*.out "$out"/*.err "$out"/samples.csv "$out"/runs
python=${FEDPLUG_TORCH_PYTHON:-${PYTHON:-python3}}
[ -n "${FEDPLUG_TORCH_PYTHON:-}" ] || export PYTHONPATH="$PWD/.libtorch/site"
cargo=${CARGO:-cargo}
step=target/release/examples/step
parts=${*:-tests parity steps run}
began=$SECONDS

why() {
    { grep -hm1 -iE 'error|panicked|failed' "$out/$1.err" "$out/$1.out" || cat "$out/$1.err"; } | head -1 | cut -c1-120
}

# part NAME LIMIT COMMAND...: one line of the first table, and the command's words in a file.
part() {
    local name=$1 limit=$2 start=$SECONDS code=0
    shift 2
    timeout --kill-after=5 "$limit" "$@" >"$out/$name.out" 2>"$out/$name.err" || code=$?
    case $code in
        0) told=done ;;
        124 | 137) told="not done after $limit s" ;;
        *) told="failed with code $code: $(why "$name")" ;;
    esac
    echo "| $name | $told | $((SECONDS - start)) s |"
    return $code
}

wanted() { [[ " $parts " == *" $1 "* ]]; }

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo "no nvidia-smi: is there a driver?"
echo
echo "| part | outcome | time |"
echo "|---|---|---|"
export FEDPLUG_TEST_DEVICE=cuda:0
if wanted tests; then
    part tests 120 "$cargo" test -p model-amplify --release --no-fail-fast -- --nocapture
fi
if wanted parity; then
    if [ -d "${FEDPLUG_SHARED:-}/parity" ]; then
        part parity 50 "$cargo" test -p model-amplify --release --test parity -- --nocapture
        part parity-torch 30 "$python" tests/bench/torch_step.py --check "$FEDPLUG_SHARED/parity/amplify-swiglu"
    else
        echo "| parity | skipped: FEDPLUG_SHARED names no folder with parity/ | |"
    fi
fi
if wanted steps; then
    of="--size 120M --batch 64 --steps 10"
    for precision in fp32 tf32 bf16; do
        part "ours-$precision" 25 "$step" $of --device cuda:0 --precision $precision
    done
    torch="$python tests/bench/torch_step.py $of --device cuda"
    part torch-reference-fp32 25 $torch --style reference
    part torch-reference-tf32 25 $torch --style reference --precision tf32
    part torch-tuned-bf16 25 $torch --style tuned --precision bf16
    part torch-best 100 $torch --style tuned --precision bf16 --compile
fi
if wanted run; then
    nvidia-smi --query-gpu=utilization.gpu,memory.used --format=csv,noheader,nounits -lms 500 >"$out/samples.csv" 2>/dev/null &
    sampler=$!
    part run 100 target/release/fedplug run configs/fedavg_multitask.toml --force --output "$out/runs" \
        --set dataset.root=configs/sample --set federation.rounds=5 --set 'federation.devices=["cuda:0"]' \
        --set 'model.pretrained={ hidden-size = 640, layers = 24, heads = 10, intermediate-size = 2560 }'
    kill $sampler 2>/dev/null
fi

echo
python3 - "$out" <<'TABLE'
import json
import pathlib
import sys

out = pathlib.Path(sys.argv[1])
steps = {}
for path in sorted([*out.glob("ours-*.out"), *out.glob("torch-*.out")]):
    for line in path.read_text().splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if "median_s" in found:
            steps[path.stem] = found
print("| 120M, batch 64, a training step | median (ms) | least–most | tokens a second | memory (MiB) |\n|---|---|---|---|---|")
for name, of in steps.items():
    low, high = (of[key] * 1000 for key in ("min_s", "max_s"))
    memory = of.get("peak_memory_MiB") if name.startswith("torch") else ""  # Ours is that of the process, not the GPU's.
    print(f"| {name} | {of['median_s'] * 1000:.1f} | {low:.1f}–{high:.1f} | {of['tokens_per_s']:.0f} | {memory} |")


def target(what, theirs, ours, least):
    if theirs in steps and ours in steps:
        ratio = steps[theirs]["median_s"] / steps[ours]["median_s"]
        print(f"| {what} | {least} | {ratio:.2f} | {'met' if ratio >= least else 'missed'} |")
    else:
        lacking = [name for name in (theirs, ours) if name not in steps]
        print(f"| {what} | {least} | not measured: {', '.join(lacking)} | |")


print("\n| times as fast as | target | here | |\n|---|---|---|---|")
target("the published example's style in fp32 (ours: bf16)", "torch-reference-fp32", "ours-bf16", 5)
target("the published example's style in fp32 (ours: fp32)", "torch-reference-fp32", "ours-fp32", 1)
target("PyTorch's best form: tuned, bf16, compiled (ours: bf16)", "torch-best", "ours-bf16", 1.1)

summary = next(iter(sorted(out.glob("runs/*/summary.json"))), None)
samples = out / "samples.csv"
if summary:
    told = json.loads(summary.read_text())
    rows = [line.split(",") for line in samples.read_text().splitlines()] if samples.exists() else []
    work, memory = [], []
    for row in rows:
        try:
            work.append(float(row[0]))
            memory.append(float(row[1]))
        except (ValueError, IndexError):
            continue
    print("\n| six clients of the 120M shape | |\n|---|---|")
    print(f"| rounds an hour, start and end included | {told['rounds'] / told['seconds'] * 3600:.0f} |")
    print(f"| the process's memory | {(told.get('peak-memory-bytes') or 0) / 2**20:.0f} MiB |")
    if work:
        print(f"| the GPU's memory, at most | {max(memory):.0f} MiB |")
        print(f"| share of time that the GPU works | {sum(work) / len(work):.0f} % |")
else:
    print("\nsix clients: not a finished run")
TABLE
echo
echo "$((SECONDS - began)) s in all; the output of the parts is in $out"
