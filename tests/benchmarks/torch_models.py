"""The benchmark networks in PyTorch: `python -m tests.benchmarks.torch_models CASE` prints torchinfo's summary."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn


def _mlp(features: int, hidden: int, depth: int) -> nn.Module:
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(hidden if i else features, hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, 10))


def _lecture() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 25, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(25, 50, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(1250, 100), nn.ReLU(), nn.Linear(100, 10)),
    )


def _unit(channels: int, filters: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(channels, filters, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(filters)]


class _Basic(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(*_unit(channels, width, 3, stride), nn.ReLU(), *_unit(width, width, 3))
        self.skip = nn.Sequential(*_unit(channels, width, 1, stride)) if stride != 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.main(x) + self.skip(x))


_HEAD = (nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _resnet20() -> nn.Module:
    plan = [(16, 16, 1)] * 3 + [(16, 32, 2), (32, 32, 1), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 64, 1)]
    return nn.Sequential(*_unit(3, 16, 3), nn.ReLU(), *(_Basic(*one) for one in plan), *_HEAD, nn.Linear(64, 10))


def _separable() -> nn.Module:
    layers, channels = [*_unit(3, 32, 3), nn.ReLU()], 32
    for width, stride in ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1)):
        layers += [*_unit(channels, channels, 3, stride, channels), nn.ReLU(), *_unit(channels, width, 1), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, *_HEAD, nn.Linear(128, 10))


class _Recurrent(nn.Module):
    def __init__(self, cell: Callable[..., nn.Module], features: int, units: int) -> None:
        super().__init__()
        self.cell, self.dense = cell(features, units, batch_first=True), nn.Linear(units, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.dense(self.cell(x)[0][:, -1])
        return logits


class _TextCnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5000, 128)
        self.convs = nn.ModuleList(nn.Conv1d(128, 100, k) for k in (3, 4, 5))
        self.dense = nn.Linear(300, 2)

    def forward(self, x: Tensor) -> Tensor:
        e = self.embedding(x).transpose(1, 2)
        logits: Tensor = self.dense(torch.cat([torch.relu(conv(e)).amax(2) for conv in self.convs], 1))
        return logits


class _Shift(nn.Module):
    """Add a parameter of the shape of a sample."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b


def _alphago() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(48, 192, 5, padding=2), nn.ReLU()]
    for _ in range(11):
        layers += [nn.Conv2d(192, 192, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(192, 1, 1, bias=False), _Shift(1, 19, 19), nn.Flatten())


class _Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(1000, 128), _Shift(64, 128)
        encoder = [nn.TransformerEncoderLayer(128, 4, 512, 0.0, batch_first=True, norm_first=True) for _ in range(2)]
        self.encoder, self.dense = nn.Sequential(*encoder), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.dense(self.encoder(self.position(self.embedding(x))).mean(1))
        return logits


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], torch.dtype]] = {
    "mlp-64": (lambda: _mlp(64, 64, 1), (64,), torch.float32),
    "mlp-500": (lambda: _mlp(784, 500, 2), (784,), torch.float32),
    "mlp-2000": (lambda: _mlp(784, 2000, 3), (784,), torch.float32),
    "lecture-cnn": (_lecture, (1, 28, 28), torch.float32),
    "resnet20": (_resnet20, (3, 32, 32), torch.float32),
    "separable": (_separable, (3, 32, 32), torch.float32),
    "lstm-128": (lambda: _Recurrent(nn.LSTM, 28, 128), (28, 28), torch.float32),
    "lstm-512": (lambda: _Recurrent(nn.LSTM, 512, 512), (50, 512), torch.float32),
    "lstm-32": (lambda: _Recurrent(nn.LSTM, 32, 32), (20, 32), torch.float32),
    "gru-128": (lambda: _Recurrent(nn.GRU, 28, 128), (28, 28), torch.float32),
    "text-cnn": (_TextCnn, (56,), torch.int64),
    "alphago-192": (_alphago, (48, 19, 19), torch.float32),
    "transformer": (_Transformer, (64,), torch.int64),
}


def main(case: str) -> None:
    """Print the summary, and in a last line the number of parameters."""
    from torchinfo import summary

    build, shape, dtype = MODELS[case]
    found = summary(build(), (1, *shape), dtypes=[dtype], verbose=0)
    print(found)
    print(found.total_params)


if __name__ == "__main__":
    main(sys.argv[1])
