"""The benchmark networks: the .nn text that nnspec compiles, and the same network for the peers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .backends import Backend, Params

if TYPE_CHECKING:
    from nnspec.ir import Network
    from nnspec.recipe import Recipe

Forward = Callable[[Backend, Params, Any], Any]

_TRAIN = """
train Net {{
  target label: int
  loss = cross_entropy(logits, label)
  optimizer = {optimizer}
  batch = {batch}
}}
"""


@dataclass(frozen=True)
class Case:
    """A network, its data and its optimizer. `x` is the input's shape, of integers below `vocabulary` where given."""

    name: str
    spec: str
    forward: Forward
    x: tuple[int, ...]
    batch: int
    classes: int = 10
    vocabulary: int = 0
    optimizer: str = "sgd"
    lr: float = 0.01

    @property
    def text(self) -> str:
        """The whole .nn file."""
        return self.spec + _TRAIN.format(optimizer=f"{self.optimizer}(lr = {self.lr})", batch=self.batch)

    def recipe(self) -> Recipe:
        """Compile it with nnspec."""
        from nnspec.compile import compile_recipe
        from nnspec.source import Source

        return compile_recipe(Source(f"{self.name}.nn", self.text))

    def network(self) -> Network:
        """Compile its network alone with nnspec."""
        from nnspec.compile import compile_network
        from nnspec.source import Source

        return compile_network(Source(f"{self.name}.nn", self.text)).network

    def data(self, batch: int | None = None) -> tuple[Any, Any]:
        """Return a batch of random inputs and labels, the same in every process."""
        rng = np.random.default_rng(0)
        rows = batch or self.batch
        if self.vocabulary:
            x: Any = rng.integers(0, self.vocabulary, (rows, *self.x))
        else:
            x = rng.standard_normal((rows, *self.x)).astype(np.float32)
        return x, rng.integers(0, self.classes, rows)


def _dense(b: Backend, p: Params, x: Any, name: str) -> Any:
    return b.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])


def _mlp(layers: int) -> Forward:
    def forward(b: Backend, p: Params, x: Any) -> Any:
        for i in range(1, layers):
            x = b.relu(_dense(b, p, x, f"dense{i}"))
        return _dense(b, p, x, f"dense{layers}")

    return forward


def _mlp_spec(features: int, hidden: int, depth: int) -> str:
    return f"""
network Net {{
  input x: [{features}]
  output logits = x -> (dense({hidden}) -> relu) * {depth} -> dense(10)
}}"""


def _lecture(b: Backend, p: Params, x: Any) -> Any:
    for i in (1, 2):
        x = b.maxpool(b.relu(b.conv(x, p[f"conv{i}.weight"], p[f"conv{i}.bias"])), 2)
    x = x.reshape(x.shape[0], -1)
    return _dense(b, p, b.relu(_dense(b, p, x, "dense1")), "dense2")


_LECTURE = """
network Net {
  input x: [1, 28, 28]
  output logits = x -> conv(25, 3x3) -> relu -> maxpool(2) -> conv(50, 3x3) -> relu -> maxpool(2)
    -> flatten -> dense(100) -> relu -> dense(10)
}"""


def _resnet20(b: Backend, p: Params, x: Any) -> Any:
    x = b.relu(b.batchnorm(b.conv(x, p["conv1.weight"], pad=1), p, "batchnorm1"))
    for i in range(9):
        s, stride = f"basic{i + 1}", 2 if i in (3, 6) else 1
        y = b.relu(b.batchnorm(b.conv(x, p[f"{s}.conv1.weight"], stride=stride, pad=1), p, f"{s}.batchnorm1"))
        y = b.batchnorm(b.conv(y, p[f"{s}.conv2.weight"], pad=1), p, f"{s}.batchnorm2")
        if stride == 2:
            x = b.batchnorm(b.conv(x, p[f"{s}.conv3.weight"], stride=2), p, f"{s}.batchnorm3")
        x = b.relu(y + x)
    return _dense(b, p, b.mean(x, (2, 3)), "dense1")


