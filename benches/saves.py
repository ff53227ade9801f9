#!/usr/bin/env python3
"""What checkpoints in the background cost: runs with and without them in turn, each pair in the other order.

    python3 benches/saves.py target/release/inflight --pairs 12 --every 3s -- \\
        fashion-mnist-10k --model mlp --batch-size 256 --steps 6000 --no-eval --device cpu

Tells the share by which a run with saves takes longer than the one beside it, and the milliseconds that each save adds: the
median of the pairs, the bounds that hold the median of all such pairs with 95 % (by ranks), and lowest to highest; of `train_s`
and of processor time. Many saves in a short run (`--every 20`) show what one costs through the noise of a machine. Both runs
of a pair must end with the same parameters, or there is nothing to compare.
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


def spread(found, form):
    """Median, ranks that hold it with 95 % or more, lowest and highest."""
    found = sorted(found)
    n = len(found)
    outside, rank = 2 * 0.5**n, 0
    while rank + 1 < n // 2 and outside + 2 * math.comb(n, rank + 1) * 0.5**n <= 0.05:
        rank += 1
        outside += 2 * math.comb(n, rank) * 0.5**n
    shown = [form.format(x) for x in (statistics.median(found), found[rank], found[n - 1 - rank], found[0], found[-1])]
    return "{} [{} to {}], {} to {}".format(*shown)


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
    saves = [saving["saves"] - plain["saves"] for saving, plain in pairs]
    length = statistics.median(plain["train_s"] for _, plain in pairs)
    print(f"{len(pairs)} pairs, {min(saves)} to {max(saves)} saves more in a run of {length:.2f} s")
    for key in ("train_s", "cpu_s"):
        more = [saving[key] - plain[key] for saving, plain in pairs]
        shares = [more / plain[key] for more, (_, plain) in zip(more, pairs)]
        each = [1e3 * more / max(saves, 1) for more, saves in zip(more, saves)]
        print(f"{key}: {spread(shares, '{:.2%}')}; {spread(each, '{:.1f}')} ms a save")


if __name__ == "__main__":
    main()
