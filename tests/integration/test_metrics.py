"""The metrics say what happened, in Prometheus' own format."""

import math
import urllib.request
from functools import partial
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import create_engine

from broker_coordinator.admission.settings import AdmissionSettings
from broker_coordinator.serving.metrics import Metrics
from broker_coordinator.storage.database_size import database_bytes
from broker_coordinator.storage.journal import Journal
from fleet_host.rate_limit import TokenBucket
from fleet_protocol.errors import ConfigurationError
from tests.support.bench import Bench
from tests.support.broker import free_port
from tests.support.bundles import TASK
from tests.support.device import SigningDevice
from tests.support.fleet import FLEET, SHARD
from tests.support.waiting import DEADLINE_SECONDS

LIMITED = AdmissionSettings(FLEET, SHARD, True, 100, allowance=TokenBucket(60.0, 4))


def scrape(port: int) -> dict[tuple[str, tuple[str, ...]], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=DEADLINE_SECONDS) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = [sample for family in families for sample in family.samples]
    return {(sample.name, tuple(dict(sorted(sample.labels.items())).values())): sample.value for sample in samples}


def test_scrape_tells_what_happened(tmp_path, bundle) -> None:
    metrics, port = Metrics(), free_port()
    metrics.serve("127.0.0.1", port)
    with pytest.raises(ConfigurationError, match=r"\[metrics\] 127\.0\.0\.1"):
        Metrics().serve("127.0.0.1", port)
    bench, device = Bench(tmp_path / "c.db", bundle, LIMITED, metrics=metrics), SigningDevice("kitchen-pi")
    data = [device.enrolment(), *(device.update(sequence) for sequence in range(1, 6)), device.update(1), b"garbage"]
    bench.handle(device, *data)
    bench.make_versions()
    said = bench.said()
    found = scrape(port)
    outcomes = {labels: value for (name, labels), value in found.items() if name == "edgeflock_messages_total"}
    assert outcomes == {
        ("enrolled", ""): 1,
        ("accepted", ""): 4,
        ("repeated", ""): 1,
        ("refused", "rate_limited"): 1,
        ("refused", "malformed"): 1,
    }
    assert found["edgeflock_update_staleness_count", (TASK,)] == 4
    assert found["edgeflock_update_staleness_bucket", ("0.0", TASK)] == 3
    assert found["edgeflock_update_staleness_sum", (TASK,)] == 1
    assert found["edgeflock_commit_seconds_count", ()] == 1
    assert found["edgeflock_version", (TASK,)] == found["edgeflock_versions_made_total", (TASK,)] == 1
    assert found["edgeflock_buffered_updates", (TASK,)] == 1
    assert found["edgeflock_received_bytes_total", ()] == sum(map(len, data))
    assert found["edgeflock_published_bytes_total", ()] == sum(len(each.data) for each in said)
    assert found["edgeflock_devices", ("approved",)] == 1
    assert found["edgeflock_devices", ("revoked",)] == 0


def test_variety_is_of_the_clusters_that_have_devices_now() -> None:
    metrics = Metrics()

    def shown() -> dict[tuple[str, str], float]:
        samples = next(each for each in metrics.registry.collect() if each.name == "edgeflock_drawn_variety").samples
        return {(each.labels["task"], each.labels["cluster"]): each.value for each in samples}

    metrics.show_variety("faces", {0: 0.3})
    metrics.show_variety("digits", {0: 0.2})
    metrics.show_variety("digits", {1: 0.1, 2: 0.4})
    assert shown() == {("faces", "0"): 0.3, ("digits", "1"): 0.1, ("digits", "2"): 0.4}


def test_size_of_the_database_is_told_whichever_it_is(database) -> None:
    metrics, port = Metrics(), free_port()
    metrics.serve("127.0.0.1", port)
    assert math.isnan(scrape(port)["edgeflock_database_bytes", ()])
    with Journal.open(database) as journal:
        metrics.watch_database(partial(database_bytes, journal.engine))
        size = scrape(port)["edgeflock_database_bytes", ()]
    assert size >= (database.stat().st_size if isinstance(database, Path) else 1_000_000)


def test_size_of_a_database_that_is_away_is_not_told() -> None:
    away = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    assert math.isnan(database_bytes(away))
