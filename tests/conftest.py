"""Options that several folders of tests share."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    help = "write the stored texts anew; read the diff afterwards"
    parser.addoption("--update-golden", action="store_true", help=help)


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether stored texts are written anew instead of compared."""
    return bool(request.config.getoption("--update-golden"))
