"""Every refusal of the export has a test that runs into it."""

from tests.support.refusals import refusals
from tests.support.tried_refusals import TRIED


def test_every_refusal_in_the_source_is_tried_by_a_test():
    assert sorted(refusals()) == sorted(refusal for tried in TRIED.values() for refusal in tried)
