"""What the relay counts, as Prometheus reads it on a port that the operator opens."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fleet_protocol.errors import ConfigurationError
from session_relay.relay.core.relay import Relay


def serve_metrics(relay: Relay, address: str, port: int) -> None:
    """Answer Prometheus on a thread of its own.

    Raises:
        ConfigurationError: the port can't be opened.
    """
    registry = CollectorRegistry()
    registry.register(RelayMetrics(relay))
    try:
        start_http_server(port, address, registry)
    except OSError as error:
        raise ConfigurationError(
            f"[relay] metrics_port: {address}:{port}: {error.strerror}; choose another port"
        ) from error


class RelayMetrics(Collector):
    """Reads the relay's own counters when it is asked: a frame costs nothing more."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def collect(self) -> Iterator[Metric]:
        """Every metric, as it is now."""
        counters = self._relay.counters
        yield _gauge("edgeflock_sessions", "Sessions that the relay carries", len(self._relay.book))
        yield _gauge("edgeflock_helpers", "Helpers that offer themselves", len(self._relay.helpers))
        yield _gauge("edgeflock_relay_backlog_bytes", "Frames that wait to be passed on", self._relay.queues.size)
        yield _counter("edgeflock_sessions_opened", "Sessions that a helper has granted", counters.opened)
        yield _counter("edgeflock_sessions_resumed", "Sessions that both ends have resumed", counters.resumed)
        yield _counter("edgeflock_relayed_frames", "Frames that were passed on", counters.frames_passed)
        yield _by("edgeflock_relayed_bytes", "The same in bytes", "sender", lambda: counters.bytes_passed)
        yield _by("edgeflock_sessions_over", "Sessions that are over", "event", lambda: counters.over)
        yield _by(
            "edgeflock_relay_dropped_frames", "Frames that were not passed on", "reason", lambda: counters.dropped
        )
        yield _by("edgeflock_relay_refused", "Messages and sessions refused", "reason", lambda: counters.refused)


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=value)


def _counter(name: str, words: str, value: float) -> Metric:
    return CounterMetricFamily(name, words, value=value)


def _by(name: str, words: str, label: str, read: Callable[[], Mapping[str, int]]) -> Metric:
    family = CounterMetricFamily(name, words, labels=[label])
    for key, number in list(read().items()):
        family.add_metric([str(key)], number)
    return family
