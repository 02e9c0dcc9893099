#!/usr/bin/env python3
"""Regenerates the tables of docs/claims/planners.md: python3 experiments/parvagpu/planners.py [COTENANT]

Each scenario of ParvaGPU's tables is asked with one GPU more each time until every goal is met; the last
question compares published planners, too. All with the default budget, on one thread.
"""

import json
import pathlib
import resource
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PAGE = ROOT / "docs/claims/planners.md"
TABLES = ["<!-- planners -->", "<!-- gpus -->", "<!-- end -->"]
PLANNERS = {"ParvaGPU's plan": "ParvaGPU on our profiles", "gpu-lets' plan": "gpu-lets",
            "iGniter's plan": "iGniter", "FGD's packing": "FGD"}
# Of `--budget`, as `cotenant advise --help` says.
EVENTS_PER_SECOND = 3.5e6
NAMES = ["ParvaGPU as printed", *PLANNERS.values(), "`advise`, fewest GPUs"]


def cotenant(*args):
    """The JSON that it prints, and the processor time that it takes."""
    program = sys.argv[1] if len(sys.argv) > 1 else ROOT / "target/release/cotenant"
    command = [str(program), *args, "--json", "--jobs", "1"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if not done.stdout:
        sys.exit(f"{' '.join(command)}: {done.stderr}")
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(done.stdout), seconds


def cells(row):
    load = "not settled" if row["headroom"] is None else f"{row['headroom']:.2f}"
    return [str(row["gpus"]), f"{row['goals_met']} of {row['goals']}", load]


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def scenario(n):
    """Rows of both tables."""
    mix = f"experiments/mixes/parvagpu-{n}.toml"
    printed, _ = cotenant("check", f"experiments/parvagpu/set{n}.yaml", "--mix", mix)
    columns, counts = {"ParvaGPU as printed": cells(printed["delivers"])}, []
    for gpus in range(1, 9):
        said, seconds = cotenant("advise", mix, "--gpus", str(gpus))
        best = said["rows"][said["choice"]]
        events = f"{said['events'] / 1e6:.0f} of {said['budget_s'] * EVENTS_PER_SECOND / 1e6:.0f}"
        counts.append([str(n), *cells(best), f"{seconds:.0f}", events])
        print(counts[-1], file=sys.stderr)
        if best["goals_met"] == best["goals"]:
            break
    columns[NAMES[-1]] = cells(best)
    said, seconds = cotenant("advise", mix, "--gpus", str(gpus), "--planner", "parvagpu,gpu-lets,igniter,fgd")
    for row in said["rows"]:
        if row["way"] in PLANNERS and not row["impossible"]:
            columns[PLANNERS[row["way"]]] = cells(row)
    plans = []
    for i, what in enumerate(["GPUs", "goals met", "load at which a goal breaks"]):
        plans.append([str(n) if i == 0 else "", what, *(columns.get(name, ["-"] * 3)[i] for name in NAMES)])
    print(f"with planners: {seconds:.0f} s", file=sys.stderr)
    return plans, counts


def write(scenarios):
    """Writes the rows of all scenarios into the page."""
    plans = [row for rows, _ in scenarios for row in rows]
    counts = [row for _, rows in scenarios for row in rows]
    header = ["scenario", "GPUs", "goals met", "load at which a goal breaks", "processor s", "million events"]
    text = PAGE.read_text()
    for start, end, new in (
        (TABLES[0], TABLES[1], table(["scenario", "", *NAMES], plans)),
        (TABLES[1], TABLES[2], table(header, counts)),
    ):
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        text = f"{before}{start}\n{new}\n{end}{after}"
    PAGE.write_text(text)


if __name__ == "__main__":
    write([scenario(n) for n in (1, 2, 3)])
