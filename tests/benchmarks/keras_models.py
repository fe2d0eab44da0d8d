"""The benchmark networks in Keras: `python -m tests.benchmarks.keras_models CASE` prints Keras's own summary."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import keras
from keras import layers as k


def _mlp(features: int, hidden: int, depth: int) -> Any:
    x = y = keras.Input((features,))
    for _ in range(depth):
        y = k.Dense(hidden, "relu")(y)
    return keras.Model(x, k.Dense(10)(y))


def _lecture() -> Any:
    x = y = keras.Input((28, 28, 1))
    for filters in (25, 50):
        y = k.MaxPool2D()(k.Conv2D(filters, 3, activation="relu")(y))
    return keras.Model(x, k.Dense(10)(k.Dense(100, "relu")(k.Flatten()(y))))


def _unit(x: Any, filters: int, kernel: int, stride: int = 1) -> Any:
    return k.BatchNormalization()(k.Conv2D(filters, kernel, stride, "same", use_bias=False)(x))


def _resnet20() -> Any:
    x = keras.Input((32, 32, 3))
    y = k.ReLU()(_unit(x, 16, 3))
    for width, stride in [(16, 1)] * 3 + [(32, 2), (32, 1), (32, 1), (64, 2), (64, 1), (64, 1)]:
        main = _unit(k.ReLU()(_unit(y, width, 3, stride)), width, 3)
        y = k.ReLU()(k.Add()([main, _unit(y, width, 1, stride) if stride != 1 else y]))
    return keras.Model(x, k.Dense(10)(k.GlobalAveragePooling2D()(y)))


def _separable() -> Any:
    x = keras.Input((32, 32, 3))
    y = k.ReLU()(_unit(x, 32, 3))
    for width, stride in ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1)):
        y = k.ReLU()(k.BatchNormalization()(k.DepthwiseConv2D(3, stride, "same", use_bias=False)(y)))
        y = k.ReLU()(_unit(y, width, 1))
    return keras.Model(x, k.Dense(10)(k.GlobalAveragePooling2D()(y)))


def _recurrent(cell: Any, steps: int, features: int) -> Any:
    x = keras.Input((steps, features))
    return keras.Model(x, k.Dense(10)(cell(x)))


def _text_cnn() -> Any:
    x = keras.Input((56,), dtype="int64")
    e = k.Embedding(5000, 128)(x)
    pooled = [k.GlobalMaxPooling1D()(k.Conv1D(100, size, activation="relu")(e)) for size in (3, 4, 5)]
    return keras.Model(x, k.Dense(2)(k.Concatenate()(pooled)))


class _Shift(k.Layer):  # type: ignore[misc]
    """Add a parameter of the shape of a sample."""

    def build(self, shape: tuple[int, ...]) -> None:
        self.b = self.add_weight(shape=shape[1:], initializer="zeros")

    def call(self, x: Any) -> Any:
        return x + self.b


def _alphago() -> Any:
    x = keras.Input((19, 19, 48))
    y = k.Conv2D(192, 5, padding="same", activation="relu")(x)
    for _ in range(11):
        y = k.Conv2D(192, 3, padding="same", activation="relu")(y)
    return keras.Model(x, k.Flatten()(_Shift()(k.Conv2D(1, 1, use_bias=False)(y))))


def _transformer() -> Any:
    x = keras.Input((64,), dtype="int64")
    y = _Shift()(k.Embedding(1000, 128)(x))
    for _ in range(2):
        normed = k.LayerNormalization()(y)
        y = k.Add()([y, k.MultiHeadAttention(4, 32)(normed, normed)])
        y = k.Add()([y, k.Dense(128)(k.Dense(512, "relu")(k.LayerNormalization()(y)))])
    return keras.Model(x, k.Dense(10)(k.GlobalAveragePooling1D()(y)))


MODELS: dict[str, Callable[[], Any]] = {
    "mlp-64": lambda: _mlp(64, 64, 1),
    "mlp-500": lambda: _mlp(784, 500, 2),
    "mlp-2000": lambda: _mlp(784, 2000, 3),
    "lecture-cnn": _lecture,
    "resnet20": _resnet20,
    "separable": _separable,
    "lstm-128": lambda: _recurrent(k.LSTM(128), 28, 28),
    "lstm-512": lambda: _recurrent(k.LSTM(512), 50, 512),
    "lstm-32": lambda: _recurrent(k.LSTM(32), 20, 32),
    # With reset_after Keras has a second bias.
    "gru-128": lambda: _recurrent(k.GRU(128), 28, 28),
    "text-cnn": _text_cnn,
    "alphago-192": _alphago,
    "transformer": _transformer,
}


def main(case: str) -> None:
    """Print the summary, and in a last line the number of parameters."""
    model = MODELS[case]()
    model.summary()
    print(sum(w.value.size for w in model.trainable_variables))


if __name__ == "__main__":
    main(sys.argv[1])
