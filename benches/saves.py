#!/usr/bin/env python3
"""What checkpoints in the background cost: runs with and without them in turn, each pair in the other order.

    python3 benches/saves.py target/release/inflight --pairs 12 --every 3s -- \\
        fashion-mnist-10k --model mlp --batch-size 256 --steps 6000 --no-eval --device cpu

Tells the share by which a run with saves takes longer than the one beside it: the median of the pairs, the bounds that hold
the median of all such pairs with 95 % (by ranks), and lowest to highest; of `train_s` and of processor time. Both runs of a
pair must end with the same parameters, or there is nothing to compare.
"""

import argparse
import json
import math
import resource
import statistics
import subprocess
import tempfile
import time


def once(program, line, more):
    with tempfile.TemporaryDirectory() as out:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [program, "train", *line, *more, "--json", "--out", f"{out}/run"]
        stdout = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    events = [json.loads(line) for line in stdout.splitlines()]
    done = events[-1]
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    saves = sum(event["event"] == "checkpoint" for event in events)
    return {"train_s": done["train_s"], "cpu_s": used, "saves": saves, "hash": done["parameter_hash"]}


def spread(shares):
    """Median, ranks that hold it with 95 % or more, lowest and highest."""
    shares = sorted(shares)
    n = len(shares)
    outside, rank = 2 * 0.5**n, 0
    while rank + 1 < n // 2 and outside + 2 * math.comb(n, rank + 1) * 0.5**n <= 0.05:
        rank += 1
        outside += 2 * math.comb(n, rank) * 0.5**n
    low, high = shares[rank], shares[n - 1 - rank]
    return f"{statistics.median(shares):.2%} [{low:.2%} to {high:.2%}], {shares[0]:.2%} to {shares[-1]:.2%}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--every", default="3s", help="as --checkpoint-every")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no pair after so long")
    parser.add_argument("line", nargs="+")
    args = parser.parse_args()
    never = ["--checkpoint-every", "1000000000"]
    began, pairs = time.monotonic(), []
    for pair in range(args.pairs):
        if time.monotonic() - began > args.seconds:
            break
        turns = [("with", ["--checkpoint-every", args.every]), ("without", never)]
        found = {name: once(args.program, args.line, more) for name, more in turns[:: 1 - 2 * (pair % 2)]}
        assert found["with"]["hash"] == found["without"]["hash"], found
        pairs.append((found["with"], found["without"]))
        print(json.dumps(pairs[-1]), flush=True)
    of = lambda key: [saving[key] / plain[key] - 1 for saving, plain in pairs]
    saves = [saving["saves"] - plain["saves"] for saving, plain in pairs]
    plain = statistics.median(plain["train_s"] for _, plain in pairs)
    print(f"{len(pairs)} pairs, {min(saves)} to {max(saves)} saves more in a run of {plain:.2f} s")
    print(f"train_s: {spread(of('train_s'))}")
    print(f"cpu_s:   {spread(of('cpu_s'))}")


if __name__ == "__main__":
    main()
