#!/usr/bin/env python3
"""Writes reference.json: losses of models trained by PyTorch, for tests/parity.rs.

usage: python make_reference.py [--data FOLDER] [--only OPTIMIZER]

With --only the curves of other optimizers stay as they are.

Needs torch, torchvision and numpy. Trains `mlp` and `cnn` on the first 8,000 images of datasets/fashion-mnist-10k in order, batch 128, the
partial last batch of 64 included, then from the start again; larger models on a few small images of noise. Initial weights are those of
`inflight::nn::init` with seed 0, made here by the same integer arithmetic, so that they need not be stored.

Each curve is computed in f32 and in f64. Training is chaotic: a rounding error that turns one ReLU or one
max-pool the other way is a step in the gradient, and from then on two correct programs drift apart. At common
learning rates PyTorch itself in f32 leaves PyTorch in f64 by more than 1e-4 within 10 to 30 steps (2e-2 after
100 of AdamW at 1e-3). So LONG curves have learning rates at which 100 steps still determine a loss, and SHORT ones
have common rates and end where f32 and f64 part.
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
import torchvision

HERE = pathlib.Path(__file__).parent
SEED, BATCH, TRAIN = 0, 128, 8000
LONG, SHORT = 100, 20
# How far f32 may be from f64 for a loss to count as determined: a tenth of the test's tolerance.
DETERMINED = 1e-5
SGD = {"type": "sgd", "momentum": 0.9, "nesterov": False, "weight_decay": 0.0}
NESTEROV = {"type": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.05}
ADAMW = {"type": "adamw", "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01}
# At small rates PyTorch's default decay would be lost in rounding; this one shows.
DECAYING = ADAMW | {"weight_decay": 1.0}
# The settings of torch.optim.Muon, of which those of AdamW are for all but the matrices of hidden layers.
MUON = {
    "type": "muon", "momentum": 0.95, "nesterov": True, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1,
}  # fmt: skip
CURVES = [
    ("mlp", SGD, 1e-3, LONG), ("cnn", SGD, 5e-4, LONG), ("mlp", DECAYING, 2e-5, LONG), ("cnn", DECAYING, 2e-5, LONG),
    ("mlp", SGD, 1e-2, SHORT), ("cnn", SGD, 1e-2, SHORT), ("mlp", ADAMW, 1e-3, SHORT), ("cnn", ADAMW, 1e-3, SHORT),
    ("mlp", NESTEROV, 5e-3, SHORT), ("mlp", MUON, 2e-5, LONG), ("mlp", MUON, 1e-3, SHORT), ("cnn", MUON, 1e-3, SHORT),
]  # fmt: skip
# The first steps of larger models, on NOISE images of the given shape.
TINY_VIT = {"depth": 2, "width": 24, "heads": 3}
LARGER = [
    ("resnet18", {"shape": [3, 16, 16], "batch_size": 4}, SGD, 1e-4, 4),
    ("resnet50", {"shape": [3, 16, 16], "batch_size": 4}, SGD, 1e-6, 2),
    ("vit", {"shape": [3, 16, 16], "batch_size": 4}, ADAMW, 1e-3, SHORT),
    ("vit", {"shape": [3, 16, 16], "batch_size": 4}, MUON, 1e-3, SHORT),
]
NOISE = 10
MEAN, STD = 0.2860, 0.3530
NOISE_MEAN, NOISE_STD = 0.5, 0.25
np.seterr(over="ignore")  # Integers wrap around, as they do in Rust's wrapping_mul.
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
    """`inflight::nn::init` for one uniform variable."""
    bound = float(np.float32(bound))
    values = -bound + (bound - -bound) * uniform([seed, name_hash(name)], math.prod(shape))
    return values.astype(np.float32).reshape(shape)


def initial_normal(name, shape, std, seed):
    """`inflight::nn::init` for one normal variable."""
    u = uniform([seed, name_hash(name)], 2 * math.prod(shape)).reshape(-1, 2)
    values = np.sqrt(-2 * np.log(1 - u[:, 0])) * np.cos(2 * math.pi * u[:, 1])
    return (float(np.float32(std)) * values).astype(np.float32).reshape(shape)


def start_fan_in(prefix, module):
    """PyTorch's default: weight and bias uniform in 1 / sqrt(fan_in)."""
    bound = 1.0 / math.sqrt(math.prod(module.weight.shape[1:]))
    for part in ("weight", "bias"):
        parameter = getattr(module, part)
        parameter.data.copy_(torch.from_numpy(initial(f"{prefix}.{part}", parameter.shape, bound, SEED)))


