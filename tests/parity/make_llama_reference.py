#!/usr/bin/env python3
"""Writes llama_reference.json: what PyTorch makes of LLaMA's architecture, for tests/language.rs.

usage: python make_llama_reference.py [--data FILE]

Needs torch and numpy; where transformers is installed as well, its `LlamaForCausalLM` must find the same logits from the same
file of weights as the model that is written out here. Weights, training and making text are as in make_gpt_reference.py,
of `llama-nano`, and of a small model with a base and an eps of its own; keys and values are shared by several heads, and the
head is one of its own.
"""

import argparse
import json
import math
import pathlib

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from make_gpt_reference import BATCH, BETAS, CLEAR, CONTEXT, DECAY, DETERMINED, LR, POSITIONS, PROMPT, SEED, TOKENS
from make_gpt_reference import losses, make
from make_reference import initial_normal

HERE = pathlib.Path(__file__).parent
NANO = {"layers": 3, "heads": 3, "kv_heads": 1, "width": 48, "hidden": 128, "theta": 10000.0, "eps": 1e-6}
MAKING = {"layers": 2, "heads": 4, "kv_heads": 2, "width": 32, "hidden": 40, "theta": 300.0, "eps": 1e-5}
MAKING_STD = 0.25


class Norm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


def linear(inside, out):
    return nn.Linear(inside, out, bias=False)


def turn(x, theta):
    """Rotary positions of x[n, heads, t, len]: feature i turns with feature i + len / 2."""
    t, half = x.shape[-2], x.shape[-1] // 2
    angles = torch.outer(torch.arange(t, dtype=x.dtype), theta ** -(torch.arange(half, dtype=x.dtype) / half))
    cosine, sine = angles.cos(), angles.sin()
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)


class Attention(nn.Module):
    def __init__(self, width, heads, kv_heads, theta):
        super().__init__()
        self.heads, self.kv_heads, self.theta = heads, kv_heads, theta
        kept = width // heads * kv_heads
        self.q_proj, self.o_proj = linear(width, width), linear(width, width)
        self.k_proj, self.v_proj = linear(width, kept), linear(width, kept)

    def forward(self, x):
        n, t, d = x.shape
        divided = lambda x, heads: x.view(n, t, heads, -1).transpose(1, 2)
        q = turn(divided(self.q_proj(x), self.heads), self.theta)
        k = turn(divided(self.k_proj(x), self.kv_heads), self.theta)
        v = divided(self.v_proj(x), self.kv_heads)
        k, v = (part.repeat_interleave(self.heads // self.kv_heads, 1) for part in (k, v))
        scores = q @ k.transpose(-2, -1) / math.sqrt(d // self.heads)
        mask = torch.triu(torch.ones(t, t, dtype=torch.bool), 1)
        y = scores.masked_fill(mask, -math.inf).softmax(-1) @ v
        return self.o_proj(y.transpose(1, 2).reshape(n, t, d))


class Mlp(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = linear(width, hidden), linear(width, hidden), linear(hidden, width)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(nn.Module):
    def __init__(self, heads, kv_heads, width, hidden, theta, eps):
        super().__init__()
        self.self_attn, self.mlp = Attention(width, heads, kv_heads, theta), Mlp(width, hidden)
        self.input_layernorm, self.post_attention_layernorm = Norm(width, eps), Norm(width, eps)

    def forward(self, x):
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    def __init__(self, layers, width, eps, std=None, **block):
        super().__init__()
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(256, width)
        self.model.layers = nn.ModuleList(Block(width=width, eps=eps, **block) for _ in range(layers))
        self.model.norm = Norm(width, eps)
        self.lm_head = linear(width, 256)
        for name, parameter in self.named_parameters():
            if std is None and parameter.ndim == 1:
                continue
            parameter.data.copy_(torch.from_numpy(initial_normal(name, parameter.shape, std or 0.02, SEED)))
            if parameter.ndim == 1:
                parameter.data += 1

    def forward(self, ids):
        x = self.model.embed_tokens(ids)
        for block in self.model.layers:
            x = block(x)
        return self.lm_head(self.model.norm(x))


def hugging_face_config():
    """The config.json of the model that makes text."""
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 256,
        "hidden_size": MAKING["width"], "intermediate_size": MAKING["hidden"],
        "num_hidden_layers": MAKING["layers"], "num_attention_heads": MAKING["heads"],
        "num_key_value_heads": MAKING["kv_heads"], "max_position_embeddings": POSITIONS,
        "rms_norm_eps": MAKING["eps"], "rope_theta": MAKING["theta"], "hidden_act": "silu",
        "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False, "rope_scaling": None,
    }  # fmt: skip


def check_against_transformers():
    try:
        import transformers
    except ImportError:
        print("transformers is not installed: its model was not compared")
        return
    model = Llama(**MAKING, std=MAKING_STD)
    other = transformers.LlamaForCausalLM(transformers.LlamaConfig(**hugging_face_config()))
    print(other.load_state_dict(model.state_dict()))
    ids = torch.arange(POSITIONS)[None] * 7 % 256
    with torch.no_grad():
        apart = (model(ids) - other(ids).logits).abs().max().item()
    print(f"transformers {transformers.__version__} is {apart:.1e} away")
    assert apart < 1e-4


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=pathlib.Path, default=HERE / "../../datasets/tinyshakespeare/input.txt")
    text = torch.from_numpy(np.frombuffer(parser.parse_args().data.read_bytes(), np.uint8).astype(np.int64))
    check_against_transformers()
    single, double = (losses(Llama(**NANO), text, dtype) for dtype in (torch.float32, torch.float64))
    apart = max(abs(a - b) / abs(b) for a, b in zip(single, double))
    print(f"losses {single[0]:.4f} to {single[-1]:.4f}; f32 leaves f64 by {apart:.1e}")
    assert apart < DETERMINED
    made, probabilities, clear = make(Llama(**MAKING, std=MAKING_STD), torch.float64)
    assert make(Llama(**MAKING, std=MAKING_STD), torch.float32)[0] == made
    print(f"{len(set(made))} different tokens of {TOKENS}; the best is {clear:.1e} before the next")
    assert clear > CLEAR
    training = {"context": CONTEXT, "batch_size": BATCH, "lr": LR, "beta2": BETAS[1], "weight_decay": DECAY}
    making = {"positions": POSITIONS, "std": MAKING_STD, "prompt": PROMPT, "tokens": made}
    reference = {
        "torch": torch.__version__, "seed": SEED,
        "training": {**training, "losses": [float(f"{loss:.9g}") for loss in single]},
        "making": {
            **making, "config": hugging_face_config(),
            "log_probabilities": [float(f"{p:.7g}") for p in probabilities],
        },
    }  # fmt: skip
    (HERE / "llama_reference.json").write_text(json.dumps(reference) + "\n")


if __name__ == "__main__":
    main()
