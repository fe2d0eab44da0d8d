"""Symbolic sizes: arithmetic agrees with integers, equal sizes compare equal, and text reads back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnspec.dims import Dim, Symbolic, ceil_div, evaluate, floor_div, parse, product, symbols

H, W = Symbolic.symbol("H"), Symbolic.symbol("W")


def _combined(children: st.SearchStrategy[Dim]) -> st.SearchStrategy[Dim]:
    pairs = st.tuples(children, children)
    return st.one_of(
        pairs.map(lambda p: p[0] + p[1]),
        pairs.map(lambda p: p[0] - p[1]),
        pairs.map(lambda p: p[0] * p[1]),
        st.tuples(children, st.integers(1, 5)).map(lambda p: floor_div(p[0], p[1])),
    )


dims = st.recursive(st.one_of(st.sampled_from([H, W]), st.integers(-3, 7)), _combined, max_leaves=8)


@given(dims, st.integers(1, 40), st.integers(1, 40))
def test_text_evaluates_to_the_size(dim: Dim, h: int, w: int) -> None:
    value = evaluate(dim, {"H": h, "W": w})
    assert value == eval(str(dim), {"H": h, "W": w})


@given(dims)
def test_text_reads_back(dim: Dim) -> None:
    assert parse(str(dim)) == dim


@given(dims, dims, st.integers(1, 30), st.integers(1, 30))
def test_arithmetic_agrees_with_integers(a: Dim, b: Dim, h: int, w: int) -> None:
    env = {"H": h, "W": w}
    x, y = evaluate(a, env), evaluate(b, env)
    assert evaluate(a + b, env) == x + y
    assert evaluate(a - b, env) == x - y
    assert evaluate(a * b, env) == x * y
    assert evaluate(ceil_div(a, 3), env) == -(-x // 3)


@pytest.mark.parametrize(
    ("dim", "text"),
    [
        ((H - 3) // 2 + 1, "(H - 1)//2"),
        ((2 * H + 3) // 2, "H + 1"),
        (((H + 1) // 2 + 1) // 2, "(H + 3)//4"),
        (8 * ((H - 3) // 2 + 1) * ((W - 3) // 2 + 1), "8*((H - 1)//2)*((W - 1)//2)"),
        (3 - H, "-H + 3"),
        (H * H - 2 * H * W, "H*H - 2*H*W"),
    ],
)
def test_normal_forms(dim: Dim, text: str) -> None:
    assert str(dim) == text


def test_constants_are_plain_integers() -> None:
    assert (H - H, H * 0, floor_div(H, H), (H + 5) - H) == (0, 0, 1, 5)


def test_equal_sizes_are_one_key() -> None:
    assert len({(H + 1) // 2 - 1, (H - 1) // 2, (H + 3) // 2 - 2}) == 1
    assert H != W
    assert H != 3


def test_symbols_and_products() -> None:
    assert symbols((H + W) // 2) == {"H", "W"}
    assert symbols(7) == frozenset()
    assert product([2, H, 3]) == 6 * H


@pytest.mark.parametrize("text", ["", "H +", "H / 2", "f(H)", "H ** 2", "'H'", "True", "H; W", "(" * 5000])
def test_other_text_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="dim"):
        parse(text)
