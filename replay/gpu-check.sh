#!/usr/bin/env bash
# What only a GPU can show, in at most eight minutes: the survey, every kernel against the CPU, a short
# collection, the costs of the mechanisms, a capture of a PyTorch program; and, in the last three of
# them, replay and validation of every policy that can run (gpu-replay.sh). Results as files in OUT;
# status 1 when something fell short.
#
# Usage: replay/gpu-check.sh OUT [DEVICE]     DEVICE describes the GPU; found by its name by default.
# COTENANT and COTENANT_KERNELS name the two programs where they are not in target/release.
set -u
out=${1:?usage: gpu-check.sh OUT [DEVICE]}
bin=${COTENANT:-$(dirname "$0")/../target/release/cotenant}
check=${COTENANT_KERNELS:-$(dirname "$bin")/examples/kernels}
limit=300
mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)
: >"$out/summary.txt"
short=0

say() { echo "$*" | tee -a "$out/summary.txt"; }
fell_short() {
    say "SHORT $*"
    short=1
}
step() { # NAME SECONDS COMMAND…: never longer than what is left of the five minutes
    local name=$1 most=$2 left=$((limit - SECONDS - 5)) began=$SECONDS status
    shift 2
    [ "$left" -ge "$most" ] || most=$left
    if [ "$most" -lt 5 ]; then
        fell_short "$name: no time left"
        return 1
    fi
    # What does not end on SIGTERM, in a driver's call say, is killed.
    timeout -k 5 "$most" "$@" >"$out/$name.txt" 2>&1
    status=$?
    if [ "$status" -eq 0 ]; then
        say "ok    $name ($((SECONDS - began)) s)"
        return 0
    fi
    [ "$status" -lt 124 ] || echo "stopped after $most s" >>"$out/$name.txt"
    fell_short "$name (status $status): $(tail -n 1 "$out/$name.txt")"
    return 1
}

for program in "$bin" "$check"; do
    [ -x "$program" ] || fell_short "$program is not there: cargo build --release -p cotenant, \
cargo build --release -p cotenant-inject, cargo build --release -p cotenant-replay --example kernels"
done
[ "$short" -eq 0 ] || exit 1

# Streams that share a hardware queue wait for each other: as many queues as there are.
export CUDA_DEVICE_MAX_CONNECTIONS=32
# pip puts CUDA's libraries where the loader does not look.
nvidia=$(timeout 20 python3 -c 'import nvidia; print(list(nvidia.__path__)[0])' 2>/dev/null || true)
if [ -n "$nvidia" ]; then
    # CUDA 13's folder comes last here and so first on the path.
    for lib in "$nvidia"/[!c]*/lib "$nvidia"/c[!u]*/lib "$nvidia"/cu[!1]*/lib "$nvidia"/cu1*/lib; do
        [ ! -d "$lib" ] || LD_LIBRARY_PATH=$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    done
    export LD_LIBRARY_PATH
    for name in libcupti.so.13 libcupti.so.12; do
        cupti=$(find "$nvidia" -name "$name" 2>/dev/null | head -n 1)
        if [ -n "$cupti" ]; then
            export COTENANT_CUPTI_LIB=$cupti
            break
        fi
    done
fi

step gpu 20 "$bin" gpu
if ! grep -q '^profile collect: yes' "$out/gpu.txt"; then
    fell_short "gpu: it cannot collect, and $out/gpu.txt says why: the rest is left out"
    exit 1
fi
device=${2:-}
if [ -z "$device" ]; then
    case $(grep '^GPU ' "$out/gpu.txt") in
    *H200*) device=h200-sxm ;;
    *H100*) device=h100-sxm ;;
    *A100*40*) device=a100-sxm-40 ;;
    *A100*) device=a100-sxm-80 ;;
    *A30*) device=a30 ;;
    *V100*) device=v100-sxm2-16 ;;
    *)
        fell_short "gpu: no device file ships for it; name one: gpu-check.sh OUT DEVICE"
        exit 1
        ;;
    esac
fi
say "--    device $device"

step kernels 90 "$check"

if step collect 80 "$bin" -q profile collect --device "$device" --models resnet18,bert_base@64 \
    --batch 1 --cus 8,16,32,66 --rounds 1 --samples 10 --pairs 3 --budget 50s \
    --out "$out/profile"; then
    for file in kernels.csv curves.csv curves_coarse.csv corun.csv; do
        grep -q '^# source=measured' "$out/profile/$file" 2>/dev/null ||
            fell_short "collect: $file is not there, or not measured"
    done
fi

if step costs 60 "$bin" -q profile collect --device "$device" --costs --budget 40s \
    --out "$out/profile"; then
    # What was not measured stands there with its reason: launch and hops must have been.
    for what in launch stream_hop partition_hop h2d dram_read process_start; do
        grep -q "^$what,[^,]*,[0-9-]" "$out/profile/costs/costs.csv" ||
            fell_short "costs: $(grep "^$what," "$out/profile/costs/costs.csv")"
    done
fi

if timeout 40 python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null
then
    rm -rf "$out/capture" # a recording is never mixed with another one
    if step capture 60 "$bin" capture --device "$device" --model mlp --out "$out/capture" -- \
        python3 -c '
import torch
m = torch.nn.Sequential(*[torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.ReLU()) for _ in range(4)]).cuda()
x = torch.randn(8, 512, device="cuda")
with torch.no_grad():
    for _ in range(20): m(x)
torch.cuda.synchronize()'; then
        [ -s "$out/capture/profile/kernels.csv" ] ||
            fell_short "capture: no profile: $(tail -n 1 "$out/capture.txt")"
    fi
else
    say "--    capture: no PyTorch that sees the GPU"
fi
if [ -s "$out/profile/kernels.csv" ]; then
    COTENANT=$bin "$(dirname "$0")/gpu-replay.sh" "$out" "$device" || short=1
fi
say "$SECONDS s, results in $out"
exit "$short"
