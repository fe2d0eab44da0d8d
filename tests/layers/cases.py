"""One or more uses of every layer: the spec, and what must come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.layers import reference as r

X = {"x": "[5, 7]"}
IMAGE = {"x": "[4, 7, 6]"}
WIDE = {"x": "[6, 9, 11]"}


@dataclass(frozen=True)
class Case:
    """`expr` makes the output of inputs declared as `inputs`; `expected` computes it from arrays and weights.

    Weights are named by their last part where that is unique. `low` and `high` bound the random inputs.
    """

    keyword: str
    inputs: Mapping[str, str]
    expr: str
    expected: Callable[..., Any]
    note: str = ""
    low: float = -2.0
    high: float = 2.0
    outputs: int = 1

    @property
    def label(self) -> str:
        return f"{self.keyword}-{self.note}" if self.note else self.keyword


def element(keyword: str, function: Callable[[Any], Any], expr: str = "", **bounds: float) -> Case:
    return Case(keyword, X, f"x -> {expr or keyword}", lambda x: function(x), expr if "(" in expr else "", **bounds)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def normal_cdf(x: Any) -> Any:
    return (1 + r.erf(x / np.sqrt(2))) / 2


ELEMENTS = [
    element("relu", lambda x: np.maximum(x, 0)),
    element("sigmoid", sigmoid),
    element("tanh", np.tanh),
    element("softplus", lambda x: np.log1p(np.exp(x))),
    element("softsign", lambda x: x / (1 + abs(x))),
    element(
        "selu",
        lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    ),
    element("hard_sigmoid", lambda x: np.clip(x / 6 + 0.5, 0, 1), low=-5, high=5),
    element("silu", lambda x: x * sigmoid(x)),
    element("mish", lambda x: x * np.tanh(np.log1p(np.exp(x)))),
    element("leaky_relu", lambda x: np.where(x > 0, x, 0.01 * x)),
    element("leaky_relu", lambda x: np.where(x > 0, x, 0.3 * x), "leaky_relu(0.3)"),
    element("elu", lambda x: np.where(x > 0, x, np.expm1(x))),
    element("elu", lambda x: np.where(x > 0, x, 0.5 * np.expm1(x)), "elu(0.5)"),
    element("gelu", lambda x: x * normal_cdf(x)),
    element(
        "gelu",
        lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
        "gelu(approximate = true)",
    ),
    element("clip", lambda x: np.clip(x, -1, 0.5), "clip(-1, 0.5)"),
    element("power", lambda x: x**1.5, "power(1.5)", low=0.1),
    element("square", np.square),
    element("exp", np.exp),
    element("log", np.log, low=0.1),
    element("sqrt", np.sqrt, low=0.1),
    element("abs", np.abs),
    element("neg", np.negative),
    element("sign", np.sign),
    element("reciprocal", np.reciprocal, low=0.3),
    element("sin", np.sin),
    element("cos", np.cos),
    element("tan", np.tan, low=-1.2, high=1.2),
    element("erf", r.erf),
    element("floor", np.floor),
    element("ceil", np.ceil),
    element("round", np.round),
    element("dropout", lambda x: x, "dropout(0.5)"),
    element("stop_gradient", lambda x: x),
    Case("logical_not", X, "not (x -> relu)", lambda x: (np.maximum(x, 0) == 0) * 1.0),
    Case("real", {"n": "int[3]"}, "n -> real", lambda n: n.astype(np.float64)),
    Case("one_hot", {"n": "int[3]"}, "n -> one_hot(60)", lambda n: np.eye(60)[n]),
    Case("embedding", {"n": "int[3, 2]"}, "n -> embedding(60, 4)", lambda n, weight: weight[n]),
    Case("param", X, "p + x", lambda x, p: x + p),
    Case("literal", X, "x * [1, 2, 3, 4, 5, 6, 7]", lambda x: x * np.arange(1, 8)),
]

BINARY = [
    Case("add", {"x": "[4]", "y": "[4]", "z": "[4]"}, "(x, y, z) -> add", lambda x, y, z: x + y + z),
    Case("sub", X, "3 - x", lambda x: 3 - x, "number first"),
    Case("sub", X, "x - 3", lambda x: x - 3, "number last"),
    Case("mul", {"x": "[5, 7]", "y": "[7]"}, "x * y", lambda x, y: x * y[:, None], "lower rank"),
    Case("mul", {"x": "[7]", "y": "[5, 1]"}, "x * y", lambda x, y: x[:, None] * y, "both stretched"),
    Case("mul", {"n": "int[3]", "x": "[3]"}, "n * x", lambda n, x: n * x, "integers and reals"),
    Case("add", {"n": "int[3]"}, "real(n + 1)", lambda n: n + 1.0, "integers"),
    Case("div", {"n": "int[3]"}, "n / 2", lambda n: n / 2, "integers"),
    Case("div", X, "1 / x", lambda x: 1 / x, "number first", low=0.5),
    Case("pow", X, "2 ** x", lambda x: 2**x, "number first"),
    Case("pow", X, "x ** 3", lambda x: x**3),
    Case("minimum", X, "(x, x * x) -> minimum", lambda x: np.minimum(x, x * x)),
    Case("maximum", X, "(x, x * x, x + 1) -> maximum", lambda x: np.maximum(x + 1, x * x)),
    Case("maximum", X, "maximum(x, number = 0.5)", lambda x: np.maximum(x, 0.5), "number"),
    Case("equal", {"n": "int[40]"}, "n == 3", lambda n: (n == 3) * 1.0),
    Case("not_equal", {"n": "int[40]"}, "n != 3", lambda n: (n != 3) * 1.0),
    Case("less", X, "x < 0.5", lambda x: (x < 0.5) * 1.0),
    Case("less_equal", X, "(x -> round) <= 1", lambda x: (np.round(x) <= 1) * 1.0),
    Case("greater", X, "0 > x", lambda x: (x < 0) * 1.0, "number first"),
    Case("greater_equal", X, "(x -> round) >= 1", lambda x: (np.round(x) >= 1) * 1.0),
    Case("mul", X, "(x > 0) and (x < 1)", lambda x: ((x > 0) & (x < 1)) * 1.0, "and"),
    Case("maximum", X, "(x > 1) or (x < 0)", lambda x: ((x > 1) | (x < 0)) * 1.0, "or"),
    Case("where", {"x": "[5, 7]", "y": "[7]"}, "where(x > 0, y, x)", lambda x, y: np.where(x > 0, y[:, None], x)),
    Case("matmul", {"x": "[5, 7]", "y": "[7, 3]"}, "x @ y", lambda x, y: x @ y, "matrices"),
    Case("matmul", {"x": "[7]", "y": "[7, 3]"}, "x @ y", lambda x, y: np.einsum("ni,nij->nj", x, y), "row"),
    Case("matmul", {"x": "[5, 7]", "y": "[7]"}, "x @ y", lambda x, y: np.einsum("nij,nj->ni", x, y), "column"),
    Case("matmul", {"x": "[7]", "y": "[7]"}, "x @ y", lambda x, y: (x * y).sum(-1), "vectors"),
    Case("matmul", {"x": "[2, 5, 7]", "y": "[7, 3]"}, "x @ y", lambda x, y: x @ y[:, None], "stack and matrix"),
    Case("matmul", {"x": "[2, 1, 5, 7]", "y": "[3, 7, 4]"}, "x @ y", lambda x, y: x @ y[:, None], "stretched stacks"),
    Case("matmul", {"x": "[5, 7]"}, "x @ m", lambda x, m: x @ m, "param on the right"),
    Case("matmul", {"x": "[7, 3]"}, "q @ x", lambda x, q: q @ x, "param on the left"),
    Case("matmul", {"x": "[7]"}, "x @ m", lambda x, m: x @ m, "row and param"),
    Case("matmul", {"x": "[2, 7]"}, "x @ v", lambda x, v: x @ v, "param vector"),
    Case("matmul", {"x": "[7, 2]"}, "v @ x", lambda x, v: v @ x, "param vector on the left"),
]


def conv_case(note: str, shape: str, expr: str, keyword: str = "conv", **options: Any) -> Case:
    def expected(x: Any, weight: Any, bias: Any = None) -> Any:
        return r.conv(x, weight, bias, **options)

    return Case(keyword, {"x": shape}, f"x -> {keyword}({expr})", expected, note)


def transpose_case(note: str, shape: str, expr: str, **options: Any) -> Case:
    def expected(x: Any, weight: Any, bias: Any) -> Any:
        return r.conv_transpose(x, weight, bias, **options)

    return Case("conv_transpose", {"x": shape}, f"x -> conv_transpose({expr})", expected, note)


def sames(shape: tuple[int, ...], kernel: tuple[int, ...], **options: int) -> dict[str, list[int]]:
    pairs = [r.same(s, k, **options) for s, k in zip(shape, kernel, strict=True)]
    return {"begins": [b for b, _ in pairs], "ends": [e for _, e in pairs]}


CONVOLUTIONS = [
    conv_case("1d", "[3, 10]", "4, 3"),
    conv_case("2d", "[3, 7, 6]", "4, 3x2, stride = 2x1", stride=[2, 1]),
    conv_case("3d", "[2, 4, 5, 6]", "3, 2x3x2, pad = 1", begins=[1, 1, 1]),
    conv_case("no bias", "[3, 7, 6]", "4, 3, bias = false"),
    conv_case("valid", "[3, 7, 6]", "4, 3, pad = valid"),
    conv_case("same", "[3, 7, 6]", "4, 3x3, pad = same", **sames((7, 6), (3, 3))),
    conv_case("same, even", "[3, 7, 6]", "4, 4x2, pad = same", **sames((7, 6), (4, 2))),
    conv_case(
        "same, stride", "[3, 7, 6]", "4, 3, pad = same, stride = 2", stride=[2, 2], **sames((7, 6), (3, 3), stride=2)
    ),
    conv_case(
        "same, stride beyond kernel",
        "[3, 7, 6]",
        "4, 2, pad = same, stride = 3",
        stride=[3, 3],
        **sames((7, 6), (2, 2), stride=3),
    ),
    conv_case(
        "same, dilation",
        "[3, 9, 8]",
        "4, 3, pad = same, dilation = 2",
        dilation=[2, 2],
        **sames((9, 8), (3, 3), dilation=2),
    ),
    conv_case("size", "[3, 7, 6]", "4, 3, pad = 0x2", begins=[0, 2]),
    conv_case("begins and ends", "[3, 7, 6]", "4, 3, pad = [0, 1, 2, 3]", begins=[0, 1], ends=[2, 3]),
    conv_case("groups", "[6, 7, 6]", "4, 3, groups = 2", groups=2),
    conv_case("depthwise", "[6, 7, 6]", "12, 3, groups = 6, pad = 1", groups=6, begins=[1, 1]),
    conv_case("dilation", "[3, 9, 8]", "4, 3x2, dilation = 2x3", dilation=[2, 3]),
    transpose_case("1d", "[3, 5]", "4, 3, stride = 2", stride=[2], begins=[0], ends=[0]),
    transpose_case("2d", "[3, 4, 5]", "4, 4, stride = 2, pad = 1", stride=[2, 2], begins=[1, 1], ends=[1, 1]),
    transpose_case(
        "3d, groups",
        "[4, 2, 3, 2]",
        "6, 2, stride = 1, groups = 2",
        stride=[1] * 3,
        begins=[0] * 3,
        ends=[0] * 3,
        groups=2,
    ),
    transpose_case(
        "output pad",
        "[3, 4, 5]",
        "4, 3, stride = 2, pad = 1, output_pad = 1",
        stride=[2, 2],
        begins=[1, 1],
        ends=[1, 1],
        extra=[1, 1],
    ),
    transpose_case(
        "dilation, uneven",
        "[3, 4, 5]",
        "4, 3x2, stride = 2x3, dilation = 2x1, pad = [0, 1, 2, 0]",
        stride=[2, 3],
        dilation=[2, 1],
        begins=[0, 1],
        ends=[2, 0],
    ),
    transpose_case("same", "[3, 4, 5]", "4, 3, stride = 2, pad = same", stride=[2, 2], begins=[0, 0], ends=[1, 1]),
]


def pool_case(keyword: str, note: str, shape: str, expr: str, **options: Any) -> Case:
    mean = keyword == "avgpool"
    return Case(keyword, {"x": shape}, f"x -> {keyword}({expr})", lambda x: r.pool(x, mean=mean, **options), note)


POOLS = [
    case
    for keyword in ("maxpool", "avgpool")
    for case in (
        pool_case(keyword, "1d", "[3, 10]", "3", kernel=[3], stride=[3]),
        pool_case(keyword, "2d", "[3, 7, 6]", "2", kernel=[2, 2], stride=[2, 2]),
        pool_case(keyword, "3d", "[2, 4, 5, 6]", "2x1x3, stride = 1", kernel=[2, 1, 3], stride=[1, 1, 1]),
        pool_case(keyword, "overlapping", "[3, 9, 8]", "3, stride = 2", kernel=[3, 3], stride=[2, 2]),
        pool_case(
            keyword, "padded", "[3, 7, 6]", "3, stride = 2, pad = 1", kernel=[3, 3], stride=[2, 2], begins=[1, 1]
        ),
        pool_case(
            keyword,
            "uneven pad",
            "[3, 7, 6]",
            "3x3, stride = 2, pad = [0, 1, 2, 0]",
            kernel=[3, 3],
            stride=[2, 2],
            begins=[0, 1],
            ends=[2, 0],
        ),
        pool_case(
            keyword,
            "same",
            "[3, 7, 6]",
            "3, stride = 2, pad = same",
            kernel=[3, 3],
            stride=[2, 2],
            **sames((7, 6), (3, 3), stride=2),
        ),
        pool_case(keyword, "ceil", "[3, 8, 7]", "3, stride = 2, ceil = true", kernel=[3, 3], stride=[2, 2], ceil=True),
        pool_case(
            keyword,
            "ceil, padded",
            "[3, 8, 6]",
            "3, stride = 2, pad = 1, ceil = true",
            kernel=[3, 3],
            stride=[2, 2],
            begins=[1, 1],
            ceil=True,
        ),
        pool_case(
            keyword,
            "ceil, window behind the end",
            "[3, 5, 5]",
            "2, stride = 3, pad = 1, ceil = true",
            kernel=[2, 2],
            stride=[3, 3],
            begins=[1, 1],
            ceil=True,
        ),
    )
] + [
    pool_case(
        "avgpool",
        "count pad",
        "[3, 7, 6]",
        "3, stride = 2, pad = 1, count_pad = true",
        kernel=[3, 3],
        stride=[2, 2],
        begins=[1, 1],
        count_pad=True,
    ),
    pool_case(
        "avgpool",
        "count pad, ceil",
        "[3, 8, 6]",
        "3, stride = 2, pad = 1, count_pad = true, ceil = true",
        kernel=[3, 3],
        stride=[2, 2],
        begins=[1, 1],
        count_pad=True,
        ceil=True,
    ),
    Case("global_avgpool", IMAGE, "x -> global_avgpool", lambda x: x.mean((2, 3))),
    Case("global_avgpool", X, "x -> global_avgpool", lambda x: x.mean(2), "1d"),
    Case("global_maxpool", {"x": "[2, 3, 4, 5]"}, "x -> global_maxpool", lambda x: x.max((2, 3, 4)), "3d"),
]


def batchnorm(x: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, epsilon: float = 1e-5) -> Any:
    wide = (-1, 1, 1) if x.ndim == 4 else (-1,)
    w, b, m, v = (a.reshape(wide) for a in (weight, bias, running_mean, running_var))
    return (x - m) / np.sqrt(v + epsilon) * w + b


def groupnorm(x: Any, weight: Any, bias: Any, groups: int) -> Any:
    grouped = r.normalise(x.reshape(x.shape[0], groups, -1), (2,)).reshape(x.shape)
    wide = (-1, *[1] * (x.ndim - 2))
    return grouped * weight.reshape(wide) + bias.reshape(wide)


NORMALISATIONS = [
    Case("batchnorm", IMAGE, "x -> batchnorm", batchnorm, "image"),
    Case("batchnorm", {"x": "[9]"}, "x -> batchnorm(epsilon = 0.1)", lambda **a: batchnorm(**a, epsilon=0.1), "vector"),
    Case("batchnorm", X, "x -> batchnorm", batchnorm, "sequence"),
    Case(
        "batchnorm",
        IMAGE,
        "x -> batchnorm(affine = false)",
        lambda x, running_mean, running_var: batchnorm(x, np.ones(4), np.zeros(4), running_mean, running_var),
        "without scale",
    ),
    Case("layernorm", X, "x -> layernorm", lambda x, weight, bias: r.normalise(x, (2,)) * weight + bias),
    Case("layernorm", X, "x -> layernorm(affine = false)", lambda x: r.normalise(x, (2,)), "without scale"),
    Case(
        "layernorm",
        IMAGE,
        "x -> layernorm",
        lambda x, weight, bias: r.normalise(x, (1, 2, 3)) * weight[:, None, None] + bias[:, None, None],
        "image",
    ),
    Case("groupnorm", WIDE, "x -> groupnorm(3)", lambda x, weight, bias: groupnorm(x, weight, bias, 3)),
    Case("groupnorm", X, "x -> groupnorm(5)", lambda x, weight, bias: groupnorm(x, weight, bias, 5), "sequence"),
    Case("lrn", WIDE, "x -> lrn(5, alpha = 0.5)", lambda x: r.lrn(x, 5, 0.5, 0.75, 1.0), "odd"),
    Case("lrn", WIDE, "x -> lrn(9, 0.3, 0.5, k = 2)", lambda x: r.lrn(x, 9, 0.3, 0.5, 2.0), "wider than the image"),
    Case("lrn", X, "x -> lrn(3, alpha = 1)", lambda x: r.lrn(x, 3, 1, 0.75, 1.0), "sequence"),
    Case("lrn", {"x": "[5, 2, 3, 4]"}, "x -> lrn(3, alpha = 1)", lambda x: r.lrn(x, 3, 1, 0.75, 1.0), "3d"),
    Case("lrn", WIDE, "x -> lrn(3, alpha = 1)", lambda x: r.lrn(x, 3, 1, 0.75, 1.0), "narrow"),
    Case("normalize", X, "x -> normalize", lambda x: x / np.sqrt((x**2).sum(-1, keepdims=True))),
    Case("softmax", X, "x -> softmax", r.softmax),
    Case("softmax", IMAGE, "x -> softmax(axis = 0)", lambda x: r.softmax(x, 1), "first axis"),
    Case("softmax", IMAGE, "x -> softmax(axis = -2)", lambda x: r.softmax(x, 2), "axis from the back"),
    Case("log_softmax", IMAGE, "x -> log_softmax(axis = 1)", lambda x: np.log(r.softmax(x, 2))),
    Case("prelu", IMAGE, "x -> prelu", lambda x, weight: np.where(x > 0, x, weight * x), "image"),
    Case("prelu", X, "x -> prelu", lambda x, weight: np.where(x > 0, x, weight * x), "sequence"),
    Case("maxout", {"x": "[8]"}, "x -> maxout(2)", lambda x: x.reshape(-1, 4, 2).max(-1), "vector"),
    Case("maxout", IMAGE, "x -> maxout(2)", lambda x: x.reshape(-1, 2, 2, 7, 6).max(2), "image"),
    Case("dense", {"x": "[6]"}, "x -> dense(3)", lambda x, weight, bias: x @ weight.T + bias, "vector"),
    Case("dense", IMAGE, "x -> dense(3)", lambda x, weight, bias: x @ weight.T + bias, "any rank"),
    Case("dense", {"x": "[6]"}, "x -> dense(3, bias = false)", lambda x, weight: x @ weight.T, "no bias"),
]

REDUCTIONS = [
    Case("sum", X, "x -> sum", lambda x: x.sum((1, 2))),
    Case("sum", IMAGE, "x -> sum(axis = 1, keep = true)", lambda x: x.sum(2, keepdims=True), "keep"),
    Case("sum", {"n": "int[3]"}, "real(n -> sum)", lambda n: n.sum(1) * 1.0, "integers"),
    Case("mean", IMAGE, "x -> mean(axis = -1)", lambda x: x.mean(-1)),
    Case("max", IMAGE, "x -> max(axis = 0)", lambda x: x.max(1)),
    Case("min", X, "x -> min", lambda x: x.min((1, 2))),
    Case("l2norm", X, "x -> l2norm(axis = 0)", lambda x: np.sqrt((x**2).sum(1))),
    Case("l1norm", X, "x -> l1norm", lambda x: abs(x).sum((1, 2))),
    Case("logsumexp", X, "(100 * x) -> logsumexp(axis = 1)", lambda x: np.logaddexp.reduce(100 * x, axis=2)),
    Case("argmax", IMAGE, "x -> argmax", lambda x: x.argmax(-1)),
    Case("argmax", IMAGE, "x -> argmax(axis = 0)", lambda x: x.argmax(1), "first axis"),
    Case("cumsum", IMAGE, "x -> cumsum(axis = 1)", lambda x: x.cumsum(2)),
    Case(
        "topk",
        IMAGE,
        "x -> topk(3)",
        lambda x: (-np.sort(-x, axis=-1)[..., :3], np.argsort(-x, axis=-1)[..., :3]),
        outputs=2,
    ),
    Case("last", X, "x -> last", lambda x: x[:, -1]),
    Case("first", X, "x -> first", lambda x: x[:, 0]),
]

MOVES = [
    Case("flatten", IMAGE, "x -> flatten", lambda x: x.reshape(len(x), -1)),
    Case("flatten", {"x": "[]"}, "x -> flatten", lambda x: x.reshape(len(x), 1), "scalar"),
    Case("reshape", IMAGE, "x -> reshape([6, 28])", lambda x: x.reshape(-1, 6, 28)),
    Case("reshape", IMAGE, "x -> reshape([2, -1, 3])", lambda x: x.reshape(len(x), 2, -1, 3), "rest"),
    Case("transpose", IMAGE, "x -> transpose", lambda x: x.swapaxes(2, 3)),
    Case("transpose", IMAGE, "x -> transpose([2, 0, 1])", lambda x: x.transpose(0, 3, 1, 2), "order"),
    Case(
        "concat",
        {"x": "[2, 3, 4]", "y": "[5, 3, 4]"},
        "(x, y) -> concat",
        lambda x, y: np.concatenate((x, y), 1),
        "channels",
    ),
    Case(
        "concat", {"x": "[3, 4]", "y": "[3, 1]"}, "(x, y) -> concat", lambda x, y: np.concatenate((x, y), 2), "features"
    ),
    Case(
        "concat",
        {"x": "[3, 4]", "y": "[2, 4]"},
        "(x, y) -> concat(axis = 0)",
        lambda x, y: np.concatenate((x, y), 1),
        "axis",
    ),
    Case(
        "concat",
        X,
        "(x, q) -> concat(axis = 0)",
        lambda x, q: np.concatenate((x, np.broadcast_to(q, (len(x), *q.shape))), 1),
        "param",
    ),
    Case("stack", {"x": "[3]", "y": "[3]"}, "(x, y) -> stack", lambda x, y: np.stack((x, y), 1)),
    Case("stack", {"x": "[3]", "y": "[3]"}, "(x, y) -> stack(axis = -1)", lambda x, y: np.stack((x, y), -1), "axis"),
    Case("split", WIDE, "x -> split(3)", lambda x: tuple(np.split(x, 3, 1)), "channels", outputs=3),
    Case("split", X, "x -> split([2, 5])", lambda x: (x[..., :2], x[..., 2:]), "sizes", outputs=2),
    Case("split", X, "x -> split(5, axis = 0)", lambda x: tuple(np.split(x, 5, 1)), "axis", outputs=5),
    Case("slice", WIDE, "x -> slice(1, 4)", lambda x: x[:, 1:4]),
    Case("slice", WIDE, "x -> slice(-5, axis = 2)", lambda x: x[..., -5:], "from the end"),
    Case("slice", WIDE, "x -> slice(1, 100, step = 3, axis = -1)", lambda x: x[..., 1::3], "step"),
    Case("slice", WIDE, "x -> slice(8, 1, step = -2, axis = 1)", lambda x: x[:, :, 8:1:-2], "backwards"),
    Case("reverse", X, "x -> reverse", lambda x: x[:, ::-1]),
    Case("reverse", X, "x -> reverse(axis = 1)", lambda x: x[:, :, ::-1], "axis"),
    Case("pad", IMAGE, "x -> pad(2)", lambda x: r.pad(x, [2, 2], [2, 2]), "image"),
    Case("pad", IMAGE, "x -> pad([1, 0, 2, 3], value = 0.5)", lambda x: r.pad(x, [1, 0], [2, 3], 0.5), "sides"),
    Case(
        "pad",
        IMAGE,
        "x -> pad(2, mode = reflect)",
        lambda x: np.pad(x, [(0, 0), (0, 0), (2, 2), (2, 2)], "reflect"),
        "reflect",
    ),
    Case(
        "pad", IMAGE, "x -> pad(2, mode = edge)", lambda x: np.pad(x, [(0, 0), (0, 0), (2, 2), (2, 2)], "edge"), "edge"
    ),
    Case(
        "pad", IMAGE, "x -> pad(1, mode = wrap)", lambda x: np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)], "wrap"), "wrap"
    ),
    Case(
        "pad",
        IMAGE,
        "x -> pad([-1, 2, -2, 0])",
        lambda x: np.pad(x[:, :, 1:-2], [(0, 0), (0, 0), (0, 0), (2, 0)]),
        "crop",
    ),
    Case("pad", X, "x -> pad([1, 2])", lambda x: np.pad(x, [(0, 0), (1, 2), (0, 0)]), "sequence"),
    Case("unsqueeze", X, "x -> unsqueeze(1)", lambda x: x[:, :, None]),
    Case("unsqueeze", X, "x -> unsqueeze(-1)", lambda x: x[..., None], "from the end"),
    Case("squeeze", {"x": "[3, 1, 2]"}, "x -> squeeze(1)", lambda x: x[:, :, 0]),
    Case("repeat", X, "x -> repeat(3)", lambda x: np.repeat(x[:, None], 3, 1)),
    Case("upsample", IMAGE, "x -> upsample(2)", lambda x: x.repeat(2, 2).repeat(2, 3), "nearest"),
    Case("upsample", X, "x -> upsample(3)", lambda x: x.repeat(3, 2), "1d"),
    Case("upsample", IMAGE, "x -> upsample(2x3, mode = linear)", lambda x: r.upsample_linear(x, [2, 3]), "linear"),
    Case(
        "upsample",
        {"x": "[2, 3, 4, 2]"},
        "x -> upsample(2, mode = linear)",
        lambda x: r.upsample_linear(x, [2] * 3),
        "trilinear",
    ),
]

CASES = [*ELEMENTS, *BINARY, *CONVOLUTIONS, *POOLS, *NORMALISATIONS, *REDUCTIONS, *MOVES]
