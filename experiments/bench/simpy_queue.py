"""The queue of `run` in SimPy, as its documentation writes one: a process per request, a resource with
as many slots as there are servers. Draws are Python's own. Arguments: tenants, servers, kernels."""

import random
import sys
import time

import simpy

PER_REQUEST, MEAN_NS, LOAD = 10, 100_000.0, 0.8


def main(tenants, servers, kernels):
    gap = tenants * PER_REQUEST * MEAN_NS / (LOAD * servers)
    draw = random.Random(1).expovariate
    env = simpy.Environment()
    gpu = simpy.Resource(env, servers)
    over = env.event()
    counts = {"events": 0, "ended": 0, "answered": 0, "latency": 0.0}

    def request():
        arrived = env.now
        for _ in range(PER_REQUEST):
            with gpu.request() as slot:
                yield slot
                yield env.timeout(draw(1 / MEAN_NS))
            counts["events"] += 1
            counts["ended"] += 1
            if counts["ended"] == kernels:
                over.succeed()
        counts["answered"] += 1
        counts["latency"] += env.now - arrived

    def tenant():
        while True:
            yield env.timeout(draw(1 / gap))
            counts["events"] += 1
            env.process(request())

    for _ in range(tenants):
        env.process(tenant())
    start = time.process_time()
    env.run(until=over)
    seconds = time.process_time() - start
    print(counts["events"], f"{seconds:.6f}", f"{counts['latency'] / counts['answered'] / 1e3:.3f}")


main(*map(int, sys.argv[1:4]))
