# What run-1 and run-2 share: steps that are bounded in time, and an archive of everything after each.
# Sourced, not run. No step ends the script: what one measured comes home, whatever the next one does.

# begin NAME SECONDS OUT [DEVICE]: OUT gets NAME.tar.gz and NAME.txt, and nothing else.
begin() {
    name=$1 limit=$2
    out=${3:?usage: $1 OUT [DEVICE]} device=${4:-}
    here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
    bin=${COTENANT:-$here/cotenant}
    kernels=${COTENANT_KERNELS:-$here/kernels}
    mkdir -p "$out" || exit 1
    out=$(cd "$out" && pwd)
    work=$(mktemp -d "${TMPDIR:-/tmp}/cotenant-$name.XXXXXX") || exit 1
    mkdir "$work/$name"
    work=$work/$name
    short=0
    : >"$work/summary.txt"
    trap 'kill $! 2>/dev/null; sleep 2; say "STOP  after $SECONDS s"; keep; exit 1' TERM INT HUP
    [ -x "$bin" ] || { fell_short "$bin is not there: replay/first-light/pack makes it"; keep; exit 1; }
    libraries
    # Streams that share a hardware queue wait for each other: as many queues as there are.
    export CUDA_DEVICE_MAX_CONNECTIONS=32
    # The driver compiles kernels once and keeps them here: a home that cannot be written would make
    # every worker compile them again.
    export CUDA_CACHE_PATH=${CUDA_CACHE_PATH:-${TMPDIR:-/tmp}/cotenant-cuda-cache} CUDA_CACHE_MAXSIZE=1073741824
    mkdir -p "$CUDA_CACHE_PATH"
}

say() { echo "$*" | tee -a "$work/summary.txt"; }
fell_short() {
    say "SHORT $*"
    short=1
}

# Everything so far, in one archive; the one before stands until this one is whole.
keep() {
    tar -C "$(dirname "$work")" -czf "$out/.$name.tar.gz" "$name" 2>/dev/null
    local said=
    # One file brought home may not be larger than 15 MiB: recordings can be made again.
    if [ "$(stat -c %s "$out/.$name.tar.gz")" -gt 15728640 ]; then
        tar -C "$(dirname "$work")" --exclude=raw --exclude=timeline --exclude=plots \
            -czf "$out/.$name.tar.gz" "$name"
        said="      recordings and plots left out: the archive was too large"
    fi
    mv -f "$out/.$name.tar.gz" "$out/$name.tar.gz"
    # Last: what it says is in the archive.
    { cat "$work/summary.txt" && [ -z "$said" ] || echo "$said"; } >"$out/$name.txt"
}

# at_most SECONDS: so many, or what is left of the script's time.
at_most() {
    local left=$((limit - SECONDS - 5))
    [ "$left" -lt "$1" ] && echo "$left" || echo "$1"
}

# await PROCESS SECONDS: its status, or 137 where it is still there. In short sleeps, so that a signal to
# the script is heard at once.
await() {
    local end=$((SECONDS + $2))
    while kill -0 "$1" 2>/dev/null; do
        [ "$SECONDS" -lt "$end" ] || return 137
        sleep 0.1
    done
    wait "$1"
}

# step NAME SECONDS COMMAND…: never longer than what is left of the script's time; its output goes to
# NAME.txt. What does not end on SIGTERM is killed; what cannot even be killed, in a driver's call, is left
# behind.
step() {
    local what=$1 most began=$SECONDS status stuck=
    most=$(at_most "$2")
    shift 2
    if [ "$most" -lt 2 ]; then
        fell_short "$what: no time left"
        keep
        return 1
    fi
    # A rehearsal makes steps fail, hang, or outlive being killed.
    case " ${FIRST_LIGHT_FAIL:-} " in
    *" $what "*) set -- sh -c 'echo "made to fail" >&2; exit 9' ;;
    *" $what:hangs "*) most=2 && set -- sh -c 'trap "" TERM; while :; do sleep 1; done' ;;
    *" $what:stuck "*) most=2 stuck=yes && set -- sleep 30 ;;
    esac
    [ -n "$stuck" ] || set -- timeout -k 3 "$most" "$@"
    "$@" >"$work/$what.txt" 2>"$work/$what.log" &
    await $! $((most + 5))
    status=$?
    if [ "$status" -eq 0 ]; then
        say "ok    $what ($((SECONDS - began)) s)"
    else
        [ "$status" -lt 124 ] || echo "stopped after $most s" >>"$work/$what.log"
        fell_short "$what (status $status): $(cat "$work/$what.txt" "$work/$what.log" | grep -v '^$' | tail -n 1)"
    fi
    keep
    return "$status"
}

# pip puts CUDA's libraries where the loader does not look.
libraries() {
    local nvidia lib found
    nvidia=$(timeout -k 3 20 python3 -c 'import nvidia; print(list(nvidia.__path__)[0])' 2>/dev/null || true)
    [ -n "$nvidia" ] || return 0
    # CUDA 13's folder comes last here and so first on the path.
    for lib in "$nvidia"/[!c]*/lib "$nvidia"/c[!u]*/lib "$nvidia"/cu[!1]*/lib "$nvidia"/cu1*/lib; do
        [ ! -d "$lib" ] || LD_LIBRARY_PATH=$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    done
    export LD_LIBRARY_PATH
    for lib in libcupti.so.13 libcupti.so.12; do
        found=$(find "$nvidia" -name "$lib" 2>/dev/null | head -n 1)
        if [ -n "$found" ]; then
            export COTENANT_CUPTI_LIB=$found
            break
        fi
    done
}

# The first step: what there is. A missing driver is the only thing that ends a run.
look() {
    step gpu 20 "$bin" gpu
    if grep -q '^driver *no' "$work/gpu.txt"; then
        fell_short "there is no CUDA driver: $(grep '^driver' "$work/gpu.txt")"
        finish
    fi
    [ -z "$device" ] || return 0
    # By the name that the driver gives, or nvidia-smi's.
    case $(cat "$work/gpu.txt"; timeout -k 3 10 nvidia-smi -L 2>/dev/null) in
    *H200*) device=h200-sxm ;;
    *H100*) device=h100-sxm ;;
    *A100*40*) device=a100-sxm-40 ;;
    *A100*) device=a100-sxm-80 ;;
    *A30*) device=a30 ;;
    *V100*) device=v100-sxm2-16 ;;
    *)
        device=h200-sxm
        fell_short "gpu: no device file has its name; $device is tried: $name OUT DEVICE names another"
        ;;
    esac
    say "--    device $device"
}

torch() {
    local most
    most=$(at_most 40)
    [ "$most" -ge 2 ] && timeout -k 3 "$most" python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null
}

# The device file with the measured lines, if they were measured; else what ships.
device_file() {
    local found
    found=$(find "$work/costs" -maxdepth 1 -name '*.toml' 2>/dev/null | head -n 1)
    echo "${found:-$device}"
}

finish() {
    say "$SECONDS s; $out/$name.tar.gz has everything"
    keep
    rm -rf "$(dirname "$work")"
    exit "$short"
}
