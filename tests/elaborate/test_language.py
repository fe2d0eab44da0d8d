"""What the language means: names, sharing, repetition, blocks, decisions, as the tour shows them."""

from __future__ import annotations

import pytest

from nnspec.compile import compile_network
from nnspec.diagnostics import SpecError
from nnspec.dims import evaluate
from nnspec.ir import Network
from nnspec.source import Source


def network(body: str, before: str = "", parameters: str = "", **settings: object) -> Network:
    source = Source("spec.nn", f"{before}\nnetwork N{parameters} {{\n{body}\n}}")
    return compile_network(source, settings=settings).network


def names(found: Network) -> list[str]:
    return [n.name for n in found.nodes]


def weights(found: Network) -> dict[str, tuple[int, ...]]:
    return {w.name: w.shape for w in found.weights}


VECTOR = "input x: [4]\n"


# --- names ----------------------------------------------------------------------------------------------------------


def test_layers_are_numbered_by_kind_within_their_scope() -> None:
    found = network(
        "input x: [3, 8, 8]\noutput y = x -> unit(4) -> conv(2, 1) -> unit(5)",
        "block unit(width) on x { return x -> conv(width, 3, pad = 1) -> relu -> conv(width, 1, bias = false) }",
    )
    assert names(found) == [
        "unit1.conv1",
        "unit1.relu1",
        "unit1.conv2",
        "conv1",
        "unit2.conv1",
        "unit2.relu1",
        "unit2.conv2",
    ]
    assert weights(found)["unit2.conv1.weight"] == (5, 2, 3, 3)
    assert "unit1.conv2.bias" not in weights(found)


def test_hand_given_names() -> None:
    found = network(VECTOR + "output y = x -> dense(3) as stem -> (relu -> dense(2)) as head -> unit as tail", UNIT)
    assert names(found) == ["stem", "head.relu1", "head.dense1", "tail.dense1"]


UNIT = "block unit on x { return x -> dense(x.features) }"


def test_a_named_template_used_again_is_numbered() -> None:
    assert names(network(VECTOR + "output y = x -> (dense(4) as layer) * 3")) == ["layer", "layer2", "layer3"]


def test_automatic_names_keep_clear_of_given_ones() -> None:
    assert names(network(VECTOR + "output y = x -> dense(4) as dense2 -> dense(4) -> dense(4)")) == [
        "dense2",
        "dense1",
        "dense3",
    ]


def test_each_node_knows_its_line() -> None:
    found = network(VECTOR + "a = x\n  -> dense(3)\n  -> relu\noutput y = a")
    assert [n.line for n in found.nodes] == [5, 6]


# --- templates, sharing, freezing -----------------------------------------------------------------------------------


def test_every_use_of_a_template_has_its_own_weights() -> None:
    found = network(VECTOR + "unit = dense(4) -> relu\noutput y = x -> unit -> unit * 2")
    assert list(weights(found)) == [f"dense{i}.{role}" for i in (1, 2, 3) for role in ("weight", "bias")]


def test_no_repetition_is_the_identity() -> None:
    found = network(VECTOR + "output y = x -> dense(4) * (n - 1) -> relu", "", "(n = 1)")
    assert names(found) == ["relu1"]
    assert names(network(VECTOR + "output y = x -> 2 * dense(4)")) == ["dense1", "dense2"]


def test_shared_layers_have_one_set_of_weights() -> None:
    found = network(
        VECTOR
        + "input z: [4]\nshared code = dense(3) -> relu * 2 -> dense(2)\na = x -> code\noutput y = a + (z -> code)"
    )
    assert weights(found) == {
        "code.dense1.weight": (3, 4),
        "code.dense1.bias": (3,),
        "code.dense2.weight": (2, 3),
        "code.dense2.bias": (2,),
    }
    assert [dict(n.weights) for n in found.nodes if n.name in ("code.dense1", "code@2.dense1")] == [
        {"weight": "code.dense1.weight", "bias": "code.dense1.bias"}
    ] * 2


def test_one_shared_layer_needs_no_level_of_its_own() -> None:
    found = network(VECTOR + "shared code = dense(4)\noutput y = x -> code -> code")
    assert list(weights(found)) == ["code.weight", "code.bias"]
    assert names(found) == ["code", "code@2"]


def test_shared_within_a_block_is_shared_within_each_use() -> None:
    found = network(
        VECTOR + "output y = x -> twice -> twice", "block twice on x { shared f = dense(4)\nreturn x -> f -> f }"
    )
    assert list(weights(found)) == ["twice1.f.weight", "twice1.f.bias", "twice2.f.weight", "twice2.f.bias"]


def test_freeze() -> None:
    found = network(VECTOR + "shared f = freeze (dense(4) -> relu)\noutput y = x -> freeze dense(4) -> dense(4) -> f")
    assert {w.name: w.trainable for w in found.weights if w.name.endswith("weight")} == {
        "dense1.weight": False,
        "dense2.weight": True,
        "f.dense1.weight": False,
    }


