"""Matrix products: MatMul of any rank, Gemm, Einsum."""

from __future__ import annotations

from nnspec.autodiff.broadcast import Grad, reduce_to
from nnspec.autodiff.registry import joint, vjp
from nnspec.autodiff.terms import NodeView, Term


def matmul_a(dy: Term, n: NodeView) -> Term:
    """dy b', after vectors have become matrices."""
    a, b, g = _matrices(dy, n)
    da = n.op.Gemm(g, b, transB=1) if g.rank == b.rank == 2 else g @ b.swap()
    return _undo(da, a, b, n.x[0])


def matmul_b(dy: Term, n: NodeView) -> Term:
    """a' dy, as one product over everything but the last axis where b is a single matrix."""
    a, b, g = _matrices(dy, n)
    db = n.op.Gemm(_rows(a), _rows(g), transA=1) if b.rank == 2 else a.swap() @ g
    return _undo(db, b, a, n.x[1])


def _matrices(dy: Term, n: NodeView) -> tuple[Term, Term, Term]:
    a, b = n.x[0], n.x[1]
    if b.rank == 1:
        dy = dy.unsqueeze([-1])
    if a.rank == 1:
        dy = dy.unsqueeze([-2])
    return a.unsqueeze([0]) if a.rank == 1 else a, b.unsqueeze([1]) if b.rank == 1 else b, dy


def _rows(t: Term) -> Term:
    """Return all rows of a stack of matrices."""
    if t.rank == 2:
        return t
    width = t.dims[-1]
    return t.reshape([-1, width] if isinstance(width, int) else t.op.Concat([-1], t.shape(-1), axis=0))


def _undo(d: Term, matrix: Term, other: Term, x: Term) -> Term:
    if d.rank != matrix.rank or other.rank > 2:
        d = reduce_to(Grad(d, True), matrix, d, [d]).term
    return d if matrix.rank == x.rank else d.reshape_like(x)


def gemm_a(dy: Term, n: NodeView) -> Term:
    """alpha dy b' (or its transpose)."""
    b, ta, tb = n.x[1], n.attr("transA", 0), n.attr("transB", 0)
    alpha = n.attr("alpha", 1.0)
    scaled = None if alpha == 1 else alpha
    if ta:
        return n.op.Gemm(b, dy, transA=tb, transB=1, alpha=scaled)
    return n.op.Gemm(dy, b, transB=None if tb else 1, alpha=scaled)


def gemm_b(dy: Term, n: NodeView) -> Term:
    """alpha a' dy (or its transpose)."""
    a, ta, tb = n.x[0], n.attr("transA", 0), n.attr("transB", 0)
    alpha = n.attr("alpha", 1.0)
    scaled = None if alpha == 1 else alpha
    if tb:
        return n.op.Gemm(dy, a, transA=1, transB=ta or None, alpha=scaled)
    return n.op.Gemm(a, dy, transA=None if ta else 1, alpha=scaled)


def gemm_c(dy: Term, n: NodeView) -> Term:
    """beta dy, summed over what was broadcast."""
    return reduce_to(Grad(dy * n.attr("beta", 1.0), True), n.x[2], n.y, [n.y]).term


vjp("MatMul", matmul_a, matmul_b)
vjp("Gemm", gemm_a, gemm_b, gemm_c)


def einsum(n: NodeView) -> list[Term | None]:
    """The gradient of a product of sums is one too: exchange an operand's subscripts with the result's."""
    inputs, result = _subscripts(n)
    (dy,) = n.dys
    assert dy is not None
    grads: list[Term | None] = []
    for i, subscripts in enumerate(inputs):
        if not n.wanted[i]:
            grads.append(None)
            continue
        if len(set(subscripts)) != len(subscripts):
            raise n.error(f"operand {i} repeats a subscript, whose gradient has no rule")
        others = [s for j, s in enumerate(inputs) if j != i]
        reached = [c for c in subscripts if c in result or any(c in s for s in others)]
        equation = ",".join([result, *others]) + "->" + "".join(reached)
        dx = n.op.Einsum(dy, *(x for j, x in enumerate(n.x) if j != i), equation=equation)
        missing = [k for k, c in enumerate(subscripts) if c not in reached]
        dx = dx.unsqueeze(missing)
        x = n.x[i]
        if missing:
            # Size-1 axes stay as they are: other operands were broadcast to them alone.
            dx = n.op.Expand(dx, x.shape())
        grads.append(dx if dx.dims == x.dims and None not in x.dims else reduce_to(Grad(dx, True), x, dx, [dx]).term)
    return grads


def _subscripts(n: NodeView) -> tuple[list[str], str]:
    """Return each operand's subscripts and the result's, without ellipses."""
    equation = str(n.attr("equation")).replace(" ", "")
    left, arrow, right = equation.partition("->")
    operands = left.split(",")
    free = [c for c in "ZYXWVUTSRQPONMLKJIHGFEDCBAzyxwvutsrqponmlkjihgfedcba" if c not in equation]
    widths = [x.rank - len(s.replace("...", "")) if "..." in s else 0 for s, x in zip(operands, n.x, strict=True)]
    names = "".join(free[: max(widths)])
    if not arrow:
        letters = left.replace("...", "").replace(",", "")
        right = ("..." if "..." in left else "") + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    wide = len(names)
    return [s.replace("...", names[wide - w :]) for s, w in zip(operands, widths, strict=True)], right.replace(
        "...", names
    )


joint("Einsum", einsum)
