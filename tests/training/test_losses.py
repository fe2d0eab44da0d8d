"""Losses against PyTorch, with their gradients; metrics against NumPy; masks, weights and what is refused."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from nnspec.autodiff import differentiate
from nnspec.diagnostics import NnspecError
from nnspec.ir import registry
from nnspec.layers.scoring import Score
from nnspec.lower import finish_outputs, lower
from nnspec.ops import IR_VERSION
from nnspec.recipe import Recipe
from nnspec.training import build
from tests.training.cases import LOSS_BATCH, LOSSES, ORACLE, Array, LossCase, draw, labels, loss_data
from tests.training.programs import Graph, recipe_of


def shape_text(shape: tuple[int | str, ...], kind: str) -> str:
    whole = kind in ("labels", "bits")
    if not shape:
        return "int" if whole else "[]"
    return ("int" if whole else "") + "[" + ", ".join(map(str, shape)) + "]"


def recipe_for(case: LossCase, form: str | None = None) -> Recipe:
    return recipe_of(
        f"""network N {{
              input y: {shape_text(case.prediction, "real")}
              output z = y * 1
            }}
            train N {{
              target t: {shape_text(case.target, case.kind)}
              loss = {form or case.form}
              optimizer = sgd(0.1)
            }}""".replace(": []", ": [1] ")
    )


def loss_and_gradient(recipe: Recipe, y: Array, t: Array, **more: Array) -> dict[str, Array]:
    lowered = lower(recipe.network, training=True)
    loss = lowered.values[recipe.loss]
    (gradient,) = differentiate(lowered.ops, loss, [lowered.values["y"]])
    assert gradient is not None
    outputs = {"loss": loss, "gradient": gradient}
    node = next(n for n in recipe.network.nodes if n.output() == recipe.loss)
    if len(node.outputs) > 1:
        outputs["count"] = lowered.values[node.output(1)]
    finish_outputs(lowered, outputs)
    return Graph(ir.Model(lowered.graph, ir_version=IR_VERSION))({"y": y, "t": t, **more})


@pytest.fixture(scope="module")
def oracle() -> dict[str, Array]:
    with np.load(ORACLE, allow_pickle=False) as stored:
        return dict(stored)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_their_gradients_equal_pytorch(name: str, oracle: dict[str, Array]) -> None:
    case = LOSSES[name]
    y, t = loss_data(name)
    if not case.prediction:
        y, t = y[:, None], t[:, None]
    found = loss_and_gradient(recipe_for(case), y, t)
    assert found["loss"].shape == ()
    assert found["loss"] == pytest.approx(oracle[f"loss/{name}"], rel=1e-5)
    gradient = oracle[f"loss/{name}/grad"].reshape(y.shape)
    np.testing.assert_allclose(found["gradient"], gradient, rtol=1e-5, atol=1e-6 * np.abs(gradient).max())
    if "ignore" in case.form:
        assert found["count"] == (t != 2).sum()


def test_every_loss_has_a_case() -> None:
    tested = {case.form.split("(")[0] for case in LOSSES.values()}
    losses = {k for k, cls in registry().items() if issubclass(cls, Score)}
    metrics = {"accuracy", "error_rate", "top_k_accuracy", "sequence_accuracy", "binary_accuracy"}
    from nnspec.layers import loss

    assert losses - metrics >= tested
    assert {k for k in losses if registry()[k].__module__ == loss.__name__} == tested


def masked_recipe(form: str, metric: str = "accuracy(y, t)", target: str = "int[T] masked") -> Recipe:
    return recipe_of(
        f"""network N {{
              input y: [T, 5] masked
              output z = y * 1
            }}
            train N {{
              target t: {target}
              loss = {form}
              metric m = {metric}
              optimizer = sgd(0.1)
            }}"""
    )


LENGTHS = np.array([6, 1, 4], np.int64)


@pytest.mark.parametrize("form", ["cross_entropy(y, t)", "cross_entropy(y, t, ignore = 1)", "nll(y, t)", "hinge(y, t)"])
def test_padded_steps_count_nowhere(form: str) -> None:
    recipe = masked_recipe(form)
    y, t = draw("masked/y", (3, 6, 5)), labels("masked/t", (3, 6), 5)
    lengths = {i.name: LENGTHS for i in recipe.network.inputs if i.name not in ("y", "t")}
    found = loss_and_gradient(recipe, y, t, **lengths)
    # The same steps in one long batch of single steps, without padding.
    keep = np.arange(6) < LENGTHS[:, None]
    single = recipe_for(LossCase(form, (5,), ()), form)
    expected = loss_and_gradient(single, y[keep], t[keep])
    assert found["loss"] == pytest.approx(float(expected["loss"]), rel=1e-6)
    np.testing.assert_allclose(found["gradient"][keep], expected["gradient"], rtol=1e-5, atol=1e-9)
    assert not found["gradient"][~keep].any()
    counted = keep & (t != 1) if "ignore" in form else keep
    assert found["count"] == counted.sum()
    changed = np.where(keep[..., None], y, 1e6).astype(np.float32)
    assert loss_and_gradient(recipe, changed, t, **lengths)["loss"] == found["loss"]


def test_masked_square_error_counts_elements() -> None:
    recipe = masked_recipe("square_error(y, t)", "absolute_error(y, t)", "[T, 5] masked")
    y, t = draw("masked/y", (3, 6, 5)), draw("masked/real", (3, 6, 5))
    lengths = {i.name: LENGTHS for i in recipe.network.inputs if i.name not in ("y", "t")}
    found = loss_and_gradient(recipe, y, t, **lengths)
    keep = np.arange(6) < LENGTHS[:, None]
    assert found["loss"] == pytest.approx(float(((y - t)[keep] ** 2).mean()), rel=1e-6)
    assert found["count"] == keep.sum() * 5


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("accuracy(y, t)", lambda y, t, keep: (y.argmax(-1) == t)[keep].mean()),
        ("error_rate(y, t)", lambda y, t, keep: (y.argmax(-1) != t)[keep].mean()),
        (
            "top_k_accuracy(y, t, k = 2)",
            lambda y, t, keep: (np.argsort(-y, -1)[..., :2] == t[..., None]).any(-1)[keep].mean(),
        ),
        ("sequence_accuracy(y, t)", lambda y, t, keep: ((y.argmax(-1) == t) | ~keep).all(-1).mean()),
        ("accuracy(y, t, ignore = 3)", lambda y, t, keep: (y.argmax(-1) == t)[keep & (t != 3)].mean()),
    ],
)
def test_metrics_of_masked_sequences(metric: str, expected: object) -> None:
    recipe = masked_recipe("cross_entropy(y, t)", metric)
    program = build(recipe)
    y, t = draw("metric/y", (3, 6, 5)), labels("metric/t", (3, 6), 5)
    t[:, :2] = y.argmax(-1)[:, :2]
    lengths = {i["name"]: LENGTHS for i in program.manifest["inputs"] if i["role"] == "lengths"}
    found = Graph(program.eval)({"y": y, "t": t, **lengths})
    keep = np.arange(6) < LENGTHS[:, None]
    assert found["m"] == pytest.approx(expected(y, t, keep), rel=1e-6)  # type: ignore[operator]
    (figure,) = program.manifest["metrics"]
    if metric.startswith("sequence"):
        assert figure["weight"] is None
    else:
        counted = keep & (t != 3) if "ignore" in metric else keep
        assert found[figure["weight"]] == counted.sum()
    assert figure["goal"] == ("min" if metric.startswith("error") else "max")


@pytest.mark.parametrize(("threshold", "kind"), [("", "bits"), (", threshold = 0.5", "real")])
def test_binary_accuracy(threshold: str, kind: str) -> None:
    case = LossCase(f"binary_accuracy(y, t{threshold})", (3,), (3,), kind)
    recipe = recipe_for(LossCase("square_error(y, t)", (3,), (3,), kind))
    text = f"binary_accuracy(y, t{threshold})"
    y, t = draw("binary/y", (LOSS_BATCH, 3)), labels("binary/t", (LOSS_BATCH, 3), 2)
    from tests.training.programs import recipe_of as compiled

    kind_text = shape_text(case.target, kind)
    recipe = compiled(
        f"network N {{ input y: [3] output z = y * 1 }} train N {{ target t: {kind_text} "
        f"loss = square_error(y, t) metric m = {text} optimizer = sgd(0.1) }}"
    )
    found = Graph(build(recipe).eval)({"y": y, "t": t if kind == "bits" else t.astype(np.float32)})
    limit = 0.5 if threshold else 0.0
    assert found["m"] == pytest.approx(((y > limit) == (t == 1)).mean(), rel=1e-6)


@pytest.mark.parametrize(
    ("prediction", "target", "form", "message"),
    [
        ("[5]", "[3]", "cross_entropy(y, t)", "needs whole numbers as its label"),
        ("[5]", "[]", "cross_entropy(y, t)", "needs whole numbers as its label"),
        ("[5]", "int[4]", "cross_entropy(y, t)", "needs one label for each sample, and gets int[4]"),
        ("[4, 5]", "int", "cross_entropy(y, t)", "needs labels of shape [4], and gets int"),
        ("[5, 3, 4]", "int[4, 3]", "cross_entropy(y, t)", "needs labels of shape [3, 4]"),
        ("[5]", "[5]", "cross_entropy(y, t, ignore = 1)", "`ignore` names a whole number"),
        ("[5]", "[4]", "square_error(y, t)", "compares elements"),
        ("[5]", "int[4]", "binary_cross_entropy(y, t)", "compares elements"),
        ("[5]", "int[5]", "kl_divergence(y, t)", "needs real numbers as its target"),
    ],
)
def test_what_does_not_fit_is_refused(prediction: str, target: str, form: str, message: str) -> None:
    with pytest.raises(NnspecError) as caught:
        recipe_of(
            f"network N {{ input y: {prediction} output z = y * 1 }}"
            f" train N {{ target t: {target.replace('[]', '[1]')} loss = {form} optimizer = sgd(0.1) }}"
        )
    assert message in str(caught.value)