def test_params() -> None:
    found = network(
        VECTOR + "output y = x -> scaled(2) -> scaled(3)",
        "block scaled(by) on x { param s: [x.features] = constant(by)\nparam t: x.shape\nreturn x * s + t }",
    )
    assert {w.name: getattr(w.init, "value", None) for w in found.weights} == {
        "scaled1.s": 2.0,
        "scaled1.t": 0.0,
        "scaled2.s": 3.0,
        "scaled2.t": 0.0,
    }


# --- decisions and loops --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "taken"),
    [
        ("x.rank == 1 and x.features == 4", True),
        ("x.features > 4 or 1 / 2 == 0.5", True),
        ("not (7 // 2 == 3) or 7 % 4 != 3", False),
        ("[1, 2] == [1, 2] and 3x3 == [3, 3]", True),
        ("min(3, 2) ** max([1, 3]) == 8", True),
        ("x.shape[0] == x.shape[-1] and len(x.shape) == 1", True),
        ("false and 1 / 0 == 0", False),
        ("true or nothing", True),
        ("-2 ** 2 == -4 and 2 ** 3 ** 2 == 512", True),
        ("sqrt(16) == 4 and round(2.6) == 3 and sum(range(4)) == 6", True),
    ],
)
def test_if_decides_while_compiling(condition: str, taken: bool) -> None:
    found = network(VECTOR + f"output y = if {condition} {{ x -> relu }} else {{ x -> tanh }}")
    assert names(found) == (["relu1"] if taken else ["tanh1"])


def test_loops_rebind_and_count() -> None:
    found = network(
        "input x: [4]\nh = x\nfor i, width in widths { h = h -> dense(width * 2 ** i) -> relu }\noutput y = h",
        "",
        "(widths = [8, 8, 8])",
    )
    assert [n.outputs[0].shape for n in found.nodes if n.name.startswith("dense")] == [(8,), (16,), (32,)]
    assert names(network("input x: [4]\nh = x\nfor w in [] { h = h -> dense(w) }\noutput y = h -> relu")) == ["relu1"]


def test_loops_may_feed_themselves() -> None:
    found = network(
        "input x: [4]\nh = x\nall = x\nfor i in range(3) { h = h -> dense(4)\nall = (all, h) -> concat }\noutput all"
    )
    assert found.types()[found.outputs[0].value].shape == (16,)


def test_tuples() -> None:
    found = network(VECTOR + "a, b = x -> split(2)\nc, d = (a, b)\noutput y = (c, d, x) -> concat")
    assert found.types()[found.outputs[0].value].shape == (8,)
    swapped = "block swap on (a, b) { return b, a }"
    found = network(VECTOR + "input z: [2]\np, q = (x, z) -> swap\noutput y = p\noutput w = q", swapped)
    assert [(o.name, o.value) for o in found.outputs] == [("y", "z"), ("w", "x")]


def test_blocks_take_data_by_name_and_other_blocks_as_values() -> None:
    before = (
        "block scale(by) on (x, gate) { return x * gate * by }\nblock wrap(inner, n = 1) on x { return x -> inner * n }"
    )
    found = network(
        VECTOR + "input g: [4]\noutput y = x -> scale(2, gate = g) -> wrap(relu, 2) -> wrap(dense(3))", before
    )
    assert names(found) == ["scale1.mul1", "scale1.mul2", "wrap1.relu1", "wrap1.relu2", "wrap2.dense1"]


def test_settings_change_parameters() -> None:
    body, parameters = "input x: [4]\noutput y = x -> dense(units)", "(units = 3)"
    assert weights(network(body, "", parameters))["dense1.weight"] == (3, 4)
    assert weights(network(body, "", parameters, units=7))["dense1.weight"] == (7, 4)
    with pytest.raises(SpecError, match="expected a whole number"):
        network(body, "", parameters, units="many")


# --- sizes ----------------------------------------------------------------------------------------------------------


def test_symbolic_sizes_are_one_everywhere() -> None:
    found = network(
        "input a: [T, 4]\ninput b: int[T]\ninput c: [2 * T, 4]\noutput y = ((a, a) -> concat(axis = 0)) + c"
    )
    assert str(found.types()[found.outputs[0].value]) == "[2*T, 4]"
    with pytest.raises(SpecError, match="cannot combine"):
        network("input a: [T, 4]\ninput c: [S, 4]\noutput y = a + c")


def test_a_fully_convolutional_network() -> None:
    body = "input image: [3, H, W]\noutput y = image -> conv(8, 3x3, pad = 1) -> maxpool(2) -> conv(8, 3x3, stride = 2)"
    found = network(body)
    height, width = found.nodes[-1].outputs[0].shape[1:]
    for size in range(7, 40):
        assert evaluate(height, {"H": size}) == evaluate(width, {"W": size}) == (size // 2 - 3) // 2 + 1


def test_names_that_also_are_layers_may_be_bound() -> None:
    found = network("input x: [4]\nrelu = dense(3)\noutput y = x -> relu")
    assert names(found) == ["dense1"]
