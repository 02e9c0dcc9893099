#!/usr/bin/env bash
# The second part of gpu-check.sh, in at most three minutes: simulation and replay on identical
# arrivals, for every policy that can run on this GPU, from the profile that the first part has
# collected. Results as files in OUT/validate; status 1 when something fell short.
# Usage: replay/gpu-replay.sh OUT DEVICE   (DEVICE names the GPU, such as h200-sxm; OUT/profile is there)
set -u
out=${1:?usage: gpu-replay.sh OUT DEVICE}
device=${2:?usage: gpu-replay.sh OUT DEVICE}
bin=${COTENANT:-$(dirname "$0")/../target/release/cotenant}
limit=${COTENANT_REPLAY_LIMIT:-180}
# Tests against a stand-in say so; a measurement never does.
on=${COTENANT_REPLAY_ON:-cuda:0}
short=0
fell_short() {
    echo "SHORT $*"
    short=1
}

[ -s "$out/profile/kernels.csv" ] || { fell_short "replay: no profile in $out/profile"; exit 1; }
out=$(cd "$out" && pwd)
rm -rf "$out/validate"
cat >"$out/replay.toml" <<EOF
name     = "gpu-check"
question = "How far are simulation and measurement apart on this GPU?"
device   = "$device"
profiles = ["profile"]
duration = "800ms"
warmup   = "200ms"
repeats  = 2

[[tenant]]
name     = "vision"
model    = "resnet18"
arrivals = { kind = "poisson", rate = 150.0 }
slo      = "50ms"

[[tenant]]
name     = "text"
model    = "bert_base@64"
arrivals = { kind = "poisson", rate = 60.0 }
slo      = "50ms"

[[policy]]
name = "all"
EOF
timeout "$limit" "$bin" validate "$out/replay.toml" --on "$on" --out "$out/validate" \
    >"$out/validate.txt" 2>"$out/validate.log"
status=$?
if [ ! -s "$out/validate/validation.csv" ]; then
    fell_short "validate (status $status): $(tail -n 1 "$out/validate.log")"
    exit 1
fi
# Every policy in one process has to run: what fails there is a fault. Processes of their own, MPS
# and hardware instances are the machine's to offer: what is missing is shown with its reason.
for policy in mps mps-static krisp eclip streams coalesce; do
    grep -q ",$policy,.*,\*,.*,ok\$" "$out/validate/results.csv" ||
        fell_short "replay of $policy: $(grep -m 1 ",$policy," "$out/validate/results.csv")"
done
# The last line names what did not run, with the reasons.
[ "$status" = 0 ] || echo "--    $(tail -n 1 "$out/validate.log")"
sed 's/^/      /' "$out/validate/verdict.txt"
[ "$short" = 0 ] && echo "ok    replay"
exit "$short"
