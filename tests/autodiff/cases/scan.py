"""Cases of Scan: backpropagation through time."""

import numpy as np

from nnspec.lower import RECOMPUTE
from tests.autodiff.check import case, rand

T, B, N, H = 4, 3, 2, 5


def loop(op, step, states, scans, recompute=False, **attributes):
    """Append a Scan whose body is `step(body, states, inputs)`, which gives the next states and the outputs."""
    axes = attributes.get("scan_input_axes", [0] * len(scans))
    inputs = [(f"s{i}", v.dtype, _dims(v)) for i, v in enumerate(states)]
    for i, (v, axis) in enumerate(zip(scans, axes, strict=True)):
        dims = list(_dims(v))
        dims.pop(axis)
        inputs.append((f"x{i}", v.dtype, tuple(dims)))
    body = op.subgraph(inputs)
    following, outs = step(body, body.graph.inputs[: len(states)], body.graph.inputs[len(states) :])
    results = []
    for value in [*following, *outs]:
        own = value.producer() is not None and value.graph is body.graph and value not in results
        results.append(value if own else body.Identity(value))
    body.graph.outputs.extend(results)
    made = op.Scan(*states, *scans, body=body.graph, num_scan_inputs=len(scans), outputs=len(results), **attributes)
    if recompute:
        (made[0] if isinstance(made, tuple | list) else made).producer().metadata_props[RECOMPUTE] = "1"
    return made


def _dims(value):
    return tuple(d if isinstance(d, int) else d.value for d in value.shape)


def elman(op, x, h, w, r, b, **settings):
    def step(o, states, inputs):
        after = o.Tanh(o.Add(o.Add(o.MatMul(inputs[0], w), o.MatMul(states[0], r)), b))
        return [after], [after]

    return loop(op, step, [h], [x], **settings)


ELMAN = (rand(T, B, N), rand(B, H), rand(N, H), rand(H, H), rand(H))
case("Scan", "elman", elman, *ELMAN)
case("Scan", "elman, states only", lambda op, *a: elman(op, *a)[0], *ELMAN)
case("Scan", "elman, outputs only", lambda op, *a: elman(op, *a)[1], *ELMAN)
case("Scan", "elman, weights only", elman, *ELMAN, wrt=(2, 3, 4))
case("Scan", "elman, data only", elman, *ELMAN, wrt=(0,))
case("Scan", "elman, recomputed", lambda op, *a: elman(op, *a, recompute=True), *ELMAN)
for read in (0, 1):
    for written in (0, 1):
        for again in (False, True):
            case(
                "Scan",
                f"elman, directions {read}{written} {again}",
                lambda op, *a, i=read, o=written, r=again: elman(
                    op, *a, scan_input_directions=[i], scan_output_directions=[o], recompute=r
                ),
                *ELMAN,
            )
case(
    "Scan",
    "elman, other axes",
    lambda op, *a: elman(op, *a, scan_input_axes=[1], scan_output_axes=[2]),
    rand(B, T, N),
    *ELMAN[1:],
)
case(
    "Scan",
    "elman, last axes backwards",
    lambda op, *a: elman(op, *a, scan_input_axes=[2], scan_output_axes=[-2], scan_input_directions=[1]),
    rand(B, N, T),
    *ELMAN[1:],
)


def lstm(op, x, h, c, w, r, b, p, **settings):
    """With peepholes, and the projection by Gemm."""

    def step(o, states, inputs):
        before, cell = states
        z = o.Add(o.Gemm(inputs[0], w, b, transB=1), o.Gemm(before, r, None, transB=1))
        i, f, g, q = o.Split(z, axis=1, num_outputs=4, outputs=4)
        inward = o.Mul(o.Sigmoid(o.Add(i, o.Mul(p, cell))), o.Tanh(g))
        new = o.Add(o.Mul(o.Sigmoid(f), cell), inward)
        out = o.Mul(o.Sigmoid(q), o.Tanh(new))
        return [out, new], [out]

    return loop(op, step, [h, c], [x], **settings)


LSTM = (rand(T, B, N), rand(B, H), rand(B, H), rand(4 * H, N), rand(4 * H, H), rand(4 * H), rand(H))
case("Scan", "lstm", lstm, *LSTM)
case("Scan", "lstm, outputs only", lambda op, *a: lstm(op, *a)[2], *LSTM)
case("Scan", "lstm, recomputed", lambda op, *a: lstm(op, *a, recompute=True), *LSTM)
case(
    "Scan", "lstm, backwards", lambda op, *a: lstm(op, *a, scan_input_directions=[1], scan_output_directions=[1]), *LSTM
)