def residual(name):
    """torchvision's network with the stem for small images."""
    model = getattr(torchvision.models, name)(num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    for prefix, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            shape = module.weight.shape
            std = math.sqrt(2 / (shape[0] * shape[2] * shape[3]))
            module.weight.data.copy_(torch.from_numpy(initial_normal(f"{prefix}.weight", shape, std, SEED)))
    start_fan_in("fc", model.fc)
    return model


class Block(nn.Module):
    """A block of timm's VisionTransformer."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, x):
        n, t, d = x.shape
        qkv = self.attn["qkv"](self.norm1(x)).reshape(n, t, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / math.sqrt(d // self.heads)).softmax(-1)
        x = x + self.attn["proj"]((weights @ v).transpose(1, 2).reshape(n, t, d))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class Vit(nn.Module):
    """timm's VisionTransformer with a class token, for images whose side is a multiple of 4."""

    def __init__(self, shape, depth, width, heads):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, shape[1] * shape[2] // 16 + 1, width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(shape[0], width, 4, stride=4)})
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 10)
        stds = {"cls_token": 1e-6, "pos_embed": 0.02}
        for prefix, module in self.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
                stds[f"{prefix}.weight"] = 0.02
        for name, parameter in self.named_parameters():
            if name in stds:
                parameter.data.copy_(torch.from_numpy(initial_normal(name, parameter.shape, stds[name], SEED)))
        start_fan_in("patch_embed.proj", self.patch_embed["proj"])

    def forward(self, x):
        x = self.patch_embed["proj"](x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


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
                start_fan_in(prefix, module)

    def forward(self, x):
        return self.net(x.flatten(1) if self.flat else x)


def orthogonal(x, coefficients, steps, eps):
    """PyTorch's iteration in the precision of its argument, where PyTorch's own is in bfloat16."""
    a, b, c = coefficients
    if len(x) > len(x.T):
        return orthogonal(x.T, coefficients, steps, eps).T
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


class Muon:
    """torch.optim.Muon over the weights of hidden layers as matrices, torch.optim.AdamW over all else."""

    def __init__(self, model, lr, settings):
        import torch.optim._muon

        torch.optim._muon._zeropower_via_newtonschulz = orthogonal
        weights = [module.weight for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
        self.weights = weights[:-1]
        # The same numbers, and gradients as such views.
        self.views = [nn.Parameter(weight.data.view(len(weight), -1)) for weight in self.weights]
        ids = {id(weight) for weight in self.weights}
        others = [parameter for parameter in model.parameters() if id(parameter) not in ids]
        settings = dict(settings)
        betas, eps = (settings.pop("beta1"), settings.pop("beta2")), settings.pop("eps")
        self.adamw = torch.optim.AdamW(others, lr=lr, betas=betas, eps=eps, weight_decay=settings["weight_decay"])
        self.muon = torch.optim.Muon(self.views, lr=lr, adjust_lr_fn="match_rms_adamw", **settings)

    def zero_grad(self):
        self.adamw.zero_grad()
        for weight in self.weights:
            weight.grad = None

    def step(self):
        for view, weight in zip(self.views, self.weights):
            view.grad = weight.grad.view_as(view)
        self.adamw.step()
        self.muon.step()


def optimizer_of(settings, model, lr):
    settings = dict(settings)
    kind = settings.pop("type")
    if kind == "muon":
        return Muon(model, lr, settings)
    if kind == "sgd":
        return torch.optim.SGD(model.parameters(), lr=lr, **settings)
    betas = settings.pop("beta1"), settings.pop("beta2")
    return torch.optim.AdamW(model.parameters(), lr=lr, betas=betas, **settings)


def data(folder):
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:TRAIN]
    with gzip.open(folder / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)[:TRAIN]
    return torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64))


