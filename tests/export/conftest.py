"""One thread and one seed of torch for each test, and a look at which refusals each test runs into."""

import inspect
from collections.abc import Iterator

import pytest
import torch

from fleet_protocol.errors import ConfigurationError
from tests.support.refusals import being_raised
from tests.support.tried_refusals import TRIED
from workbench.export.layers.layer_context import UnexportableError

# Models of a few weights gain nothing from a second thread: waiting for one another takes most of their time.
torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """What a test draws does not depend on which tests its process has run before, nor do its fixtures."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def refusals_that_this_test_is_listed_with(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A test that `TRIED` names as the one that tries a refusal has to run into it."""
    seen: set[str] = set()

    def noting(kind: type[Exception]) -> None:
        made = kind.__init__

        def init(error: Exception, *details: object, **named: object) -> None:
            made(error, *details, **named)
            seen.update(being_raised(inspect.currentframe()))

        monkeypatch.setattr(kind, "__init__", init)

    noting(ConfigurationError)
    noting(UnexportableError)
    yield
    test, _, case = request.node.nodeid.rpartition("/")[2].partition("[")
    assert {refusal for refusal, tried_in in TRIED.get(test, {}).items() if tried_in == case.removesuffix("]")} <= seen
