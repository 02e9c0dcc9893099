#!/usr/bin/env bash
# What only a GPU can show, in at most five minutes: the survey, every kernel against the CPU, a short
# collection, a capture of a PyTorch program. Results as files in OUT; status 1 when something fell
# short. Usage: replay/gpu-check.sh OUT [DEVICE]   (DEVICE names the GPU, such as h200-sxm)
set -u
out=${1:?usage: gpu-check.sh OUT [DEVICE]}
device=${2:-h200-sxm}
bin=${COTENANT:-$(dirname "$0")/../target/release/cotenant}
check=${COTENANT_KERNELS:-$(dirname "$bin")/examples/kernels}
mkdir -p "$out"
short=0
# pip puts CUDA's libraries where the loader does not look.
nvidia=$(python3 -c 'import nvidia; print(list(nvidia.__path__)[0])' 2>/dev/null || true)
if [ -n "$nvidia" ]; then
    for lib in "$nvidia"/*/lib; do LD_LIBRARY_PATH="$lib:${LD_LIBRARY_PATH:-}"; done
    export LD_LIBRARY_PATH
    cupti=$(ls "$nvidia"/*/lib/libcupti.so.1[23] 2>/dev/null | tail -1)
    [ -n "$cupti" ] && export COTENANT_CUPTI_LIB="$cupti"
fi
step() { # NAME SECONDS COMMAND…
    local name=$1 limit=$2
    shift 2
    if timeout "$limit" "$@" >"$out/$name.txt" 2>&1; then
        echo "ok    $name"
    else
        echo "SHORT $name (status $?): $(tail -1 "$out/$name.txt")"
        short=1
    fi
}
step gpu 30 "$bin" gpu
grep -q '^profile collect: yes' "$out/gpu.txt" || { echo "SHORT gpu: cannot collect"; short=1; }
step kernels 90 "$check"
step collect 120 "$bin" -q profile collect --device "$device" --models resnet18,bert_base@64 \
    --batch 1 --cus 8,16,32,66 --rounds 1 --samples 10 --budget 90s --out "$out/profile"
if python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
    step capture 60 "$bin" capture --device "$device" --model mlp --out "$out/capture" -- python3 -c '
import torch
m = torch.nn.Sequential(*[torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.ReLU()) for _ in range(4)]).cuda()
x = torch.randn(8, 512, device="cuda")
with torch.no_grad():
    for _ in range(20): m(x)
torch.cuda.synchronize()'
    [ -f "$out/capture/profile/kernels.csv" ] || { echo "SHORT capture: no profile"; short=1; }
else
    echo "--    capture: no PyTorch with CUDA"
fi
exit $short
