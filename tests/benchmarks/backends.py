"""The few operations that the benchmark networks are made of, in PyTorch and in JAX.

Each network is written once against this interface, with weights and buffers under nnspec's names, so that the peers
compute what nnspec computes. Every operation is the framework's own fast one: PyTorch's fused LSTM, XLA's convolutions.
"""

from __future__ import annotations

from typing import Any, Protocol

Params = dict[str, Any]

EPSILON = 1e-5
MOMENTUM = 0.1


class Backend(Protocol):
    """What a network may use; tensors are channels-first, sequences batch-first.

    A backend is made for training or for prediction: batch normalisation takes the batch's statistics and moves the
    running ones in the first, and takes the running ones in the second.
    """

    def linear(self, x: Any, w: Any, b: Any = None) -> Any: ...
    def conv(self, x: Any, w: Any, b: Any = None, stride: int = 1, pad: int = 0, groups: int = 1) -> Any: ...
    def conv1d(self, x: Any, w: Any, b: Any = None) -> Any: ...
    def maxpool(self, x: Any, k: int) -> Any: ...
    def batchnorm(self, x: Any, p: Params, name: str) -> Any: ...
    def layernorm(self, x: Any, w: Any, b: Any) -> Any: ...
    def relu(self, x: Any) -> Any: ...
    def softmax(self, x: Any) -> Any: ...
    def embedding(self, table: Any, index: Any) -> Any: ...
    def lstm(self, x: Any, w_ih: Any, b_ih: Any, w_hh: Any) -> Any: ...
    def gru(self, x: Any, w_ih: Any, b_ih: Any, w_hh: Any) -> Any: ...
    def mean(self, x: Any, axes: tuple[int, ...]) -> Any: ...
    def amax(self, x: Any, axis: int) -> Any: ...
    def concat(self, xs: list[Any], axis: int) -> Any: ...
    def transpose(self, x: Any, axes: tuple[int, ...]) -> Any: ...
    def cross_entropy(self, logits: Any, label: Any) -> Any: ...


class Torch:
    """PyTorch."""

    def __init__(self, training: bool = True, compiled: bool = False) -> None:
        import torch
        import torch.nn.functional as functional

        self.torch, self.f, self.training = torch, functional, training
        # torch.compile does with recurrent layers what it does with torch.nn.LSTM: it calls them as they are. Inductor
        # cannot compile the LSTM of the CPU itself.
        self._lstm = torch.compiler.disable(torch.lstm) if compiled else torch.lstm
        self._gru = torch.compiler.disable(torch.gru) if compiled else torch.gru

    def linear(self, x: Any, w: Any, b: Any = None) -> Any:
        return self.f.linear(x, w, b)

    def conv(self, x: Any, w: Any, b: Any = None, stride: int = 1, pad: int = 0, groups: int = 1) -> Any:
        return self.f.conv2d(x, w, b, stride, pad, 1, groups)

    def conv1d(self, x: Any, w: Any, b: Any = None) -> Any:
        return self.f.conv1d(x, w, b)

    def maxpool(self, x: Any, k: int) -> Any:
        return self.f.max_pool2d(x, k)

    def batchnorm(self, x: Any, p: Params, name: str) -> Any:
        mean, var, w, b = _of_norm(p, name)
        return self.f.batch_norm(x, mean, var, w, b, self.training, MOMENTUM, EPSILON)

    def layernorm(self, x: Any, w: Any, b: Any) -> Any:
        return self.f.layer_norm(x, (x.shape[-1],), w, b, EPSILON)

    def relu(self, x: Any) -> Any:
        return self.f.relu(x)

    def softmax(self, x: Any) -> Any:
        return self.torch.softmax(x, -1)

    def embedding(self, table: Any, index: Any) -> Any:
        return self.f.embedding(index, table)

    def lstm(self, x: Any, w_ih: Any, b_ih: Any, w_hh: Any) -> Any:
        h = x.new_zeros(1, x.shape[0], w_hh.shape[1])
        weights = [w_ih, w_hh, b_ih, self.torch.zeros_like(b_ih)]
        return self._lstm(x, (h, h), weights, True, 1, 0.0, self.training, False, True)[0]

    def gru(self, x: Any, w_ih: Any, b_ih: Any, w_hh: Any) -> Any:
        h = x.new_zeros(1, x.shape[0], w_hh.shape[1])
        weights = [w_ih, w_hh, b_ih, self.torch.zeros_like(b_ih)]
        return self._gru(x, h, weights, True, 1, 0.0, self.training, False, True)[0]

    def mean(self, x: Any, axes: tuple[int, ...]) -> Any:
        return x.mean(axes)

    def amax(self, x: Any, axis: int) -> Any:
        return x.amax(axis)

    def concat(self, xs: list[Any], axis: int) -> Any:
        return self.torch.cat(xs, axis)

    def transpose(self, x: Any, axes: tuple[int, ...]) -> Any:
        return x.permute(axes)

    def cross_entropy(self, logits: Any, label: Any) -> Any:
        return self.f.cross_entropy(logits, label)


