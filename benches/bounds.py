#!/usr/bin/env python3
"""How long a run takes to end: after a signal, after a second one, after a transform that panics.

    python3 benches/bounds.py target/release/inflight --trials 20 --device cpu -- \\
        fashion-mnist-10k --model mlp --batch-size 256 --steps 1000000 --no-eval --checkpoint-every 20

Each trial starts a run, waits for some steps and a moment that is drawn, and sends SIGTERM, which must end it with 75; or SIGINT
and, up to `--apart` seconds later, a second one, which must end it at once with 130 (or finds that the first has: 75). What it leaves
must be whole (`checkpoint verify`). A build with the feature `faults` is also told to panic over a sample (`--panics`); its time
is counted from the line that the panic writes. Tells the median and the longest of each, in seconds.
"""

import argparse
import glob
import os
import random
import signal
import statistics
import subprocess
import tempfile
import threading
import time


class Run:
    def __init__(self, args, out, faults=None):
        command = [args.program, "train", *args.line, "--device", args.device, "--json", "--out", out]
        env = dict(os.environ, **({"INFLIGHT_FAULTS": faults} if faults else {}))
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
        )
        self.steps = threading.Semaphore(0)
        self.panicked = None
        for read in (self.read_events, self.read_errors):
            threading.Thread(target=read, daemon=True).start()

    def read_events(self):
        for line in self.process.stdout:
            if '"event":"step"' in line:
                self.steps.release()

    def read_errors(self):
        for line in self.process.stderr:
            if "panicked" in line and self.panicked is None:
                self.panicked = time.monotonic()

    def after_steps(self, steps):
        for _ in range(steps):
            assert self.steps.acquire(timeout=300), "the run makes no steps"
        time.sleep(random.random() / 2)
        return self

    def send(self, number):
        self.process.send_signal(number)
        return time.monotonic()

    def end(self, since):
        code = self.process.wait(timeout=300)
        return code, time.monotonic() - since


def one_signal(args, out):
    run = Run(args, out).after_steps(args.after)
    return run.end(run.send(signal.SIGTERM))


def two_signals(args, out):
    run = Run(args, out).after_steps(args.after)
    run.send(signal.SIGINT)
    time.sleep(random.random() * args.apart)
    return run.end(run.send(signal.SIGINT))


def panic(args, out):
    run = Run(args, out, "panic@77")
    code = run.process.wait(timeout=300)
    return code, time.monotonic() - run.panicked


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--after", type=int, default=3, help="steps before a signal")
    parser.add_argument("--apart", type=float, default=0.02, help="seconds between two signals, at most")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--panics", action="store_true")
    parser.add_argument("line", nargs="+")
    args = parser.parse_args()
    kinds = [("one signal", one_signal, [75]), ("two signals", two_signals, [130, 75])]
    for name, act, codes in kinds + ([("a panic", panic, [3])] if args.panics else []):
        times = {}
        for trial in range(args.trials):
            random.seed(trial)
            with tempfile.TemporaryDirectory() as folder:
                out = f"{folder}/run"
                code, seconds = act(args, out)
                assert code in codes, f"{name}: ended with {code}"
                times.setdefault(code, []).append(seconds)
                # A run that was cut off may have no checkpoint yet; what there is must be whole.
                if glob.glob(f"{out}/checkpoints/step-*"):
                    verified = subprocess.run([args.program, "checkpoint", "verify", out], capture_output=True, text=True)
                    assert verified.returncode == 0, f"{name}: {verified.stderr}"
        for code, found in sorted(times.items()):
            what = f"{statistics.median(found):.3f} s, at most {max(found):.3f} s"
            print(f"{name} on {args.device}, exit {code}: {len(found)} times, median {what}", flush=True)


if __name__ == "__main__":
    main()
