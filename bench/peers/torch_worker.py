"""PyTorch as a program of _process.mjs: whole training steps (forward, backward, clipping, AdamW), one JSON request per line.

{"what": "open", "model": "mambapy" | "transformers" | "gpt", "compile": bool, "d_model", "n_layer", "vocab", "length", "batch"}
{"what": "step"}        tokens per second of one step
{"what": "versions"}

mambapy: its parallel scan. transformers: MambaForCausalLM without the CUDA packages (its path for CPUs). gpt: pre-norm blocks of
causal attention (scaled_dot_product_attention) and a GELU MLP of four times the width.
"""
import importlib.metadata as metadata
import json
import os
import resource
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


class MambaPy(nn.Module):
    def __init__(self, vocab, d_model, n_layer):
        from mambapy.mamba import Mamba, MambaConfig

        super().__init__()
        self.embedding = nn.Embedding(vocab, d_model)
        self.backbone = Mamba(MambaConfig(d_model=d_model, n_layers=n_layer, pscan=True))
        self.norm = nn.RMSNorm(d_model, eps=1e-5)

    def forward(self, ids):
        return F.linear(self.norm(self.backbone(self.embedding(ids))), self.embedding.weight)


class Transformers(nn.Module):
    def __init__(self, vocab, d_model, n_layer):
        from transformers import MambaConfig, MambaForCausalLM

        super().__init__()
        self.model = MambaForCausalLM(MambaConfig(vocab_size=vocab, hidden_size=d_model, num_hidden_layers=n_layer))

    def forward(self, ids):
        return self.model(ids, use_cache=False).logits


class Block(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.heads = d // 64
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))

    def forward(self, x):
        b, l, d = x.shape
        q, k, v = (t.view(b, l, self.heads, -1).transpose(1, 2) for t in self.qkv(self.norm1(x)).split(d, 2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, l, d))
        return x + self.mlp(self.norm2(x))


class Gpt(nn.Module):
    """Positions are fixed sines, so that the size does not depend on the length."""

    def __init__(self, vocab, d_model, n_layer, length):
        super().__init__()
        self.embedding = nn.Embedding(vocab, d_model)
        self.blocks = nn.Sequential(*(Block(d_model) for _ in range(n_layer)))
        self.norm = nn.LayerNorm(d_model)
        angle = torch.arange(length)[:, None] / 10000 ** (torch.arange(0, d_model, 2) / d_model)
        self.register_buffer("positions", torch.cat([angle.sin(), angle.cos()], 1))

    def forward(self, ids):
        x = self.embedding(ids) + self.positions[: ids.shape[1]]
        return F.linear(self.norm(self.blocks(x)), self.embedding.weight)


def open_model(request):
    torch.manual_seed(0)
    sizes = request["vocab"], request["d_model"], request["n_layer"]
    kind = request["model"]
    model = {"mambapy": MambaPy, "transformers": Transformers}[kind](*sizes) if kind != "gpt" else Gpt(*sizes, request["length"])
    run = torch.compile(model) if request.get("compile") else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)
    ids = torch.randint(0, request["vocab"], (request["batch"], request["length"]))

    def step():
        logits = run(ids)
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), ids.reshape(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step, ids.numel(), sum(p.numel() for p in model.parameters())


def versions():
    names = ["torch", "mambapy", "transformers"]
    found = [f"{name} {metadata.version(name)}" for name in names if any(d.name == name for d in metadata.distributions())]
    return ", ".join(found)


step, tokens = None, 0
for line in sys.stdin:
    request = json.loads(line)
    try:
        if request["what"] == "versions":
            answer = {"versions": [versions()]}
        elif request["what"] == "open":
            step, tokens, parameters = open_model(request)
            answer = {"parameters": parameters}
        else:
            start = time.perf_counter()
            step()
            answer = {"tokensPerSecond": tokens / (time.perf_counter() - start)}
    except Exception as error:  # the driver tells
        answer = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
    answer["peakMib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(answer), flush=True)
