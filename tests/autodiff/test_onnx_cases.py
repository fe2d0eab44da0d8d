"""The node tests that ONNX itself ships, as models that nnspec did not make: their gradients by central differences."""

import warnings
from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.backend.test.case.node import collect_testcases

from nnspec.autodiff import GRADIENTS, gradient
from tests.autodiff.check import runner

ELEMENTS, PER_OPERATOR = 2000, 4
WITHOUT = {
    # Inputs at which there is no derivative.
    "test_acosh_example",
    "test_elu_example",
    "test_l2normalization_axis_0",
    "test_leakyrelu_example",
    "test_maxpool_3d_dilations",
    "test_maxpool_3d_dilations_use_ref_impl",
    "test_pow",
    "test_reduce_max_empty_set",
    "test_reduce_min_default_axes_keepdims_example",
    "test_reduce_min_empty_set",
    "test_selu_example",
    "test_thresholdedrelu_example",
    # Computed in single precision whatever the inputs' type.
    "test_group_normalization_epsilon",
    "test_group_normalization_example",
    "test_mvn",
    # Refused, with a clear error: see test_gradient.py.
    "test_maxpool_with_argmax_2d_precomputed_strides",
}
REFUSED = ("scatter_elements_with_reduction_m", "scatternd_m", "tf_crop_and_resize")


def collected():
    """Return name, model and inputs, all in double precision, of some tests of every differentiable operator."""
    with warnings.catch_warnings():
        # Some of ONNX's own cases overflow while they are made.
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    found, counts = [], Counter()
    for case in cases:
        graph = case.model.graph
        name = graph.node[0].op_type
        if len(graph.node) != 1 or name not in GRADIENTS or graph.node[0].domain or not case.data_sets:
            continue
        inputs = case.data_sets[0][0]
        fits = all(isinstance(a, np.ndarray) and a.size <= ELEMENTS for a in inputs)
        if not fits or inputs[0].dtype != np.float32 or not 13 <= case.model.opset_import[0].version <= 26:
            continue
        if case.name in WITHOUT or any(word in case.name for word in REFUSED) or counts[name] == PER_OPERATOR:
            continue
        counts[name] += 1
        found.append((case.name, *in_double_precision(case.model, inputs)))
    return found


def in_double_precision(model, inputs):
    """Return a model of the first output alone and its inputs with float32 made float64, but for Resize's factors."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    del graph.output[1:]
    keeps = graph.node[0].op_type == "Resize"
    arrays = {}
    for i, (value, array) in enumerate(zip(graph.input, inputs, strict=True)):
        wide = array.dtype == np.float32 and not (keeps and i)
        if wide:
            value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
        arrays[value.name] = array.astype(np.float64) if wide else array
    if graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT:
        graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    return copy, arrays


CASES = collected()


@pytest.mark.parametrize(("model", "feeds"), [pytest.param(m, f, id=n) for n, m, f in CASES])
def test_gradient(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> None:
    output = model.graph.output[0]
    if output.type.tensor_type.elem_type != onnx.TensorProto.DOUBLE:
        pytest.skip("gives no real numbers")
    forward = runner(ir.from_proto(model), np.float64)
    wrt = [name for name, array in feeds.items() if array.dtype == np.float64]
    rng = np.random.default_rng(0)
    weight = rng.normal(size=forward(feeds)[0].shape)
    extended = gradient(model, of=output.name, wrt=wrt, seed="weight of the output")
    results = runner(ir.from_proto(extended), np.float64)({**feeds, "weight of the output": weight})[1:]
    h = 1e-6
    for name, found in zip(wrt, results, strict=True):
        assert found.shape == feeds[name].shape
        v = rng.normal(size=found.shape)
        above, below = (forward({**feeds, name: feeds[name] + s * h * v})[0] for s in (1, -1))
        numeric = np.sum(weight * (above - below)) / (2 * h)
        assert abs(numeric - np.sum(found * v)) <= 1e-6 * max(1.0, np.sum(np.abs(found * v))), name


def test_many_operators_are_covered() -> None:
    assert len({model.graph.node[0].op_type for _, model, _ in CASES}) > 80