_RESNET20 = """
block basic(width, stride = 1) on x {
  main = x -> conv(width, 3x3, stride = stride, pad = 1, bias = false) -> batchnorm -> relu
    -> conv(width, 3x3, pad = 1, bias = false) -> batchnorm
  skip = if stride != 1 { x -> conv(width, 1x1, stride = stride, bias = false) -> batchnorm } else { x }
  return main + skip -> relu
}
network Net {
  input x: [3, 32, 32]
  output logits = x -> conv(16, 3x3, pad = 1, bias = false) -> batchnorm -> relu
    -> basic(16) * 3 -> basic(32, stride = 2) -> basic(32) * 2 -> basic(64, stride = 2) -> basic(64) * 2
    -> global_avgpool -> dense(10)
}"""


_WIDTHS = ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1))


def _separable(b: Backend, p: Params, x: Any) -> Any:
    x = b.relu(b.batchnorm(b.conv(x, p["conv1.weight"], pad=1), p, "batchnorm1"))
    for i, (_, stride) in enumerate(_WIDTHS):
        s, groups = f"separable{i + 1}", x.shape[1]
        x = b.conv(x, p[f"{s}.conv1.weight"], stride=stride, pad=1, groups=groups)
        x = b.relu(b.batchnorm(x, p, f"{s}.batchnorm1"))
        x = b.relu(b.batchnorm(b.conv(x, p[f"{s}.conv2.weight"]), p, f"{s}.batchnorm2"))
    return _dense(b, p, b.mean(x, (2, 3)), "dense1")


_SEPARABLE = f"""
block separable(width, stride) on x {{
  return x -> conv(x.channels, 3x3, stride = stride, pad = 1, groups = x.channels, bias = false) -> batchnorm -> relu
    -> conv(width, 1x1, bias = false) -> batchnorm -> relu
}}
network Net {{
  input x: [3, 32, 32]
  output logits = x -> conv(32, 3x3, pad = 1, bias = false) -> batchnorm -> relu
    -> {" -> ".join(f"separable({w}, {s})" for w, s in _WIDTHS)} -> global_avgpool -> dense(10)
}}"""


def _recurrent(kind: str) -> Forward:
    def forward(b: Backend, p: Params, x: Any) -> Any:
        run = b.lstm if kind == "lstm" else b.gru
        y = run(x, p[f"{kind}1.ih.weight"], p[f"{kind}1.ih.bias"], p[f"{kind}1.hh.weight"])
        return _dense(b, p, y[:, -1], "dense1")

    return forward


def _recurrent_spec(kind: str, steps: int, features: int, units: int) -> str:
    return f"""
network Net {{
  input x: [{steps}, {features}]
  output logits = x -> {kind}({units}) -> last -> dense(10)
}}"""


def _textcnn(b: Backend, p: Params, x: Any) -> Any:
    e = b.transpose(b.embedding(p["embedding1.weight"], x), (0, 2, 1))
    pooled = [b.amax(b.relu(b.conv1d(e, p[f"conv{i}.weight"], p[f"conv{i}.bias"])), 2) for i in (1, 2, 3)]
    return _dense(b, p, b.concat(pooled, 1), "dense1")


_TEXTCNN = """
network Net {
  input x: int[56]
  e = x -> embedding(5000, 128, init = normal(0.1)) -> transpose
  a = e -> conv(100, 3) -> relu -> global_maxpool
  b = e -> conv(100, 4) -> relu -> global_maxpool
  c = e -> conv(100, 5) -> relu -> global_maxpool
  output logits = (a, b, c) -> concat -> dense(2)
}"""


def _alphago(b: Backend, p: Params, x: Any) -> Any:
    x = b.relu(b.conv(x, p["conv1.weight"], p["conv1.bias"], pad=2))
    for i in range(2, 13):
        x = b.relu(b.conv(x, p[f"conv{i}.weight"], p[f"conv{i}.bias"], pad=1))
    x = b.conv(x, p["conv13.weight"]) + p["position_bias1.b"]
    return x.reshape(x.shape[0], -1)


_ALPHAGO = """
block position_bias on x {
  param b: x.shape = zeros
  return x + b
}
network Net {
  input x: [48, 19, 19]
  output logits = x -> conv(192, 5x5, pad = 2) -> relu -> (conv(192, 3x3, pad = 1) -> relu) * 11
    -> conv(1, 1x1, bias = false) -> position_bias -> flatten
}"""


