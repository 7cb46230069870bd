"""While a program imports, and of what it imported, nothing is looked through for rubbish; of what it makes, all."""

import gc
import weakref

import pytest

from fleet_host.lasting_imports import lasting_imports


class Knot:
    """Refers to itself: only a look for rubbish finds it."""

    def __init__(self) -> None:
        self.own = self


@pytest.fixture(autouse=True)
def nothing_stays_frozen():
    yield
    gc.unfreeze()


def test_what_is_there_afterwards_is_not_looked_through_and_what_comes_later_is():
    with lasting_imports():
        assert not gc.isenabled()
        before = weakref.ref(Knot())
    assert gc.isenabled()
    later = weakref.ref(Knot())
    gc.collect()
    assert before() is not None
    assert later() is None


def test_an_import_that_fails_leaves_all_as_it_was():
    with pytest.raises(ModuleNotFoundError), lasting_imports():
        raise ModuleNotFoundError
    assert gc.isenabled()


def test_where_nobody_collects_it_stays_so():
    gc.disable()
    try:
        with lasting_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
