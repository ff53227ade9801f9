#!/usr/bin/env python3
"""PyTorch's side of the training rates in docs/performance.md: tokens a second of a GPT over the bytes of tinyshakespeare.

usage: python benches/language/train.py LAYERS HEADS WIDTH CONTEXT BATCH STEPS [VOCABULARY] [--device cuda] [--compile] [--half]

Fused attention and fused AdamW, as anyone would write it; eager, in f32, on two threads of the processor unless told otherwise
(--half: f16 by autocast, with a scaled loss). Three steps first, unmeasured. A larger vocabulary than bytes need makes a larger
head.
"""

import argparse
import pathlib
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests/parity"))
import make_gpt_reference as reference  # noqa: E402


def attend(self, x):
    n, t, d = x.shape
    parts = self.conv1d("attn__c_attn", self.ln_1(x)).split(d, 2)
    q, k, v = (part.view(n, t, self.heads, d // self.heads).transpose(1, 2) for part in parts)
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    x = x + self.conv1d("attn__c_proj", y.transpose(1, 2).reshape(n, t, d))
    hidden = F.gelu(self.conv1d("mlp__c_fc", self.ln_2(x)), approximate="tanh")
    return x + self.conv1d("mlp__c_proj", hidden)


parser = argparse.ArgumentParser()
for name in ("layers", "heads", "width", "context", "batch", "steps"):
    parser.add_argument(name, type=int)
parser.add_argument("vocabulary", type=int, nargs="?", default=256)
parser.add_argument("--device", default="cpu")
parser.add_argument("--compile", action="store_true")
parser.add_argument("--half", action="store_true")
args = parser.parse_args()
context, batch, device = args.context, args.batch, torch.device(args.device)
torch.set_num_threads(2)
reference.Block.forward = attend
text = np.fromfile(ROOT / "datasets/tinyshakespeare/input.txt", np.uint8).astype(np.int64)
text = torch.from_numpy(text)
model = reference.Gpt(args.layers, args.heads, args.width, context)
model.wte = torch.nn.Embedding(args.vocabulary, args.width)
torch.nn.init.normal_(model.wte.weight, std=0.02)
model.to(device)
run = torch.compile(model) if args.compile else model
scaler = torch.amp.GradScaler(device.type, enabled=args.half)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
order = torch.Generator().manual_seed(0)


def step():
    starts = torch.randint(len(text) - context - 1, (batch,), generator=order)
    rows = torch.stack([text[i : i + context + 1] for i in starts]).to(device)
    with torch.autocast(device.type, torch.float16, enabled=args.half):
        loss = F.cross_entropy(run(rows[:, :-1]).reshape(-1, args.vocabulary), rows[:, 1:].reshape(-1))
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    return loss


for _ in range(3):
    step().item()
began = time.perf_counter()
for _ in range(args.steps):
    loss = step()
loss = loss.item()
seconds = time.perf_counter() - began
print(f"torch {torch.__version__}: {batch * context * args.steps / seconds:.0f} tokens/s, loss {loss:.3f}")
