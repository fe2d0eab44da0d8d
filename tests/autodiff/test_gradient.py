"""The public function: whole models, also such as nnspec would not write."""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest

import nnspec
from nnspec.autodiff import GradientError, gradient

DENSE = """<ir_version: 8, opset_import: ["" : 17]>
dense (float[N, 4] x) => (float[N, 3] y)
<float[4, 3] w = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2}, float[3] b = {1.0, -2.0, 3.0}>
{ a = MatMul(x, w)
  c = Add(a, b)
  y = Tanh(c) }"""
HEAD = '<ir_version: 8, opset_import: ["" : 21, "other" : 1]> '
X = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)


def run(model, feeds):
    """Return the outputs by name; the model has to be valid."""
    proto = ir.to_proto(model) if isinstance(model, ir.Model) else model
    onnx.checker.check_model(proto, full_check=True)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


def test_inputs_initializers_and_intermediate_values() -> None:
    found = run(gradient(onnx.parser.parse_model(DENSE), of="y", wrt=["x", "w", "b", "a"]), {"x": X})
    w = np.arange(1, 13, dtype=np.float32).reshape(4, 3) / 10
    slope = 1 - np.tanh(X @ w + np.array([1, -2, 3], np.float32)) ** 2
    assert list(found) == ["y", "grad/x", "grad/w", "grad/b", "grad/a"]
    np.testing.assert_allclose(found["grad/a"], slope, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["grad/x"], slope @ w.T, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["grad/w"], X.T @ slope, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["grad/b"], slope.sum(0), rtol=1e-4, atol=1e-6)


def test_a_seed_weights_the_output() -> None:
    model = gradient(onnx.parser.parse_model(DENSE), of="a", wrt="x", seed="da")
    da = np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32)
    w = np.arange(1, 13, dtype=np.float32).reshape(4, 3) / 10
    np.testing.assert_allclose(run(model, {"x": X, "da": da})["grad/x"], da @ w.T, rtol=1e-5)


def test_each_kind_of_model_comes_back_as_it_went_in(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(DENSE)
    before = proto.SerializeToString()
    path = tmp_path / "dense.onnx"
    onnx.save(proto, path)
    model = ir.from_proto(proto)
    nodes = model.graph.num_nodes()
    results = [
        gradient(proto, of="y", wrt="x"),
        gradient(path, of="y", wrt="x"),
        gradient(str(path), of="y", wrt="x"),
        nnspec.gradient(model, of="y", wrt=["x"]),
    ]
    assert [type(r) for r in results] == [onnx.ModelProto, onnx.ModelProto, onnx.ModelProto, ir.Model]
    assert proto.SerializeToString() == before
    assert model.graph.num_nodes() == nodes
    first, *others = [run(r, {"x": X})["grad/x"] for r in results]
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_functions_are_inlined() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 21, "my" : 1]>
        g (float[3] x) => (float[3] y) { t = my.square(x)
          s = Shrink <lambd = 0.1, bias = 0.1> (t)
          y = my.square(s) }
        <domain: "my", opset_import: ["" : 21]> square (q) => (r) { r = Mul(q, q) }"""
    )
    x = np.array([0.2, 1.0, -2.0], np.float32)
    # Shrink takes 0.1 off what is above 0.1 and drops the rest.
    expected = np.where(x * x > 0.1, 2 * (x * x - 0.1) * 2 * x, 0)
    np.testing.assert_allclose(run(gradient(model, of="y", wrt="x"), {"x": x})["grad/x"], expected, rtol=1e-5)


def test_no_path_is_zero() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 21]>
        g (float[3] x, float[N] z) => (float[] y) { f = Floor(x)
          y = ReduceSum <keepdims = 0> (f) }"""
    )
    found = run(gradient(model, of="y", wrt=["x", "z"]), {"x": np.ones(3, np.float32), "z": np.ones(2, np.float32)})
    np.testing.assert_array_equal(found["grad/x"], np.zeros(3, np.float32))
    np.testing.assert_array_equal(found["grad/z"], np.zeros(2, np.float32))


def test_one_name_twice_on_a_value_that_is_the_output_itself() -> None:
    found = run(gradient(onnx.parser.parse_model(DENSE), of="y", wrt=["y", "c"]), {"x": X})
    np.testing.assert_array_equal(found["grad/y"], np.ones((2, 3), np.float32))


