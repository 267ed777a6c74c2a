"""PyTorch as a program of _process.mjs: F.linear of float32 or bfloat16, one JSON request per line.

{"what": "open", "m", "n", "k", "dtype": "float32" | "bfloat16"}   x (m, k), weight (n, k)
{"what": "run", "repeats"}                                         seconds of one product
{"what": "version"}
"""
import json
import os
import sys
import time

import torch
import torch.nn.functional as F

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
x = weight = None


def answer(request):
    global x, weight
    if request["what"] == "version":
        return {"version": f"PyTorch {torch.__version__}"}
    if request["what"] == "open":
        dtype = getattr(torch, request["dtype"])
        x = torch.rand(request["m"], request["k"]).sub(0.5).to(dtype)
        weight = torch.rand(request["n"], request["k"]).sub(0.5).to(dtype)
        F.linear(x, weight)
        return {}
    start = time.perf_counter()
    for _ in range(request["repeats"]):
        F.linear(x, weight)
    return {"seconds": (time.perf_counter() - start) / request["repeats"]}


with torch.no_grad():
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
