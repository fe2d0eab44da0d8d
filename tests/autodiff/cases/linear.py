"""Cases of matrix products."""

from tests.autodiff.check import case, rand

SYMBOLIC = ("batch", "all")
for a, b in (
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3, 4)),
    ((2, 5, 2, 3), (3, 4)),
    ((3,), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3,)),
    ((5, 2, 3), (5, 3, 4)),
    ((5, 2, 3), (1, 3, 4)),
    ((1, 2, 3), (5, 3, 4)),
    ((2, 3), (5, 3, 4)),
    ((3,), (5, 3, 4)),
    ((5, 2, 3), (3,)),
    ((2, 1, 2, 3), (5, 3, 2)),
    ((1, 1), (1, 1)),
):
    case("MatMul", f"{a}{b}", lambda op, x, y: op.MatMul(x, y), rand(*a), rand(*b, seed=1), symbolic=SYMBOLIC)
case("MatMul", "itself", lambda op, x: op.MatMul(x, x), rand(3, 3))
for ta in (0, 1):
    for tb in (0, 1):
        for c in ((2, 4), (4,), (2, 1), (), (1, 4)):
            case(
                "Gemm",
                f"{ta}{tb}{c}",
                lambda op, a, b, c, ta=ta, tb=tb: op.Gemm(a, b, c, transA=ta, transB=tb, alpha=0.7, beta=-1.3),
                rand(*((3, 2) if ta else (2, 3))),
                rand(*((4, 3) if tb else (3, 4))),
                rand(*c),
            )
case("Gemm", "plain", lambda op, a, b: op.Gemm(a, b), rand(2, 3), rand(3, 4), symbolic=SYMBOLIC)
for equation, *shapes in (
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("ij,jk", (2, 3), (3, 4)),
    ("ij->ji", (2, 3)),
    ("ij->i", (2, 3)),
    ("ij->", (2, 3)),
    ("bhqd,bhkd->bhqk", (2, 2, 3, 4), (2, 2, 5, 4)),
    ("i,j->ij", (2,), (3,)),
    ("...ij,...jk->...ik", (2, 2, 3), (2, 3, 4)),
    ("...ij,jk->...ik", (2, 5, 2, 3), (3, 4)),
    ("ij,ij->", (2, 3), (2, 3)),
    ("ij,jk,kl->il", (2, 3), (3, 4), (4, 2)),
    ("bij,bj->b", (2, 3, 4), (2, 4)),
    ("ijk,il->jl", (2, 3, 4), (2, 5)),
):
    arrays = [rand(*s, seed=i) for i, s in enumerate(shapes)]
    case("Einsum", equation, lambda op, *x, equation=equation: op.Einsum(*x, equation=equation), *arrays)
