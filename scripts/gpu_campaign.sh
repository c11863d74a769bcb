#!/usr/bin/env bash
# Spends BUDGET_S seconds of a GPU on the bench, the tests that need a GPU and the published runs, every run with seed 0
# before any with seed 1. Given again, it goes on: finished runs are skipped, the interrupted one is resumed.
#   BUDGET_S=3600 scripts/gpu_campaign.sh          results: results/<device>/
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
BUDGET_S=${BUDGET_S:-1500}
PYTHON=${PYTHON:-.venv/bin/python}
device=$("$PYTHON" -c 'import torch; print(torch.cuda.get_device_name())' 2>/dev/null) ||
    { echo "error: $PYTHON has no torch that sees a GPU; PYTHON=PATH takes another" >&2; exit 2; }
OUT=${OUT:-results/$(echo "$device" | tr 'A-Z ' 'a-z-')}
mkdir -p "$OUT"

RESERVE_S=$((BUDGET_S / 10 < 60 ? BUDGET_S / 10 : 60))  # for the copy and the report
within() {  # within SECONDS COMMAND...: at most so long, and no longer than the budget allows
    local left=$((BUDGET_S - RESERVE_S - SECONDS)) most=$1
    shift
    ((left > 0)) && timeout --foreground --kill-after=30 $((most < left ? most : left)) "$@"
}

if ! grep -qs '"seconds":' "$OUT/bench.json"; then  # written at the bench's end
    within 900 "$PYTHON" -m benchmarks --budget $((BUDGET_S < 1800 ? BUDGET_S * 4 / 10 : 800)) --out "$OUT/bench.json"
fi
if [ ! -e "$OUT/gpu-tests.txt" ]; then
    # the file alone: with all of tests/, one that needs a missing extra would keep every test from running
    within 900 "$PYTHON" -m pytest -q -m gpu tests/training/test_gpu.py >"$OUT/gpu-tests.log" && mv "$OUT/gpu-tests.log" "$OUT/gpu-tests.txt"
fi

# A machine that is new has the finished runs here alone: they are put where they are looked for, and are skipped.
outputs=${RESNETLAB_OUTPUTS:-outputs}
find "$OUT/published" "$OUT/campaign" -name summary.json 2>/dev/null | while read -r summary; do
    saved=${summary%/*}
    run=$outputs/${saved#"$OUT"/}
    [ -e "$run/summary.json" ] || { mkdir -p "$run" && cp "$saved"/{config.yaml,metrics.csv,manifest.json,summary.json} "$run/"; }
done

# wd is lost in print in 03B, 21 and 22 to 25; the presets have 0.05 and, of the others, 0.2. Until epoch 50 table 1 has
# one schedule, but for 05, whose lr comes down in other steps: at wd 0.1 it is 06 that differs from the others in wd only.
presets=$(echo post4-table1-{00,01,02,03B,05,06,08,21,09,10,11} post4-table3-{22,23,24,25} \
    post2-trial3b-01 post2-trial4-06 cifar10p2-onecycle-30 | tr ' ' ,)
sweep=(train.py -m seed="range(0,2)" recalibrate_bn=true hydra/launcher=processes)
done=true
within "$BUDGET_S" "$PYTHON" "${sweep[@]}" experiment="$presets" || done=false
# the 1cycle of the published ResNet18 with our ResNet56v2
within "$BUDGET_S" "$PYTHON" "${sweep[@]}" study=campaign optimizer=sgd schedule=one_cycle regularization=coupled lr=0.1 \
    wd=5e-4 batch_size=128 epochs=30 data.translate=pad_crop data.normalize=channel || done=false
"$done" || echo "not all runs are done; the same command goes on"

find "$outputs/published" "$outputs/campaign" -name summary.json 2>/dev/null | while read -r summary; do
    run=${summary%/*}
    mkdir -p "$OUT/${run#"$outputs"/}"
    cp "$run"/{config.yaml,metrics.csv,manifest.json,summary.json} "$OUT/${run#"$outputs"/}/"
done
"$PYTHON" -m resnetlab.cli report "$OUT" --out "$OUT/report"
