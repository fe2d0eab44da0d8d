"""Initialisers: how a weight starts, as data, and the numbers they draw.

Each weight draws from its own generator, keyed by the seed and the weight's name, so that adding a layer does not
change how the others start.
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Initializer(BaseModel):
    """How a weight starts. `sample(shape, fan, rng)` draws float64 values; `fan` is (fan in, fan out)."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
    keyword: ClassVar[str] = ""
    one_by_one: ClassVar[bool] = False
    """Whether elements are drawn in their order, each for itself: then a large weight is drawn in pieces."""

    def sample(self, shape: tuple[int, ...], fan: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
        raise NotImplementedError


class Constant(Initializer):
    """The same number everywhere: `constant(0.1)`; `zeros` and `ones` are constant(0) and constant(1)."""

    one_by_one = True
    kind: Literal["constant"] = "constant"
    value: float = 0.0

    def sample(self, shape: tuple[int, ...], fan: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
        import numpy as np

        return np.full(shape, self.value, dtype=np.float64)


class Normal(Initializer):
    """Gaussian with a standard deviation: `normal(0.01)`, `normal(std = 0.02, mean = 1)`."""

    one_by_one = True
    kind: Literal["normal"] = "normal"
    std: Annotated[float, Field(ge=0)] = 0.01
    mean: float = 0.0

    def sample(self, shape: tuple[int, ...], fan: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
        return rng.standard_normal(shape) * self.std + self.mean


class Uniform(Initializer):
    """Uniform on [-limit, limit): `uniform(0.1)`."""

    one_by_one = True
    kind: Literal["uniform"] = "uniform"
    limit: Annotated[float, Field(ge=0)] = 0.05

    def sample(self, shape: tuple[int, ...], fan: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
        return rng.uniform(-self.limit, self.limit, shape)


class Scaled(Initializer):
    """Variance scaling: variance gain^2 * scale / fan, drawn from a normal or uniform distribution.

    glorot: 2 / (fan in + fan out) (Glorot and Bengio 2010); he: 2 / fan in (He et al. 2015); lecun: 1 / fan in
    (LeCun et al. 1998). `he_normal`, `glorot_uniform` and so on; a gain may be given: `glorot_uniform(1.4)`.
    """

    one_by_one = True
    kind: Literal["scaled"] = "scaled"
    scheme: Literal["glorot", "he", "lecun"]
    distribution: Literal["normal", "uniform"]
    gain: Annotated[float, Field(gt=0)] = 1.0

    def sample(self, shape: tuple[int, ...], fan: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
        fan_in, fan_out = max(fan[0], 1), max(fan[1], 1)
        variance = {"glorot": 2 / (fan_in + fan_out), "he": 2 / fan_in, "lecun": 1 / fan_in}[self.scheme]
        std = self.gain * math.sqrt(variance)
        if self.distribution == "normal":
            return rng.standard_normal(shape) * std
        limit = math.sqrt(3) * std
        return rng.uniform(-limit, limit, shape)


class Orthogonal(Initializer):
    """Rows (or columns, whichever are fewer) orthonormal, times a gain (Saxe et al. 2014): `orthogonal`."""

    kind: Literal["orthogonal"] = "orthogonal"
    gain: float = 1.0

    def sample(self, shape: tuple[int, ...], fan: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
        if len(shape) < 2:
            raise ValueError("orthogonal needs a weight of at least two axes")
        rows, columns = shape[0], math.prod(shape[1:])
        basis = _orthonormal(rng.standard_normal((max(rows, columns), min(rows, columns))).T)
        return (self.gain * (basis.T if rows >= columns else basis)).reshape(shape)


def _orthonormal(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return an orthonormal basis of the rows: what a QR factorisation with a positive diagonal gives.

    Gram and Schmidt's method in blocks, each projection done twice, which keeps it exact (Giraud et al. 2005). LAPACK's
    QR synchronises its threads for every column, and takes seconds for a small matrix where another process is busy.
    """
    import numpy as np

    basis = np.array(rows)
    for start in range(0, len(basis), 64):
        done, block = basis[:start], basis[start : start + 64]
        for _ in range(2):
            block -= (block @ done.T) @ done
        for i, row in enumerate(block):
            for _ in range(2):
                row -= (block[:i] @ row) @ block[:i]
            row /= math.sqrt(row @ row)
    return basis


class Identity(Initializer):
    """The identity matrix times a gain (Le et al. 2015); convolutions get it at the kernel's centre: `identity`."""

    kind: Literal["identity"] = "identity"
    gain: float = 1.0

    def sample(self, shape: tuple[int, ...], fan: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
        import numpy as np

        if len(shape) < 2:
            raise ValueError("identity needs a weight of at least two axes")
        values = np.zeros(shape, dtype=np.float64)
        centre = tuple(k // 2 for k in shape[2:])
        for i in range(min(shape[0], shape[1])):
            values[(i, i, *centre)] = self.gain
        return values


class Values(Initializer):
    """Numbers given in the spec, row by row: `init = [[1, 0], [0, 1]]`."""

    kind: Literal["values"] = "values"
    shape: tuple[int, ...]
    values: tuple[float, ...]
    """In row-major order."""

    def sample(self, shape: tuple[int, ...], fan: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
        import numpy as np

        if self.shape != shape:
            raise ValueError(f"the values have shape {list(self.shape)}, the weight {list(shape)}")
        return np.asarray(self.values, dtype=np.float64).reshape(shape)


class Stacked(Initializer):
    """Several initialisers side by side along the first axis, such as the gates of a recurrent cell's bias.

    `stacked([zeros, ones, zeros, zeros])` starts the second quarter of the rows at one.
    """

    kind: Literal["stacked"] = "stacked"
    parts: Annotated[tuple[AnyInitializer, ...], Field(min_length=1)]

    def sample(self, shape: tuple[int, ...], fan: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
        import numpy as np

        if not shape or shape[0] % len(self.parts):
            raise ValueError(f"{len(self.parts)} parts do not divide the first axis of {list(shape)}")
        rows = shape[0] // len(self.parts)
        part_fan = (fan[0], max(1, fan[1] // len(self.parts)))
        return np.concatenate([part.sample((rows, *shape[1:]), part_fan, rng) for part in self.parts])


AnyInitializer = Annotated[
    Constant | Normal | Uniform | Scaled | Orthogonal | Identity | Values | Stacked, Field(discriminator="kind")
]
ZEROS = Constant(value=0.0)
ONES = Constant(value=1.0)
HE_NORMAL = Scaled(scheme="he", distribution="normal")
GLOROT_UNIFORM = Scaled(scheme="glorot", distribution="uniform")

NAMED: dict[str, Initializer | type[Initializer]] = {
    "zeros": ZEROS,
    "ones": ONES,
    "constant": Constant,
    "normal": Normal,
    "uniform": Uniform,
    "orthogonal": Orthogonal,
    "identity": Identity,
    "stacked": Stacked,
    **{
        f"{scheme}_{distribution}": Scaled(scheme=scheme, distribution=distribution)
        for scheme in ("glorot", "he", "lecun")
        for distribution in ("normal", "uniform")
    },
}
"""The names that a spec can use: an initialiser, or a class that takes arguments."""


def default_fan(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return (fan in, fan out) of a weight laid out [out, in, *kernel]; a vector counts as its own fan."""
    if len(shape) < 2:
        n = shape[0] if shape else 1
        return n, n
    receptive = math.prod(shape[2:])
    return shape[1] * receptive, shape[0] * receptive


_PIECE = 1 << 16
"""Elements that are drawn at once, in float64."""


def sample(init: Initializer, shape: tuple[int, ...], fan: tuple[int, int] | None, name: str, seed: int) -> Any:
    """Draw a weight's float32 start from `seed` and its name."""
    import numpy as np

    key = [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF, zlib.crc32(name.encode())]
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
    fan = fan or default_fan(shape)
    if not init.one_by_one:
        return init.sample(shape, fan, rng).astype(np.float32)
    drawn = np.empty(math.prod(shape), np.float32)
    for first in range(0, drawn.size, _PIECE):
        piece = drawn[first : first + _PIECE]
        piece[:] = init.sample(piece.shape, fan, rng)
    return drawn.reshape(shape)
