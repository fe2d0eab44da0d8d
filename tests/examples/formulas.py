"""The figures of published networks from their papers' tables, by plain loops that know nothing of nnspec.

Each function returns (parameters, multiply-accumulates): biases and normalisation count as parameters, not as products.
"""

from __future__ import annotations


class Count:
    """Adds up layers as they are listed."""

    def __init__(self) -> None:
        self.parameters = 0
        self.macs = 0

    def conv(self, i: int, o: int, k: int, out: int, *, groups: int = 1, bias: bool = True, norm: bool = False) -> int:
        """Add a k x k convolution from i to o channels on an `out` x `out` result; return o."""
        weights = o * (i // groups) * k * k
        self.parameters += weights + o * bias + 2 * o * norm
        self.macs += weights * out * out
        return o

    def dense(self, i: int, o: int) -> int:
        """Add a fully connected layer with a bias; return o."""
        self.parameters += o * i + o
        self.macs += o * i
        return o

    @property
    def result(self) -> tuple[int, int]:
        """(parameters, multiply-accumulates)."""
        return self.parameters, self.macs


def digits() -> tuple[int, int]:
    n = Count()
    n.conv(1, 32, 3, 8, norm=True)
    n.conv(32, 64, 3, 8, norm=True)
    n.conv(64, 64, 3, 4, norm=True)
    n.dense(64, 10)
    return n.result


def lecture_cnn() -> tuple[int, int]:
    n = Count()
    n.conv(1, 25, 3, 26)
    n.conv(25, 50, 3, 11)
    n.dense(n.dense(50 * 5 * 5, 100), 10)
    return n.result


def lenet5() -> tuple[int, int]:
    n = Count()
    n.conv(1, 6, 5, 28)
    n.conv(6, 16, 5, 10)
    n.dense(n.dense(n.dense(400, 120), 84), 10)
    return n.result


def alexnet(groups: int) -> tuple[int, int]:
    n = Count()
    n.conv(3, 96, 11, 55)
    n.conv(96, 256, 5, 27, groups=groups)
    n.conv(256, 384, 3, 13)
    n.conv(384, 384, 3, 13, groups=groups)
    n.conv(384, 256, 3, 13, groups=groups)
    n.dense(n.dense(n.dense(256 * 6 * 6, 4096), 4096), 1000)
    return n.result


def vgg(depths: list[int]) -> tuple[int, int]:
    n, channels, size = Count(), 3, 224
    for filters, depth in zip([64, 128, 256, 512, 512], depths, strict=True):
        for _ in range(depth):
            channels = n.conv(channels, filters, 3, size)
        size //= 2
    n.dense(n.dense(n.dense(512 * 7 * 7, 4096), 4096), 1000)
    return n.result


def googlenet() -> tuple[int, int]:
    n = Count()
    n.conv(3, 64, 7, 112)
    n.conv(64, 64, 1, 56)
    channels = n.conv(64, 192, 3, 56)
    for size, table in (
        (28, [(64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)]),
        (
            14,
            [
                (192, 96, 208, 16, 48, 64),
                (160, 112, 224, 24, 64, 64),
                (128, 128, 256, 24, 64, 64),
                (112, 144, 288, 32, 64, 64),
                (256, 160, 320, 32, 128, 128),
            ],
        ),
        (7, [(256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)]),
    ):
        for one, reduce3, three, reduce5, five, pool in table:
            n.conv(channels, one, 1, size)
            n.conv(n.conv(channels, reduce3, 1, size), three, 3, size)
            n.conv(n.conv(channels, reduce5, 1, size), five, 5, size)
            n.conv(channels, pool, 1, size)
            channels = one + three + five + pool
    n.dense(channels, 1000)
    return n.result


def resnet(depths: list[int], *, bottlenecks: bool) -> tuple[int, int]:
    n, size = Count(), 56
    channels = n.conv(3, 64, 7, 112, bias=False, norm=True)
    for stage, depth in enumerate(depths):
        width = 64 * 2**stage
        out = 4 * width if bottlenecks else width
        for i in range(depth):
            before = size
            if stage and i == 0:
                size //= 2
            if bottlenecks:
                n.conv(channels, width, 1, before, bias=False, norm=True)
                n.conv(width, width, 3, size, bias=False, norm=True)
                n.conv(width, out, 1, size, bias=False, norm=True)
            else:
                n.conv(channels, width, 3, size, bias=False, norm=True)
                n.conv(width, width, 3, size, bias=False, norm=True)
            if size != before or channels != out:
                n.conv(channels, out, 1, size, bias=False, norm=True)
            channels = out
    n.dense(channels, 1000)
    return n.result


def mobilenet() -> tuple[int, int]:
    n, size = Count(), 112
    channels = n.conv(3, 32, 3, size, bias=False, norm=True)
    for filters, stride in [
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        *[(512, 1)] * 5,
        (1024, 2),
        (1024, 1),
    ]:
        size //= stride
        n.conv(channels, channels, 3, size, groups=channels, bias=False, norm=True)
        channels = n.conv(channels, filters, 1, size, bias=False, norm=True)
    n.dense(channels, 1000)
    return n.result


def highway(units: int, depth: int) -> tuple[int, int]:
    n = Count()
    n.dense(784, units)
    for _ in range(2 * depth):
        n.dense(units, units)
    n.dense(units, 10)
    return n.result


def alphago_policy(filters: int) -> tuple[int, int]:
    n = Count()
    n.conv(48, filters, 5, 19)
    for _ in range(11):
        n.conv(filters, filters, 3, 19)
    n.conv(filters, 1, 1, 19, bias=False)
    n.parameters += 19 * 19
    return n.result


def textcnn(vocabulary: int, length: int) -> tuple[int, int]:
    n = Count()
    n.parameters += 300 * vocabulary
    for words in (3, 4, 5):
        n.parameters += 100 * (300 * words + 1)
        n.macs += 100 * 300 * words * (length - words + 1)
    n.dense(300, 2)
    return n.result


def siamese() -> tuple[int, int]:
    n = Count()
    channels = 1
    for _ in range(3):
        channels = n.conv(channels, 16, 3, 28)
    n.dense(16 * 28 * 28, 64)
    return n.parameters, 2 * n.macs


def autoencoder(size: int) -> tuple[int, int]:
    n = Count()
    n.conv(1, 16, 3, 14)
    n.conv(16, 32, 3, 7)
    n.dense(n.dense(32 * 7 * 7, size), 32 * 7 * 7)
    # A transposed convolution multiplies each element that goes in by its kernel.
    for channels, filters, before in ((32, 16, 7), (16, 1, 14)):
        n.parameters += channels * filters * 16 + filters
        n.macs += channels * filters * 16 * before * before
    return n.result
