#!/usr/bin/env python3
"""PyTorch's side of the decoding rates in docs/performance.md, and weights to decode with.

usage: python benches/language/decode.py LAYERS HEADS WIDTH VOCABULARY CONTEXT TOKENS [WEIGHTS.safetensors]

Makes a GPT-2 of these sizes with random weights, writes them by Hugging Face's names where a file is named, and prints the
tokens that follow 15 and 99 greedily, how far each was before the next at least, and the rate: one text, with a cache of
keys and values, in f32 on two threads. `inflight generate WEIGHTS.safetensors` must make the same tokens of the same prompt
(as bytes, `$'\\x0f'c`, or for a vocabulary of GPT-2 '0').
"""

import json
import math
import pathlib
import struct
import sys
import time

import torch
import torch.nn.functional as F

layers, heads, width, vocabulary, context, count = map(int, sys.argv[1:7])
torch.set_num_threads(2)
torch.manual_seed(1)
weights = {}


def normal(name, *shape, std, mean=0.0):
    weights[name] = mean + torch.randn(*shape) * std


normal("wte.weight", vocabulary, width, std=0.06)
normal("wpe.weight", context, width, std=0.02)
for layer in range(layers):
    for name in ("ln_1", "ln_2"):
        normal(f"h.{layer}.{name}.weight", width, std=0.1, mean=1.0)
        normal(f"h.{layer}.{name}.bias", width, std=0.05)
    for name, inside, out in (
        ("attn.c_attn", width, 3 * width), ("attn.c_proj", width, width),
        ("mlp.c_fc", width, 4 * width), ("mlp.c_proj", 4 * width, width),
    ):  # fmt: skip
        normal(f"h.{layer}.{name}.weight", inside, out, std=0.05)
        normal(f"h.{layer}.{name}.bias", out, std=0.02)
normal("ln_f.weight", width, std=0.1, mean=1.0)
normal("ln_f.bias", width, std=0.05)


def write(path):
    head, blobs, at = {}, [], 0
    for name, value in weights.items():
        blobs.append(value.numpy().tobytes())
        end = at + len(blobs[-1])
        head[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    pathlib.Path(path).write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def linear(name, x):
    return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]


def norm(name, x):
    return F.layer_norm(x, (width,), weights[f"{name}.weight"], weights[f"{name}.bias"])


@torch.no_grad()
def decode(prompt):
    keys, values = (torch.zeros(layers, heads, context, width // heads) for _ in range(2))
    tokens, margin, position = list(prompt), math.inf, 0
    while len(tokens) < len(prompt) + count:
        x = weights["wte.weight"][tokens[position]] + weights["wpe.weight"][position]
        for layer in range(layers):
            q, k, v = linear(f"h.{layer}.attn.c_attn", norm(f"h.{layer}.ln_1", x)).split(width)
            keys[layer, :, position] = k.view(heads, -1)
            values[layer, :, position] = v.view(heads, -1)
            seen = slice(0, position + 1)
            q = q.view(heads, 1, -1)
            y = F.scaled_dot_product_attention(q, keys[layer, :, seen], values[layer, :, seen])
            x = x + linear(f"h.{layer}.attn.c_proj", y.reshape(width))
            hidden = F.gelu(linear(f"h.{layer}.mlp.c_fc", norm(f"h.{layer}.ln_2", x)), approximate="tanh")
            x = x + linear(f"h.{layer}.mlp.c_proj", hidden)
        logits = weights["wte.weight"] @ norm("ln_f", x)
        position += 1
        if position == len(tokens):
            first, second = logits.topk(2).values
            margin = min(margin, (first - second).item())
            tokens.append(logits.argmax().item())
    return tokens[len(prompt) :], margin


if len(sys.argv) > 7:
    write(sys.argv[7])
prompt = [15, 99] if vocabulary == 256 else [15]
tokens, margin = decode(prompt)
began = time.perf_counter()
decode(prompt)
seconds = time.perf_counter() - began
passes = len(prompt) + count - 1
print(json.dumps({"tokens": tokens, "least_margin": margin, "tokens_per_s": passes / seconds}))