def test_gradients_of_gradients_of_a_whole_model() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 21]>
        g (float[3] x) => (float[] y) { e = Exp(x)
          s = Sin(e)
          y = ReduceSum <keepdims = 0> (s) }"""
    )
    once = gradient(model, of="y", wrt="x")
    found = run(gradient(once, of="grad/x", wrt="e"), {"x": np.array([0.1, 0.5, -0.3], np.float32)})
    e = np.exp(np.array([0.1, 0.5, -0.3]))
    # grad/x = cos(e) e, by e.
    np.testing.assert_allclose(found["grad/e"], np.cos(e) - e * np.sin(e), rtol=1e-5)


def test_scan_of_a_loaded_model() -> None:
    body = "b (float[2] h, float[2] v) => (float[2] n, float[2] o) { m = Mul(h, w)\n n = Add(m, v)\n o = Tanh(n) }"
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 21]>
        g (float[2] s, float[T, 2] x, float[2] w) => (float[2] last, float[T, 2] ys)
        {{ last, ys = Scan <num_scan_inputs = 1, body = {body}> (s, x) }}"""
    )
    rng = np.random.default_rng(0)
    feeds = {"s": rng.normal(size=2), "x": rng.normal(size=(5, 2)), "w": rng.normal(size=2)}
    feeds = {k: v.astype(np.float32) for k, v in feeds.items()}
    found = run(gradient(model, of="ys", wrt=["s", "x", "w"]), feeds)
    h, slopes, states = feeds["s"].astype(np.float64), [], []
    for v in feeds["x"]:
        states.append(h)
        h = h * feeds["w"] + v
        slopes.append(1 - np.tanh(h) ** 2)
    dh, dw, dx = np.zeros(2), np.zeros(2), []
    for state, slope in zip(states[::-1], slopes[::-1], strict=True):
        dh = dh + slope
        dx.insert(0, dh)
        dw = dw + dh * state
        dh = dh * feeds["w"]
    np.testing.assert_allclose(found["grad/s"], dh, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["grad/w"], dw, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["grad/x"], dx, rtol=1e-4, atol=1e-6)


def test_names_of_subgraphs_are_not_taken_by_new_values() -> None:
    body = "b (float[2] h, float[2] v) => (float[2] val_0, float[2] val_3) { val_0 = Mul(h, v)\n val_3 = Tanh(val_0) }"
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 21]>
        g (float[2] s, float[T, 2] x) => (float[2] last, float[T, 2] ys)
        {{ last, ys = Scan <num_scan_inputs = 1, body = {body}> (s, x) }}"""
    )
    extended = ir.from_proto(gradient(model, of="ys", wrt="x"))
    names = [v.name for node in ir.traversal.RecursiveGraphIterator(extended.graph) for v in node.outputs]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("text", "of", "wrt", "words"),
    [
        (DENSE, "q", "x", ["no value named q", "a, b, c, w, x, y"]),
        (DENSE, "y", "xx", ["no value named xx", "did you mean `x`"]),
        (
            HEAD + "g (float[3] x) => (float[3] y) { k = Shape(x)\n y = Identity(x) }",
            "y",
            "k",
            ["k is int64", "floating-point"],
        ),
        (
            HEAD + "g (float[3, 3] x) => (float d) { d = Det(x) }",
            "d",
            "x",
            ["Det", "output d", "no gradient rule"],
        ),
        (
            HEAD
            + """g (float[2] x, bool c) => (float[2] y)
            { [choice] y = If <then_branch = t () => (float[2] p) { p = Exp(x) },
                               else_branch = e () => (float[2] q) { q = Neg(x) }> (c) }""",
            "y",
            "x",
            ["If (node choice, output y)", "no gradient rule"],
        ),
        (
            HEAD
            + """g (float[2, 2] x, int64[2, 2] i, float[2, 2] u) => (float[2, 2] y)
            { y = ScatterElements <reduction = "max"> (x, i, u) }""",
            "y",
            "x",
            ["ScatterElements", "reduction = max"],
        ),
        (
            HEAD + "g (float[2] x) => (float[2] y) { y = other.Magic(x) }",
            "y",
            "x",
            ["Magic"],
        ),
    ],
)
def test_errors_name_what_is_wrong(text: str, of: str, wrt: str, words: list[str]) -> None:
    with pytest.raises(GradientError) as error:
        gradient(onnx.parser.parse_model(text), of=of, wrt=wrt)
    for word in words:
        assert word in str(error.value)


def test_an_error_carries_operator_and_node() -> None:
    text = HEAD + "g (float[3, 3] x) => (float d) { [here] d = Det(x) }"
    with pytest.raises(GradientError) as error:
        gradient(onnx.parser.parse_model(text), of="d", wrt="x")
    assert (error.value.op_type, error.value.node) == ("Det", "here")
    assert isinstance(error.value, nnspec.NnspecError)


@pytest.mark.parametrize("name", ["x", "grad/x"])
def test_names_that_are_taken(name: str) -> None:
    model = onnx.parser.parse_model(DENSE)
    if name == "x":
        with pytest.raises(GradientError, match="already has a value named x"):
            gradient(model, of="y", wrt="x", seed="x")
    else:
        with pytest.raises(GradientError, match="already has a value named grad/x"):
            gradient(gradient(model, of="y", wrt="x"), of="y", wrt="x")