def features_first(op, x, h, w, r, b):
    """Weights on the left: W x and R h."""

    def step(o, states, inputs):
        after = o.Sigmoid(o.Sub(o.Add(o.MatMul(w, inputs[0]), o.MatMul(r, states[0])), b))
        return [after], [o.Mul(after, after)]

    return loop(op, step, [h], [x])


case("Scan", "weights on the left", features_first, rand(T, N, B), rand(H, B), rand(H, N), rand(H, H), rand(H, 1))
case("Scan", "weights on the left, vectors", features_first, rand(T, N), rand(H), rand(H, N), rand(H, H), rand(H))


def gemms(op, x, h, w, ta, tb):
    """Gemm with the weight on either side, transposed or not."""

    def step(o, states, inputs):
        product = o.Gemm(w, inputs[0], states[0], transA=ta, transB=tb, alpha=0.7, beta=0.9)
        return [o.Tanh(product)], [product]

    return loop(op, step, [h], [x])


def gemms_right(op, x, h, w, c, ta, tb):
    def step(o, states, inputs):
        product = o.Gemm(inputs[0], w, c, transA=ta, transB=tb, alpha=0.7, beta=0.9)
        return [o.Tanh(o.Add(product, states[0]))], []

    return loop(op, step, [h], [x])


for ta in (0, 1):
    for tb in (0, 1):
        weight = rand(*((N, H) if ta else (H, N)))
        case(
            "Scan",
            f"Gemm left {ta}{tb}",
            lambda op, *a, ta=ta, tb=tb: gemms(op, *a, ta, tb),
            rand(T, *((B, N) if tb else (N, B))),
            rand(H, B),
            weight,
        )
        case(
            "Scan",
            f"Gemm right {ta}{tb}",
            lambda op, *a, ta=ta, tb=tb: gemms_right(op, *a, ta, tb),
            rand(T, *((N, B) if ta else (B, N))),
            rand(B, H),
            rand(*((H, N) if tb else (N, H))),
            rand(H),
        )


def counting(op, x, h, w):
    """An integer state, a value from outside used in two ways, and an input that is not differentiable."""

    def step(o, states, inputs):
        count, before = states
        index = o.Mod(count, o.constant(np.int64(2)))
        weight = o.Gather(w, index)
        after = o.Mul(
            o.Add(before, o.Mul(weight, inputs[0])), o.Cast(o.Add(index, o.constant(np.int64(1))), to=x.dtype)
        )
        following = o.Where(inputs[1], after, o.ReduceMean(w, [0], keepdims=0))
        return [o.Add(count, o.constant(np.int64(1))), o.Where(inputs[1], following, before)], [following]

    valid = op.constant(np.array([[True], [False], [True], [True]]))
    return loop(op, step, [op.constant(np.int64(0)), h], [x, valid])


case("Scan", "integer state", counting, rand(T, H), rand(H), rand(2, H))


def nested(op, x, h, w):
    """A loop within a loop, both with a weight from outside."""

    def outer(o, states, inputs):
        def inner(q, s, i):
            after = q.Tanh(q.Add(q.MatMul(s[0], w), q.Mul(i[0], states[0])))
            return [after], [after]

        last, every = loop(o, inner, [states[0]], [inputs[0]])
        return [o.Mul(last, o.ReduceMean(every, [0], keepdims=0))], [every]

    return loop(op, outer, [h], [x])


case("Scan", "nested", nested, rand(3, T, B, H), rand(B, H), rand(H, H), tolerance=1e-6)


def linear_only(op, h, w):
    """Nothing but the number of steps is read."""

    def step(o, states, inputs):
        return [o.MatMul(states[0], w)], []

    return loop(op, step, [h], [op.constant(np.zeros(T, np.float32))])


case("Scan", "nothing read", linear_only, rand(B, H), rand(H, H))


def body_constants(op, x, h):
    """Constants of the body, an unused state, a scanned input handed on."""

    def step(o, states, inputs):
        table = o.constant(np.arange(H).astype(x.dtype.numpy()))
        return [o.Mul(o.Add(states[0], inputs[0]), table), states[1]], [inputs[0], o.Exp(o.Mul(inputs[0], table))]

    return loop(op, step, [h, op.Neg(h)], [x])


case("Scan", "constants", body_constants, rand(T, H), rand(H))
case("Scan", "one step", elman, rand(1, B, N), *ELMAN[1:])