def noise(shape):
    """As many images as `NOISE`, and their labels."""
    images = np.floor(256 * uniform([SEED, name_hash("images")], NOISE * math.prod(shape))).astype(np.uint8)
    labels = np.floor(10 * uniform([SEED, name_hash("labels")], NOISE)).astype(np.int64)
    return torch.from_numpy(images.reshape(NOISE, *shape)), torch.from_numpy(labels)


def losses(model, settings, lr, steps, images, labels, batch):
    """Losses of training in the model's own precision."""
    optimizer = optimizer_of(settings, model, lr)
    out, start = [], 0
    for _ in range(steps):
        x = images[start : start + batch].to(next(model.parameters()).dtype)
        loss = F.cross_entropy(model(x), labels[start : start + batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        out.append(loss.item())
        start = start + batch if start + batch < len(images) else 0
    return out


def determined(name, make_model, images, labels, normalise, settings, lr, steps, batch):
    """The losses in f32, up to where they leave those in f64."""
    f32, f64 = (
        losses(make_model().to(t), settings, lr, steps, normalise(images.to(t)), labels, batch)
        for t in (torch.float32, torch.float64)
    )
    apart = [abs(a - b) / abs(b) for a, b in zip(f32, f64)]
    kept = next((i for i, difference in enumerate(apart) if difference > DETERMINED), steps)
    print(f"{name} {settings['type']} lr {lr}: f32 leaves f64 by {max(apart):.1e}; {kept} of {steps} steps kept")
    assert steps == SHORT or kept == steps, "only a short curve may end early"
    # Nine digits are all that an f32 has.
    return [float(f"{loss:.9g}") for loss in f32[:kept]]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=pathlib.Path, default=HERE / "../../datasets/fashion-mnist-10k")
    parser.add_argument("--only")
    arguments = parser.parse_args()
    images, labels = data(arguments.data)
    is_asked = lambda settings: arguments.only in (None, settings["type"])
    curves = []
    if arguments.only:
        made = json.loads((HERE / "reference.json").read_text())["curves"]
        curves = [curve for curve in made if not is_asked(curve["optimizer"])]
    for model, settings, lr, steps in CURVES:
        if not is_asked(settings):
            continue
        normalise = lambda x: (x / 255 - MEAN) / STD
        kept = determined(model, lambda: Model(model), images, labels, normalise, settings, lr, steps, BATCH)
        curves.append({"model": model, "lr": lr, "optimizer": settings, "losses": kept})
    for model, given, settings, lr, steps in LARGER:
        if not is_asked(settings):
            continue
        normalise = lambda x: (x / 255 - NOISE_MEAN) / NOISE_STD
        images, labels = noise(given["shape"])
        batch = given["batch_size"]
        make_model = lambda: Vit(given["shape"], **TINY_VIT) if model == "vit" else residual(model)
        kept = determined(model, make_model, images, labels, normalise, settings, lr, steps, batch)
        size = {"size": TINY_VIT} if model == "vit" else {}
        curves.append({"model": model, **size, "noise": given, "lr": lr, "optimizer": settings, "losses": kept})
    rows = ",\n".join(json.dumps(curve) for curve in curves)
    head = json.dumps({"torch": torch.__version__, "seed": SEED, "batch_size": BATCH})
    (HERE / "reference.json").write_text(f'{head[:-1]}, "curves": [\n{rows}\n]}}\n')


if __name__ == "__main__":
    main()
