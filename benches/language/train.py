#!/usr/bin/env python3
"""PyTorch's side of the training rates in docs/performance.md: tokens a second of a GPT over the bytes of tinyshakespeare.

usage: python benches/language/train.py LAYERS HEADS WIDTH CONTEXT BATCH STEPS [VOCABULARY]

Fused attention and fused AdamW, as anyone would write it; eager, in f32, on two threads of the processor. Three steps first,
unmeasured. A larger vocabulary than bytes need makes a larger head.
"""

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


layers, heads, width, context, batch, steps = map(int, sys.argv[1:7])
vocabulary = int(sys.argv[7]) if len(sys.argv) > 7 else 256
torch.set_num_threads(2)
reference.Block.forward = attend
text = np.fromfile(ROOT / "datasets/tinyshakespeare/input.txt", np.uint8).astype(np.int64)
text = torch.from_numpy(text)
model = reference.Gpt(layers, heads, width, context)
model.wte = torch.nn.Embedding(vocabulary, width)
torch.nn.init.normal_(model.wte.weight, std=0.02)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
order = torch.Generator().manual_seed(0)


def step():
    starts = torch.randint(len(text) - context - 1, (batch,), generator=order)
    rows = torch.stack([text[i : i + context + 1] for i in starts])
    loss = F.cross_entropy(model(rows[:, :-1]).reshape(-1, vocabulary), rows[:, 1:].reshape(-1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


for _ in range(3):
    step()
began = time.perf_counter()
for _ in range(steps):
    loss = step()
seconds = time.perf_counter() - began
print(f"torch {torch.__version__}: {batch * context * steps / seconds:.0f} tokens/s, loss {loss:.3f}")
