"""Every rule against central differences."""

import pytest

from nnspec.autodiff import GRADIENTS
from tests.autodiff import cases as cases
from tests.autodiff.check import CASES, Case, check, variants


@pytest.mark.parametrize(("case", "variant"), [pytest.param(c, v, id=f"{c}-{v}") for c, v in variants(CASES)])
def test_rule(case: Case, variant: str) -> None:
    check(case, variant)


def test_every_rule_has_a_case() -> None:
    assert set(GRADIENTS) <= {c.op for c in CASES}
