#!/usr/bin/env python3
"""Writes gpt_reference.json: what PyTorch makes of GPT-2's architecture, for tests/language.rs.

usage: python make_gpt_reference.py [--data FILE]

Needs torch and numpy. The model is written out here after Hugging Face's `GPT2LMHeadModel`. Its weights are those of
`inflight::nn::init`, made by the same integer arithmetic, so that they need not be stored:

- training: `gpt-nano` over the first windows of datasets/tinyshakespeare in order, in f32, where f64 agrees;
- making text: a small model whose weights are so large that what follows depends on all that was before (those of norms
  are 1 more), greedily; where all positions are taken, it goes on with the later half of them.
"""

import argparse
import json
import math
import pathlib

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from make_reference import initial_normal

HERE = pathlib.Path(__file__).parent
SEED, STEPS, BATCH, CONTEXT = 0, 50, 8, 64
LR, BETAS, DECAY = 1e-3, (0.9, 0.99), 0.1
NANO = {"layers": 3, "heads": 3, "width": 48}
MAKING = {"layers": 2, "heads": 2, "width": 32}
POSITIONS, TOKENS, MAKING_STD = 64, 200, 0.2
PROMPT = "First Citizen:\nBefore we proceed"
# How far f32 may be from f64 for a loss to count as determined: a tenth of the test's tolerance.
DETERMINED = 1e-5
# How far the most probable token must be before the next one.
CLEAR = 1e-3


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        # Conv1D keeps its weight as [in, out].
        for name, inside, out in [
            ("attn.c_attn", width, 3 * width), ("attn.c_proj", width, width),
            ("mlp.c_fc", width, 4 * width), ("mlp.c_proj", 4 * width, width),
        ]:  # fmt: skip
            name = name.replace(".", "__")
            self.register_parameter(f"{name}__weight", nn.Parameter(torch.empty(inside, out)))
            self.register_parameter(f"{name}__bias", nn.Parameter(torch.zeros(out)))

    def conv1d(self, name, x):
        return x @ getattr(self, f"{name}__weight") + getattr(self, f"{name}__bias")

    def forward(self, x):
        n, t, d = x.shape
        q, k, v = self.conv1d("attn__c_attn", self.ln_1(x)).split(d, 2)
        q, k, v = (part.view(n, t, self.heads, d // self.heads).transpose(1, 2) for part in (q, k, v))
        scores = q @ k.transpose(-2, -1) / math.sqrt(d // self.heads)
        mask = torch.triu(torch.ones(t, t, dtype=torch.bool), 1)
        y = scores.masked_fill(mask, -math.inf).softmax(-1) @ v
        x = x + self.conv1d("attn__c_proj", y.transpose(1, 2).reshape(n, t, d))
        hidden = F.gelu(self.conv1d("mlp__c_fc", self.ln_2(x)), approximate="tanh")
        return x + self.conv1d("mlp__c_proj", hidden)


class Gpt(nn.Module):
    def __init__(self, layers, heads, width, positions, std=None):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(256, width), nn.Embedding(positions, width)
        self.h = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width)
        for name, parameter in self.named_parameters():
            name = "transformer." + name.replace("__", ".")
            scale = std
            if std is None:
                if parameter.ndim == 1:
                    continue
                scale = 0.02 / math.sqrt(2 * layers) if name.endswith("c_proj.weight") else 0.02
            parameter.data.copy_(torch.from_numpy(initial_normal(name, parameter.shape, scale, SEED)))
            if ".ln_" in name and name.endswith("weight"):
                parameter.data += 1

    def forward(self, ids):
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1], device=ids.device))
        for block in self.h:
            x = block(x)
        return self.ln_f(x) @ self.wte.weight.T


def losses(model, text, dtype):
    model = model.to(dtype)
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": DECAY},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=1e-8)
    out = []
    for step in range(STEPS):
        starts = [(step * BATCH + i) * CONTEXT for i in range(BATCH)]
        windows = torch.stack([text[start : start + CONTEXT + 1] for start in starts])
        logits = model(windows[:, :-1])
        loss = F.cross_entropy(logits.reshape(-1, 256), windows[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        out.append(loss.item())
    return out


def make(model, dtype):
    model = model.to(dtype)
    window, made, probabilities, clear = list(PROMPT.encode()), [], [], math.inf
    with torch.no_grad():
        for _ in range(TOKENS):
            logits = model(torch.tensor([window]))[0, -1]
            best = logits.topk(2)
            clear = min(clear, (best.values[0] - best.values[1]).item())
            token = best.indices[0].item()
            made.append(token)
            probabilities.append(logits.log_softmax(0)[token].item())
            if len(window) == POSITIONS:
                window = window[POSITIONS - POSITIONS // 2 :]
            window.append(token)
    return made, probabilities, clear


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=pathlib.Path, default=HERE / "../../datasets/tinyshakespeare/input.txt")
    text = torch.from_numpy(np.frombuffer(parser.parse_args().data.read_bytes(), np.uint8).astype(np.int64))
    nano = lambda: Gpt(**NANO, positions=CONTEXT)
    single, double = losses(nano(), text, torch.float32), losses(nano(), text, torch.float64)
    apart = max(abs(a - b) / abs(b) for a, b in zip(single, double))
    print(f"losses {single[0]:.4f} to {single[-1]:.4f}; f32 leaves f64 by {apart:.1e}")
    assert apart < DETERMINED
    making = lambda: Gpt(**MAKING, positions=POSITIONS, std=MAKING_STD)
    made, probabilities, clear = make(making(), torch.float64)
    assert make(making(), torch.float32)[0] == made
    print(f"{len(set(made))} different tokens of {TOKENS}; the best is {clear:.1e} before the next")
    assert clear > CLEAR
    training = {"context": CONTEXT, "batch_size": BATCH, "lr": LR, "beta2": BETAS[1], "weight_decay": DECAY}
    making = {**MAKING, "positions": POSITIONS, "std": MAKING_STD, "prompt": PROMPT, "tokens": made}
    reference = {
        "torch": torch.__version__, "seed": SEED,
        "training": {**training, "losses": [float(f"{loss:.9g}") for loss in single]},
        "making": {**making, "log_probabilities": [float(f"{p:.7g}") for p in probabilities]},
    }  # fmt: skip
    (HERE / "gpt_reference.json").write_text(json.dumps(reference) + "\n")


if __name__ == "__main__":
    main()
