"""A worker for bench/train.mjs and bench/scan.mjs: PyTorch and mambapy, one measurement per line on stdin.

Reads JSON requests {"what": "train" | "scan", ...} from stdin, answers with one JSON line each: seconds of every repetition
and the peak resident memory of this process in MiB. Ends at end of input.
"""
import json, resource, sys, time
import torch
import torch.nn.functional as F
from mambapy.mamba import Mamba, MambaConfig, MambaBlock


def answer(**fields):
    fields["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(fields), flush=True)


class LanguageModel(torch.nn.Module):
    def __init__(self, vocab, config):
        super().__init__()
        self.embedding = torch.nn.Embedding(vocab, config.d_model)
        self.backbone = Mamba(config)
        self.norm = torch.nn.RMSNorm(config.d_model, eps=1e-5)

    def forward(self, ids):
        return F.linear(self.norm(self.backbone(self.embedding(ids))), self.embedding.weight)


def train_setup(request):
    torch.manual_seed(0)
    config = MambaConfig(d_model=request["d_model"], n_layers=request["n_layer"], pscan=request["pscan"])
    model = LanguageModel(request["vocab"], config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    ids = torch.randint(0, request["vocab"], (request["batch"], request["length"] + 1))

    def step():
        logits = model(ids[:, :-1])
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def scan_setup(request):
    torch.manual_seed(0)
    b, l, e, n = (request[k] for k in ("batch", "length", "channels", "state"))
    block = MambaBlock(MambaConfig(d_model=e // 2, n_layers=1, d_state=n))
    x, delta = torch.randn(b, l, e, requires_grad=True), torch.rand(b, l, e, requires_grad=True)
    A = (-torch.rand(e, n) - 0.1).requires_grad_()
    B, C = torch.randn(b, l, n, requires_grad=True), torch.randn(b, l, n, requires_grad=True)
    D = torch.ones(e, requires_grad=True)
    scan = block.selective_scan if request["pscan"] else block.selective_scan_seq

    def step():
        y = scan(x, delta, A, B, C, D)
        if request["backward"]:
            y.sum().backward()

    def forward():
        with torch.no_grad():
            scan(x, delta, A, B, C, D)

    return step if request["backward"] else forward


steps = {}
for line in sys.stdin:
    request = json.loads(line)
    torch.set_num_threads(request["threads"])
    if request["what"] == "version":
        answer(version=f"PyTorch {torch.__version__}, mambapy")
        continue
    key = json.dumps(request, sort_keys=True)
    if key not in steps:
        steps.clear()
        steps[key] = train_setup(request) if request["what"] == "train" else scan_setup(request)
        steps[key]()
    start = time.perf_counter()
    steps[key]()
    answer(seconds=time.perf_counter() - start)
