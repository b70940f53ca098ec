#!/usr/bin/env bash
# All that takes a GPU, in one call of at most ten minutes: model-amplify's tests and the parity folders on it, training steps
# beside PyTorch's best forms, six clients of the 120M shape, and 350M. A part that fails or takes too long does not stop the
# others. The tables go to stdout and to summary.md, what the parts say to files beside it: in $OUT, or in results/ beside
# this script.
#
# `make gpu-bundle` builds target/gpu-bundle with this script as run.sh. That folder is all that the machine needs besides an
# NVIDIA driver and Python with PyTorch 2.11 for CUDA 13, whose libraries it uses: no cargo, no network. Name that Python by
# PYTHON if it is not `python3`. With FEDPLUG_SHARED, the folder whose parity/ holds what the published code computes, that is
# compared too. FEDPLUG_TEST_DEVICE=cpu tries the parts on the CPU, with small models.
#
#   run.sh                   all parts
#   run.sh steps run         some of: tests, parity, steps, run, large, torch
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ -f "$here/bundle.tar.gz" ] || { echo "error: no \`bundle.tar.gz\` beside this script; \`make gpu-bundle\` makes both" >&2; exit 2; }
python=${PYTHON:-python3}
seconds=${FEDPLUG_GPU_SECONDS:-570}
device=${FEDPLUG_TEST_DEVICE:-cuda:0}
parts=${*:-tests parity steps run large torch}
out=${OUT:-$here/results}
mkdir -p "$out"
# What an earlier call left is not this one's.
rm -rf "$out"/*.out "$out"/*.err "$out"/samples.csv "$out"/runs "$out"/summary.md
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -xzf "$here/bundle.tar.gz" -C "$work" || exit 2
cd "$work" || exit 2

# PyTorch's libraries find those of CUDA by themselves.
torch=$("$python" -c 'import importlib.util, pathlib; print(pathlib.Path(importlib.util.find_spec("torch").origin).parent)' 2>/dev/null)
if [ -z "$torch" ] || [ ! -f "$torch/lib/libtorch_cpu.so" ]; then
    echo "error: \`$python\` has no PyTorch; name one that has: PYTHON=/path/to/python" >&2
    exit 2
fi
export LD_LIBRARY_PATH="$torch/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export CARGO_MANIFEST_DIR="$work/plugins/model-amplify" FEDPLUG_TEST_DEVICE=$device
size=120M large=350M of="--batch 64 --steps 10" small_of="--batch 4 --steps 20" rounds=6 torch_device=cuda
trunk='{ hidden-size = 640, layers = 24, heads = 10, intermediate-size = 2560 }'
if [ "$device" = cpu ]; then
    size=tiny large=tiny of="--batch 8 --steps 3" small_of="--batch 2 --steps 3" rounds=2 torch_device=cpu
    trunk='{ hidden-size = 16, layers = 1, heads = 2, intermediate-size = 24 }'
fi

# The line that says most about why a part failed.
why() {
    local files=("$out/$1.err" "$out/$1.out")
    {
        grep -hm1 -iE 'there is no device|out of memory|CUDA error|no NVIDIA driver' "${files[@]}"
        grep -hA1 -m1 'panicked at' "${files[@]}" | tail -n +2
        grep -hm1 -iE '^error|failed|error:' "${files[@]}"
        cat "${files[@]}"
    } | head -1 | cut -c1-160
}

# part NAME LIMIT COMMAND...: one line of the first table, and the command's words in a file. No part gets more than is left.
part() {
    local name=$1 limit=$2 start=$SECONDS code=0 left=$((seconds - SECONDS))
    shift 2
    [ "$limit" -le "$left" ] || limit=$left
    if [ "$limit" -lt 5 ]; then
        echo "| $name | skipped: no time left | |"
        return 1
    fi
    timeout --kill-after=5 "$limit" "$@" >"$out/$name.out" 2>"$out/$name.err" || code=$?
    # A renamed test or module would pass unseen.
    if grep -q '^test result: ok. 0 passed' "$out/$name.out"; then
        code=1
        echo "error: there is no such test" >>"$out/$name.err"
    fi
    case $code in
        0) told=done ;;
        124 | 137) told="not done after $limit s" ;;
        *) told="failed with code $code: $(why "$name" | tr '|' '/')" ;;
    esac
    echo "| $name | $told | $((SECONDS - start)) s |"
    return $code
}

wanted() { [[ " $parts " == *" $1 "* ]]; }

main() {
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo "no nvidia-smi: is there a driver?"
    cat "$torch/version.py" 2>/dev/null | grep -m1 '^__version__'
    # No binary may lack a library.
    ldd bin/* tests/* 2>/dev/null | grep 'not found' | sort -u
    echo
    echo "| part | outcome | time |"
    echo "|---|---|---|"
    # The first use of a GPU by a process loads a gigabyte of libraries: minutes if no other has read them before.
    if wanted tests; then
        part tests-behaviour 180 tests/suite --test-threads 4 behaviour::
        for name in bits lora masked_lm classes refusals; do
            part "tests-$name" 60 tests/suite --test-threads 4 "$name::"
        done
        # With that of NVIDIA's compiler, which PyTorch for the CPU does not have.
        part tests-kernels 60 tests/suite $([ "$device" = cpu ] || echo --include-ignored) kernels::
    fi
    if wanted parity; then
        part parity-small 60 tests/suite --nocapture --skip published parity::
        if [ -d "${FEDPLUG_SHARED:-}/parity" ]; then
            part parity-published 90 env FEDPLUG_NO_SKIPS=1 tests/suite --nocapture parity::results_agree_with_the_published_code
            part parity-torch 90 "$python" tests/bench/torch_step.py --check "$FEDPLUG_SHARED/parity/amplify-swiglu"
        else
            echo "| parity-published | skipped: FEDPLUG_SHARED names no folder with parity/ | |"
        fi
    fi
    if wanted steps; then
        for precision in fp32 tf32 bf16; do
            part "ours-$precision" 60 bin/step --size $size $of --device "$device" --precision $precision
        done
        # Each switch alone, and all that change speed together.
        with() { part "ours-$1" 60 bin/step --size $size $of --device "$device" --precision "$2" --with "$3"; }
        with bf16-packing bf16 '{"packing": true}'
        with bf16-fused-qkv bf16 '{"fused-qkv": true}'
        with bf16-fused-kernels bf16 '{"fused-kernels": true}'
        with bf16-residual bf16-residual '{}'
        with bf16-all bf16-residual '{"packing": true, "fused-qkv": true, "fused-kernels": true}'
        with bf16-checkpointing bf16 '{"activation-checkpointing": true}'
        with bf16-deterministic bf16 '{"deterministic": true}'
        with bf16-clip bf16 '{"clip-norm": 1.0}'
        with bf16-lora bf16 '{"lora": {}}'
        with bf16-separate-buffers bf16 '{"flat-buffers": false}'
        with bf16-graphs bf16 '{"cuda-graphs": true}'
        # Small batches, for which graphs are.
        of=$small_of with small-bf16 bf16 '{}'
        of=$small_of with small-bf16-graphs bf16 '{"cuda-graphs": true}'
    fi
    step="$python tests/bench/torch_step.py --size $size $of --device $torch_device"
    if wanted torch; then
        part torch-reference-fp32 90 $step --style reference
        part torch-tuned-bf16 60 $step --style tuned --precision bf16
        part torch-packed-bf16 60 $step --style packed --precision bf16
    fi
    if wanted run; then
        # As many rows as FLAb has, so that a round has as many steps.
        part data 20 "$python" - "$work" <<'DATA'
import csv
import pathlib
import random
import sys

work = pathlib.Path(sys.argv[1])
rows_of = {"aggregation": 822, "binding": 2277, "expression": 137, "immunogenicity": 217, "polyreactivity": 548, "tm": 137}
draw = random.Random(1)
for task, count in rows_of.items():
    with open(work / f"configs/sample/{task}/synthetic.csv") as file:
        header, *rows = csv.reader(file)
    folder = work / "data" / task
    folder.mkdir(parents=True)
    with open(folder / "synthetic.csv", "w") as file:
        out = csv.writer(file)
        out.writerow(header)
        for number in range(count):
            heavy, light, fitness = rows[number % len(rows)]
            at = draw.randrange(len(heavy))
            out.writerow([heavy[:at] + draw.choice("LAGVSERTIDPKQNFYMHWC") + heavy[at + 1 :], light, fitness])
DATA
        nvidia-smi --query-gpu=utilization.gpu,memory.used --format=csv,noheader,nounits -lms 500 >"$out/samples.csv" 2>/dev/null &
        sampler=$!
        part run 170 bin/fedplug run configs/fedavg_multitask.toml --force --output "$out/runs" --set dataset.root=data \
            --set "federation.rounds=$rounds" --set "federation.devices=[\"$device\"]" --set model.precision=bf16 \
            --set "model.pretrained=$trunk"
        kill $sampler 2>/dev/null
    fi
    if wanted large; then
        part ours-large-bf16 60 bin/step --size $large $of --device "$device" --precision bf16
        part ours-large-fp32 60 bin/step --size $large $of --device "$device" --precision fp32
    fi
    if wanted torch; then
        part torch-compiled-bf16 120 $step --style tuned --precision bf16 --compile default
        part torch-max-autotune-bf16 200 $step --style tuned --precision bf16 --compile max-autotune
        part torch-packed-compiled-bf16 100 $step --style packed --precision bf16 --compile default
        part torch-reference-tf32 60 $step --style reference --precision tf32
    fi
    echo
    "$python" - "$out" <<'TABLE'
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
print("| a training step | size, batch | median (ms) | least–most | tokens a second | peak memory (MiB) |\n|---|---|---|---|---|---|")
for name, of in steps.items():
    low, high = (of[key] * 1000 for key in ("min_s", "max_s"))
    print(f"| {name} | {of['size']}, {of['batch']} | {of['median_s'] * 1000:.1f} | {low:.1f}–{high:.1f} "
          f"| {of['tokens_per_s']:.0f} | {of.get('peak_memory_MiB')} |")


def target(what, theirs, ours, least):
    theirs, ours = (
        min((name for name in names if name in steps), key=lambda name: steps[name]["median_s"], default=None)
        for names in (theirs, ours)
    )
    if theirs and ours:
        ratio = steps[theirs]["median_s"] / steps[ours]["median_s"]
        print(f"| {what} | {theirs}, {ours} | {least} | {ratio:.2f} | {'met' if ratio >= least else 'missed'} |")
    else:
        print(f"| {what} | | {least} | not measured | |")


print("\n| times as fast as | | target | here | |\n|---|---|---|---|---|")
fast = [
    "ours-bf16", "ours-bf16-packing", "ours-bf16-fused-qkv", "ours-bf16-fused-kernels", "ours-bf16-residual", "ours-bf16-all",
]
target("the published example's style in fp32", ["torch-reference-fp32"], fast, 5)
target("the same, both in fp32", ["torch-reference-fp32"], ["ours-fp32"], 1)
best = [name for name in steps if name.startswith("torch-") and "reference" not in name]
target("PyTorch's best form", best, fast, 1.1)

summary = next(iter(sorted(out.glob("runs/*/summary.json"))), None)
samples = out / "samples.csv"
if summary:
    told = json.loads(summary.read_text())
    rows = [line.split(",") for line in samples.read_text().splitlines()] if samples.exists() else []
    busy, memory = [], []
    for row in rows:
        try:
            busy.append(float(row[0]))
            memory.append(float(row[1]))
        except (ValueError, IndexError):
            continue
    a_round = told["seconds"] / told["rounds"]
    print("\n| six clients, as many rows as FLAb's, bf16 | |\n|---|---|")
    print(f"| a round, start and end of the run included | {a_round:.2f} s |")
    print(f"| 600 rounds, by that | {a_round * 600 / 3600:.2f} h |")
    print(f"| the host's memory, at most | {(told.get('peak-memory-bytes') or 0) / 2**20:.0f} MiB |")
    if busy:
        print(f"| the GPU's memory, at most | {max(memory):.0f} MiB |")
        print(f"| share of the run in which the GPU worked | {sum(busy) / len(busy):.0f} % |")
else:
    print("\nsix clients: no finished run")
TABLE
    echo
    echo "$SECONDS s in all; the output of the parts is in $out"
}

main | tee "$out/summary.md"
