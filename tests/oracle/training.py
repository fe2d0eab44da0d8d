"""Write training.npz: what PyTorch says of the networks, optimizers and losses of tests/training/cases.py, in float64.

Run it from the repository's root with a Python that has torch and NumPy: `python tests/oracle/training.py`.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

spec = importlib.util.spec_from_file_location("cases", Path(__file__).parent.parent / "training" / "cases.py")
cases = importlib.util.module_from_spec(spec)
sys.modules["cases"] = cases
spec.loader.exec_module(cases)
torch.set_default_dtype(torch.float64)


class Basic(nn.Module):
    def __init__(self, inside, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, width, 3, stride, 1, bias=False)
        self.batchnorm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.batchnorm2 = nn.BatchNorm2d(width)
        self.project = stride != 1 or inside != width
        if self.project:
            self.conv3 = nn.Conv2d(inside, width, 1, stride, bias=False)
            self.batchnorm3 = nn.BatchNorm2d(width)

    def forward(self, x):
        main = self.batchnorm2(self.conv2(F.relu(self.batchnorm1(self.conv1(x)))))
        return F.relu(main + (self.batchnorm3(self.conv3(x)) if self.project else x))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, 1, 1, bias=False)
        self.batchnorm1 = nn.BatchNorm2d(6)
        self.basic1 = Basic(6, 6, 1)
        self.basic2 = Basic(6, 10, 2)
        self.dense1 = nn.Linear(10, 10)

    def forward(self, x):
        x = self.basic2(self.basic1(F.relu(self.batchnorm1(self.conv1(x)))))
        return self.dense1(x.mean((2, 3)))


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense1, self.dense2, self.dense3 = nn.Linear(64, 32), nn.Linear(32, 24), nn.Linear(24, 10)

    def forward(self, x):
        return self.dense3(torch.tanh(self.dense2(F.relu(self.dense1(x)))))


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3)
        self.dense1 = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.conv2(F.max_pool2d(F.relu(self.conv1(x)), 2)))
        return self.dense1(x.flatten(1))


class Lecture(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 25, 3), nn.Conv2d(25, 50, 3)
        self.dense1, self.dense2 = nn.Linear(1250, 100), nn.Linear(100, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.dense2(F.relu(self.dense1(x.flatten(1))))


NETWORKS = {"mlp": Mlp, "cnn": Cnn, "lecture": Lecture, "resnet": Residual}


def groups(network, decay):
    """Weight decay applies to matrices and kernels only."""
    weights = list(network.parameters())
    return [
        {"params": [w for w in weights if w.dim() > 1], "weight_decay": decay},
        {"params": [w for w in weights if w.dim() <= 1], "weight_decay": 0.0},
    ]


OPTIMIZERS = {
    "sgd": lambda n: torch.optim.SGD(n.parameters(), 0.1),
    "sgd_momentum": lambda n: torch.optim.SGD(n.parameters(), 0.05, momentum=0.9),
    "momentum": lambda n: torch.optim.SGD(n.parameters(), 0.05, momentum=0.8),
    "nesterov": lambda n: torch.optim.SGD(n.parameters(), 0.05, momentum=0.9, nesterov=True),
    "adam": lambda n: torch.optim.Adam(n.parameters(), 0.001),
    "adamw": lambda n: torch.optim.AdamW(groups(n, 0.1), 0.001),
    "adagrad": lambda n: torch.optim.Adagrad(n.parameters(), 0.02),
    "rmsprop": lambda n: torch.optim.RMSprop(n.parameters(), 0.001),
    "rmsprop_momentum": lambda n: torch.optim.RMSprop(n.parameters(), 0.001, alpha=0.9, momentum=0.5),
    "adadelta": lambda n: torch.optim.Adadelta(n.parameters()),
    "l2": lambda n: torch.optim.SGD(groups(n, 0.05), 0.1),
    "l1": lambda n: torch.optim.SGD(n.parameters(), 0.1),
    "clip_norm": lambda n: torch.optim.SGD(n.parameters(), 0.5),
    "clip_value": lambda n: torch.optim.SGD(n.parameters(), 0.5),
    "clip_l2_adam": lambda n: torch.optim.Adam(groups(n, 0.05), 0.001),
}


def fresh(name):
    network = NETWORKS[name]()
    with torch.no_grad():
        for key, value in network.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.from_numpy(cases.start(name, key, tuple(value.shape)).astype(np.float64)))
    return network.train()


def batch(name, step):
    data = cases.NETWORKS[name].data(name, step)
    return torch.from_numpy(data["image"].astype(np.float64)), torch.from_numpy(data["label"])


def run(name, store):
    image, label = batch(name, 0)
    network = fresh(name)
    store[f"{name}/eval"] = cases.digest(network.eval()(image).detach().numpy())
    network = fresh(name)
    logits = network(image)
    loss = F.cross_entropy(logits, label)
    loss.backward()
    store[f"{name}/loss"] = np.float32(loss.item())
    for key, weight in network.named_parameters():
        store[f"{name}/grad/{key}"] = cases.digest(weight.grad.numpy())
    for kind, make in OPTIMIZERS.items():
        if kind in cases.EXTRAS and name != "mlp":
            continue
        network = fresh(name)
        optimizer = make(network)
        losses = []
        for step in range(cases.STEPS):
            image, label = batch(name, step)
            optimizer.zero_grad()
            loss = F.cross_entropy(network(image), label)
            loss.backward()
            if kind == "l1":
                for weight in network.parameters():
                    if weight.dim() > 1:
                        weight.grad += 0.01 * weight.detach().sign()
            if kind in ("clip_norm", "clip_l2_adam"):
                nn.utils.clip_grad_norm_(network.parameters(), 0.3)
            if kind == "clip_value":
                nn.utils.clip_grad_value_(network.parameters(), 0.01)
            optimizer.step()
            losses.append(loss.item())
        store[f"{name}/{kind}/losses"] = np.array(losses, np.float32)
        for key, value in network.state_dict().items():
            if value.is_floating_point():
                store[f"{name}/{kind}/{key}"] = cases.digest(value.numpy())


def swapped(y):
    """PyTorch has the classes on axis 1."""
    return y.transpose(1, 2)


LOSSES = {
    "cross_entropy": F.cross_entropy,
    "cross_entropy_steps": lambda y, t: F.cross_entropy(swapped(y), t),
    "cross_entropy_image": F.cross_entropy,
    "cross_entropy_soft": F.cross_entropy,
    "cross_entropy_soft_smooth": lambda y, t: F.cross_entropy(y, t, label_smoothing=0.2),
    "cross_entropy_smooth": lambda y, t: F.cross_entropy(y, t, label_smoothing=0.1),
    "cross_entropy_ignore": lambda y, t: F.cross_entropy(swapped(y), t, ignore_index=2),
    "cross_entropy_ignore_smooth": lambda y, t: F.cross_entropy(swapped(y), t, ignore_index=2, label_smoothing=0.1),
    "cross_entropy_large": F.cross_entropy,
    "nll": F.nll_loss,
    "binary_cross_entropy": lambda y, t: F.binary_cross_entropy_with_logits(y, t.double()),
    "binary_cross_entropy_soft": F.binary_cross_entropy_with_logits,
    "square_error": F.mse_loss,
    "square_error_scalar": F.mse_loss,
    "absolute_error": F.l1_loss,
    "huber": lambda y, t: F.huber_loss(y, t, delta=0.7),
    "hinge": F.multi_margin_loss,
    "hinge_margin": lambda y, t: F.multi_margin_loss(y, t, margin=0.3),
    "hinge_binary": lambda y, t: F.relu(1 - y * t).mean(),
    "kl_divergence": lambda y, t: F.kl_div(F.log_softmax(y, -1), t, reduction="batchmean"),
    "cosine_distance": lambda y, t: F.cosine_embedding_loss(y, t, torch.ones(len(y))),
}


def main():
    store = {}
    for name in cases.NETWORKS:
        run(name, store)
    assert LOSSES.keys() == cases.LOSSES.keys()
    for name, loss in LOSSES.items():
        y, t = cases.loss_data(name)
        y = torch.from_numpy(y.astype(np.float64)).requires_grad_()
        t = torch.from_numpy(t if t.dtype == np.int64 else t.astype(np.float64))
        value = loss(y, t)
        value.backward()
        store[f"loss/{name}"] = np.float32(value.item())
        store[f"loss/{name}/grad"] = y.grad.numpy().astype(np.float32)
    np.savez_compressed(cases.ORACLE, **store)
    print(f"{cases.ORACLE}: {len(store)} arrays, {cases.ORACLE.stat().st_size} bytes, torch {torch.__version__}")


if __name__ == "__main__":
    main()
