#!/usr/bin/env python3
"""Writes reference.json: losses of 100 steps of `mlp` and `cnn` in PyTorch, for tests/parity.rs.

usage: python make_reference.py [--check] [--data FOLDER]

Needs torch and numpy. Trains on the first 8,000 images of datasets/fashion-mnist-10k in order, batch 128, the
partial last batch of 64 included, then from the start again. Initial weights are those of
`inflight::nn::init` with seed 0, made here by the same integer arithmetic, so that they need not be stored.
`--check` compares f32 with f64 instead of writing: what part of a difference is rounding alone.
"""

import argparse
import gzip
import json
import math
import pathlib

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

HERE = pathlib.Path(__file__).parent
SEED, STEPS, BATCH, TRAIN = 0, 100, 128, 8000
MEAN, STD = 0.2860, 0.3530
MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(x):
    """`inflight::rng::mix` on uint64 arrays."""
    x = np.asarray(x, np.uint64)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniform(key, count):
    """The first numbers of `inflight::rng::Rng::keyed(key)`, in 0..1."""
    state = GOLDEN
    for part in key:
        state = int(mix(((state + GOLDEN) & MASK) ^ int(mix((part + GOLDEN) & MASK))))
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN)
    return (mix(np.uint64(state) + steps) >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def name_hash(name):
    """FNV-1a, 64 bits."""
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = ((state ^ byte) * 0x100000001B3) & MASK
    return state


def initial(name, shape, bound, seed):
    """`inflight::nn::init` for one variable."""
    bound = float(np.float32(bound))
    values = -bound + (bound - -bound) * uniform([seed, name_hash(name)], math.prod(shape))
    return values.astype(np.float32).reshape(shape)


class Model(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.flat = name == "mlp"
        if name == "mlp":
            self.net = nn.Sequential(
                nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
            )
        else:
            self.net = nn.Sequential(
                nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                nn.Flatten(), nn.Linear(1568, 128), nn.ReLU(), nn.Linear(128, 10),
            )  # fmt: skip
        for prefix, module in self.named_modules():
            if hasattr(module, "weight"):
                bound = 1.0 / math.sqrt(math.prod(module.weight.shape[1:]))
                for part in ("weight", "bias"):
                    parameter = getattr(module, part)
                    values = initial(f"{prefix}.{part}", parameter.shape, bound, SEED)
                    parameter.data.copy_(torch.from_numpy(values))

    def forward(self, x):
        return self.net(x.flatten(1) if self.flat else x)


def optimizer_of(name, parameters):
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
    return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01)


def data(folder):
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:TRAIN]
    with gzip.open(folder / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)[:TRAIN]
    return torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64))


def losses(model_name, optimizer_name, images, labels, dtype):
    model = Model(model_name).to(dtype)
    optimizer = optimizer_of(optimizer_name, model.parameters())
    out, start = [], 0
    for _ in range(STEPS):
        x = images[start : start + BATCH].to(dtype)
        x = (x / 255 - MEAN) / STD
        loss = F.cross_entropy(model(x), labels[start : start + BATCH])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        out.append(loss.item())
        start = start + BATCH if start + BATCH < TRAIN else 0
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--data", type=pathlib.Path, default=HERE / "../../datasets/fashion-mnist-10k")
    args = parser.parse_args()
    images, labels = data(args.data)
    curves = {}
    for model in ("mlp", "cnn"):
        for optimizer in ("sgd", "adamw"):
            name = f"{model}/{optimizer}"
            curves[name] = losses(model, optimizer, images, labels, torch.float32)
            if args.check:
                exact = losses(model, optimizer, images, labels, torch.float64)
                apart = [abs(a - b) / abs(b) for a, b in zip(curves[name], exact)]
                print(name, f"largest relative difference of f32 from f64 {max(apart):.2e} at step {apart.index(max(apart))}")
    if not args.check:
        # Nine digits are all that an f32 has.
        curves = {name: [float(f"{loss:.9g}") for loss in curve] for name, curve in curves.items()}
        reference = {"torch": torch.__version__, "seed": SEED, "batch": BATCH, "train": TRAIN,
                     "mean": MEAN, "std": STD, "losses": curves}  # fmt: skip
        (HERE / "reference.json").write_text(json.dumps(reference, indent=1) + "\n")


if __name__ == "__main__":
    main()
