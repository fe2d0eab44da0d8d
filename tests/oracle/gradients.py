"""Make gradients.npz: outputs and gradients of single operators by PyTorch, where conventions could differ.

Run with a Python that has PyTorch: python tests/oracle/gradients.py. Every entry is `CASE/NAME` for an input, `CASE/y`
for the output and `CASE/grad.NAME` for the gradient of sum(y * weight), where weight is `CASE/weight`. All in float64.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

RNG = np.random.default_rng(20261121)
STORE = {}


def record(case, function, **inputs):
    tensors = {}
    for name, value in inputs.items():
        array = np.asarray(value)
        STORE[f"{case}/{name}"] = array
        tensors[name] = torch.tensor(array, requires_grad=array.dtype == np.float64)
    y = function(*tensors.values())
    weight = torch.tensor(RNG.normal(size=tuple(y.shape)))
    (y * weight).sum().backward()
    STORE[f"{case}/y"] = y.detach().numpy()
    STORE[f"{case}/weight"] = weight.numpy()
    for name, tensor in tensors.items():
        if tensor.requires_grad:
            STORE[f"{case}/grad.{name}"] = tensor.grad.numpy()


def normal(*shape):
    return RNG.normal(size=shape)


GRID = np.array([-1.0, -0.5, 0.0, 0.0, 0.5, 1.0])
TIES = np.array([[1.0, 2.0, 2.0, 0.0], [3.0, 3.0, 3.0, 3.0]])

record("relu", F.relu, x=GRID)
record("abs", torch.abs, x=GRID)
record("clip", lambda x: x.clamp(-0.5, 0.5), x=GRID)
record("maximum", torch.maximum, a=GRID, b=np.array([-1.0, 0.0, 0.0, 1.0, 0.5, 0.0]))
record("minimum", torch.minimum, a=GRID, b=np.array([-1.0, 0.0, 0.0, 1.0, 0.5, 0.0]))
record("amax", lambda x: x.amax(1), x=TIES)
record("amin", lambda x: x.amin(1), x=TIES)
record("prod", lambda x: x.prod(1), x=np.array([[0.0, 2.0, 3.0], [0.0, 0.0, 1.0], [4.0, 5.0, 0.5]]))
record("norm", lambda x: x.norm(dim=1), x=np.array([[3.0, 4.0], [0.0, 0.0], [-1.0, 2.0]]))
record("logsumexp", lambda x: x.logsumexp(1), x=np.array([[1.0, 2.0], [-np.inf, 0.5], [700.0, 701.0]]))
record("pow", lambda x: x**3, x=GRID)
record("gelu", F.gelu, x=GRID * 3)
record("gelu_tanh", lambda x: F.gelu(x, approximate="tanh"), x=GRID * 3)
record("hardswish", F.hardswish, x=np.array([-4.0, -2.0, 0.0, 1.0, 2.9, 5.0]))
record("softmax", lambda x: x.softmax(-1), x=normal(3, 5))
record("log_softmax", lambda x: x.log_softmax(-1), x=normal(3, 5) * 20)
record("cumsum", lambda x: x.cumsum(1), x=normal(2, 4))
record("embedding", lambda w, i: w[i], w=normal(5, 3), i=np.array([[0, 2, 2], [4, 2, 0]]))
record("gather", lambda x, i: x.gather(1, i), x=normal(2, 4), i=np.array([[0, 0, 3], [1, 1, 1]]))
record("scatter_add", lambda x, i, u: x.scatter_add(1, i, u), x=normal(2, 4), i=np.array([[0, 0, 3], [1, 1, 1]]), u=normal(2, 3))
record("topk", lambda x: x.topk(2, dim=1).values, x=normal(3, 5))
for mode in ("reflect", "replicate", "circular"):
    record(f"pad_{mode}", lambda x, mode=mode: F.pad(x, (2, 1, 1, 2), mode=mode), x=normal(1, 2, 4, 5))
record("einsum", lambda a, b: torch.einsum("bhqd,bhkd->bhqk", a, b), a=normal(2, 2, 3, 4), b=normal(2, 2, 5, 4))
record("conv", lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1, dilation=2, groups=2), x=normal(2, 4, 9, 8), w=normal(6, 2, 3, 3), b=normal(6))
record("conv3d", lambda x, w: F.conv3d(x, w, stride=(1, 2, 1), padding=1), x=normal(1, 2, 4, 5, 4), w=normal(3, 2, 3, 2, 3))
record("conv_transpose", lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1, groups=2), x=normal(2, 4, 4, 3), w=normal(4, 3, 3, 3), b=normal(6))
record("max_pool", lambda x: F.max_pool2d(x, 3, stride=2, padding=1), x=RNG.integers(0, 3, (2, 3, 7, 7)).astype(float))
record("max_pool_ceil", lambda x: F.max_pool2d(x, 3, stride=2, ceil_mode=True), x=RNG.integers(0, 3, (1, 2, 8, 8)).astype(float))
record("avg_pool", lambda x: F.avg_pool2d(x, 3, stride=2, padding=1), x=normal(2, 3, 7, 6))
record("avg_pool_exclude", lambda x: F.avg_pool2d(x, 3, stride=2, padding=1, ceil_mode=True, count_include_pad=False), x=normal(2, 3, 8, 6))
record("avg_pool_ceil", lambda x: F.avg_pool2d(x, 3, stride=2, padding=1, ceil_mode=True), x=normal(2, 3, 8, 6))
record("layer_norm", lambda x, w, b: F.layer_norm(x, (5,), w, b), x=normal(3, 4, 5), w=normal(5), b=normal(5))
record("group_norm", lambda x, w, b: F.group_norm(x, 2, w, b), x=normal(2, 4, 3, 3), w=normal(4), b=normal(4))
record("instance_norm", lambda x, w, b: F.instance_norm(x, weight=w, bias=b), x=normal(2, 4, 3, 3), w=normal(4), b=normal(4))
record("batch_norm", lambda x, w, b: F.batch_norm(x, torch.tensor([0.1, -0.2, 0.3]).double(), torch.tensor([1.1, 0.9, 0.7]).double(), w, b), x=normal(4, 3, 2, 2), w=normal(3), b=normal(3))
record("local_response_norm", lambda x: F.local_response_norm(x, 3, alpha=0.5, beta=0.6, k=1.2), x=normal(2, 5, 3, 3))
for align in (True, False):
    record(f"bilinear_{align}", lambda x, align=align: F.interpolate(x, size=(7, 4), mode="bilinear", align_corners=align), x=normal(1, 2, 4, 6))
record("nearest", lambda x: F.interpolate(x, scale_factor=2, mode="nearest"), x=normal(1, 2, 3, 4))
LABEL = np.array([0, 2, 1, 2])
record("cross_entropy", lambda x, label: F.cross_entropy(x, label), x=normal(4, 3), label=LABEL)
record("cross_entropy_weighted", lambda x, label: F.cross_entropy(x, label, weight=torch.tensor([0.3, 0.7, 1.4]).double(), ignore_index=1), x=normal(4, 3), label=LABEL)
record("nll", lambda x, label: F.nll_loss(x, label, reduction="none"), x=normal(4, 3, 2), label=np.array([[0, 2], [1, 1], [2, 0], [0, 0]]))

np.savez_compressed(Path(__file__).with_suffix(".npz"), **STORE)
print(len(STORE), "arrays")