class Jax:
    """JAX. While a training step is traced, `moved` gathers the running statistics that it leaves behind."""

    def __init__(self, training: bool = True) -> None:
        import jax
        import jax.numpy as jnp

        self.jax, self.np, self.training = jax, jnp, training
        self.moved: Params = {}

    def linear(self, x: Any, w: Any, b: Any = None) -> Any:
        y = x @ w.T
        return y if b is None else y + b

    def conv(self, x: Any, w: Any, b: Any = None, stride: int = 1, pad: int = 0, groups: int = 1) -> Any:
        y = self.jax.lax.conv_general_dilated(
            x, w, (stride, stride), [(pad, pad), (pad, pad)], feature_group_count=groups
        )
        return y if b is None else y + b[:, None, None]

    def conv1d(self, x: Any, w: Any, b: Any = None) -> Any:
        dims = self.jax.lax.conv_dimension_numbers(x.shape, w.shape, ("NCH", "OIH", "NCH"))
        y = self.jax.lax.conv_general_dilated(x, w, (1,), [(0, 0)], dimension_numbers=dims)
        return y if b is None else y + b[:, None]

    def maxpool(self, x: Any, k: int) -> Any:
        window = (1, 1, k, k)
        return self.jax.lax.reduce_window(x, -self.np.inf, self.jax.lax.max, window, window, "VALID")

    def batchnorm(self, x: Any, p: Params, name: str) -> Any:
        mean, var, w, b = _of_norm(p, name)
        if self.training:
            kept_mean, kept_var, count = mean, var, x.size // x.shape[1]
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
            self.moved[f"{name}.running_mean"] = kept_mean + MOMENTUM * (mean - kept_mean)
            self.moved[f"{name}.running_var"] = kept_var + MOMENTUM * (var * count / (count - 1) - kept_var)
        scale = w * self.jax.lax.rsqrt(var + EPSILON)
        return (x - mean[:, None, None]) * scale[:, None, None] + b[:, None, None]

    def layernorm(self, x: Any, w: Any, b: Any) -> Any:
        mean = x.mean(-1, keepdims=True)
        var = ((x - mean) ** 2).mean(-1, keepdims=True)
        return (x - mean) * self.jax.lax.rsqrt(var + EPSILON) * w + b

    def relu(self, x: Any) -> Any:
        return self.jax.nn.relu(x)

    def softmax(self, x: Any) -> Any:
        return self.jax.nn.softmax(x)

    def embedding(self, table: Any, index: Any) -> Any:
        return table[index]

    def lstm(self, x: Any, w_ih: Any, b_ih: Any, w_hh: Any) -> Any:
        jnp, jax = self.np, self.jax
        z = jnp.swapaxes(x @ w_ih.T + b_ih, 0, 1)
        h = jnp.zeros((x.shape[0], w_hh.shape[1]), x.dtype)

        def step(state: Any, zt: Any) -> Any:
            h, c = state
            i, f, g, o = jnp.split(zt + h @ w_hh.T, 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        return jnp.swapaxes(jax.lax.scan(step, (h, h), z)[1], 0, 1)

    def gru(self, x: Any, w_ih: Any, b_ih: Any, w_hh: Any) -> Any:
        jnp, jax = self.np, self.jax
        z = jnp.swapaxes(x @ w_ih.T + b_ih, 0, 1)
        h = jnp.zeros((x.shape[0], w_hh.shape[1]), x.dtype)

        def step(h: Any, zt: Any) -> Any:
            xr, xz, xn = jnp.split(zt, 3, -1)
            hr, hz, hn = jnp.split(h @ w_hh.T, 3, -1)
            r, u = jax.nn.sigmoid(xr + hr), jax.nn.sigmoid(xz + hz)
            h = (1 - u) * jnp.tanh(xn + r * hn) + u * h
            return h, h

        return jnp.swapaxes(jax.lax.scan(step, h, z)[1], 0, 1)

    def mean(self, x: Any, axes: tuple[int, ...]) -> Any:
        return x.mean(axes)

    def amax(self, x: Any, axis: int) -> Any:
        return x.max(axis)

    def concat(self, xs: list[Any], axis: int) -> Any:
        return self.np.concatenate(xs, axis)

    def transpose(self, x: Any, axes: tuple[int, ...]) -> Any:
        return self.np.transpose(x, axes)

    def cross_entropy(self, logits: Any, label: Any) -> Any:
        logp = self.jax.nn.log_softmax(logits)
        return -self.np.take_along_axis(logp, label[:, None], 1).mean()


def _of_norm(p: Params, name: str) -> tuple[Any, Any, Any, Any]:
    """Return running mean, running variance, scale and shift of a batch normalisation."""
    return p[f"{name}.running_mean"], p[f"{name}.running_var"], p[f"{name}.weight"], p[f"{name}.bias"]