def _transformer(b: Backend, p: Params, x: Any) -> Any:
    x = b.embedding(p["embedding1.weight"], x) + p["position1.p"]
    n, t, d = x.shape
    for i in (1, 2):
        s = f"encoder{i}"

        def norm(v: Any, j: int, s: str = s) -> Any:
            return b.layernorm(v, p[f"{s}.layernorm{j}.weight"], p[f"{s}.layernorm{j}.bias"])

        y = norm(x, 1)
        q, k, v = (
            b.transpose(_dense(b, p, y, f"{s}.dense{j}").reshape(n, t, 4, d // 4), (0, 2, 1, 3)) for j in (1, 2, 3)
        )
        a = b.softmax(q @ b.transpose(k, (0, 1, 3, 2)) / (d // 4) ** 0.5) @ v
        x = x + _dense(b, p, b.transpose(a, (0, 2, 1, 3)).reshape(n, t, d), f"{s}.dense4")
        x = x + _dense(b, p, b.relu(_dense(b, p, norm(x, 2), f"{s}.dense5")), f"{s}.dense6")
    return _dense(b, p, b.mean(x, (1,)), "dense1")


_TRANSFORMER = """
block position on x {
  param p: x.shape = normal(0.02)
  return x + p
}
block heads(count) on x {
  d = x.features // count
  return x -> reshape([x.length, count, d]) -> transpose([1, 0, 2])
}
block encoder(count) on x {
  d = x.features
  y = x -> layernorm
  q, k, v = (y -> dense(d), y -> dense(d), y -> dense(d))
  scores = (q -> heads(count)) @ (k -> heads(count) -> transpose) / sqrt(d // count)
  mixed = softmax(scores) @ (v -> heads(count)) -> transpose([1, 0, 2]) -> reshape(x.shape) -> dense(d)
  z = x + mixed
  return z + (z -> layernorm -> dense(4 * d) -> relu -> dense(d))
}
network Net {
  input x: int[64]
  output logits = x -> embedding(1000, 128, init = normal(0.02)) -> position -> encoder(4) * 2
    -> mean(axis = 0) -> dense(10)
}"""


def _both(case: Case, adam_lr: float = 0.001) -> list[Case]:
    return [case, replace(case, name=f"{case.name}-adam", optimizer="adam", lr=adam_lr)]


CASES: tuple[Case, ...] = (
    *_both(Case("mlp-64", _mlp_spec(64, 64, 1), _mlp(2), (64,), 32)),
    *_both(Case("mlp-500", _mlp_spec(784, 500, 2), _mlp(3), (784,), 100)),
    Case("mlp-2000", _mlp_spec(784, 2000, 3), _mlp(4), (784,), 256),
    *_both(Case("lecture-cnn", _LECTURE, _lecture, (1, 28, 28), 100)),
    # Here and below, rates at which rounding does not decide: at ten times these PyTorch parts from its own float64.
    *_both(Case("resnet20", _RESNET20, _resnet20, (3, 32, 32), 64, lr=1e-3), adam_lr=1e-4),
    Case("separable", _SEPARABLE, _separable, (3, 32, 32), 32),
    *_both(Case("lstm-128", _recurrent_spec("lstm", 28, 28, 128), _recurrent("lstm"), (28, 28), 100)),
    Case("lstm-512", _recurrent_spec("lstm", 50, 512, 512), _recurrent("lstm"), (50, 512), 64),
    Case("lstm-32", _recurrent_spec("lstm", 20, 32, 32), _recurrent("lstm"), (20, 32), 16),
    Case("gru-128", _recurrent_spec("gru", 28, 28, 128), _recurrent("gru"), (28, 28), 100),
    Case("text-cnn", _TEXTCNN, _textcnn, (56,), 50, 2, 5000),
    Case("alphago-192", _ALPHAGO, _alphago, (48, 19, 19), 16, 361, lr=1e-4),
    *_both(Case("transformer", _TRANSFORMER, _transformer, (64,), 32, 10, 1000, lr=1e-3), adam_lr=1e-4),
)

TINY = Case("tiny", _mlp_spec(4, 2, 1), _mlp(2), (4,), 2)
"""No case: a framework that has trained it has loaded its libraries."""
