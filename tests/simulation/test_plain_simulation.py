"""Simulations without signatures and compression: decisions stay what they are; and what their options exclude."""

import msgspec
import pytest

from bundle_runtime.bundle import Bundle
from fleet_protocol.errors import ConfigurationError
from tests.support.simulated_fleet import BUNDLE, HOUR, bundle, fleet, workload
from workbench.simulation.ledger import Point
from workbench.simulation.progress import duration, progress_line
from workbench.simulation.show import WHOLE_UPDATES, WHOLE_VERSIONS, Request, as_wanted, prepare
from workbench.simulation.simulation import Options, Simulation

SWIFT = {"uplink_kbit_s": 1e12, "downlink_kbit_s": 1e12}
"""On such a link a signature takes no time that would change an order."""


def uncompressed(**plans: object) -> Bundle:
    served = bundle(**plans)
    task = msgspec.structs.replace(served.description, update=WHOLE_UPDATES, downlink=WHOLE_VERSIONS)
    return Bundle(task, served.files)


@pytest.mark.parametrize("plans", [{}, {"max_staleness": 1, "buffer_size": 1}, {"strategy": "ca2fl"}])
def test_what_is_decided_does_not_depend_on_signatures(plans):
    def scores(*, plain: bool) -> tuple:
        options = Options(seed=2, seconds=3 * HOUR, plain=plain)
        members = fleet(6, crashes_per_day=20.0, **SWIFT)
        result = Simulation(members, uncompressed(**plans), workload(), options).run()
        summary = result.summary
        counts = (summary.updates, summary.versions, summary.staleness, summary.refused, summary.crashes)
        return counts, [point.score for point in result.history], summary.bytes_up["update"]

    (signed, signed_scores, signed_bytes), (plain, plain_scores, plain_bytes) = scores(plain=False), scores(plain=True)
    assert signed == plain
    assert signed_scores == plain_scores
    assert plain_bytes != signed_bytes


def test_an_uncompressed_update_leaves_nothing_behind():
    run = Simulation(fleet(5), uncompressed(), workload(), Options(seed=2, seconds=2 * HOUR, plain=True))
    summary = run.run().summary
    assert summary.updates > 10
    assert not run._world.residuals._states
    assert summary.bytes_up["update"] > summary.updates * 4 * BUNDLE.description.parameter_count


def request(**changes: object) -> Request:
    given = dict.fromkeys(Request.__dataclass_fields__) | {"devices": 4, "profiles": ["pi-4"], "task": "digits"}
    return Request(**(given | {"as_json": True} | changes))


def test_plain_versions_and_updates_travel_whole():
    task = as_wanted(BUNDLE, request(), plain=True).description
    assert (task.update, task.downlink) == (WHOLE_UPDATES, WHOLE_VERSIONS)
    assert as_wanted(BUNDLE, request()).description.update == BUNDLE.description.update


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"keep_fraction": 0.1}, "--keep-fraction 0.1: with --plain nothing is compressed"),
        ({"differences": "exact"}, "--differences exact: with --plain"),
        ({"precision_bits": 0}, "--precision-bits 0: with --plain"),
        ({"strategy": "ef21"}, "--plain: strategy 'ef21'.*--strategy fedbuff"),
    ],
)
def test_what_plain_excludes_is_refused_in_words(changes, words):
    with pytest.raises(ConfigurationError, match=words):
        as_wanted(BUNDLE, request(**changes), plain=True)


def test_a_strategy_replaces_the_tasks():
    assert as_wanted(BUNDLE, request()).description.aggregation.strategy == "ca2fl"
    assert as_wanted(BUNDLE, request(strategy="fedbuff")).description.aggregation.strategy == "fedbuff"


@pytest.mark.parametrize(
    ("changes", "concurrent", "words"),
    [
        ({}, None, "strategy 'ca2fl' keeps the last update of each of 100,001 devices.*--strategy fedbuff"),
        ({"strategy": "fedbuff"}, 10, "--concurrent draws from all 100,001 devices"),
    ],
)
def test_fleets_that_would_be_looked_at_as_a_whole_again_and_again_are_refused(changes, concurrent, words, tmp_path):
    line = "1000,5,1000,2000,20,60\n"
    trace = tmp_path / "fleet.csv"
    head = "training_mflops,start_seconds,uplink_kbit_s,downlink_kbit_s,latency_ms,samples_per_hour\n"
    trace.write_text(head + 100_001 * line)
    options = Options(seed=0, seconds=1.0, plain=True, concurrent=concurrent)
    with pytest.raises(ConfigurationError, match=words):
        prepare(request(trace=trace, **changes), options)


def test_progress_says_how_far_it_is_and_what_is_left():
    point = Point(3600.0, 4, 40, 0, 0, 0, 0.5)
    assert progress_line(point, 2 * 3600.0, 8 * 3600.0, 30.0) == (
        "25.0 %  2.00 h  version 4  updates 40  score 0.5000  90 s left"
    )
    assert "left" not in progress_line(None, 0.0, 3600.0, 30.0)
    assert [duration(seconds) for seconds in (99.4, 600.0, 7200.0)] == ["99 s", "10 min", "2.0 h"]
