"""One round of Flower's SecAgg+ in one process, for `benchmarks.secure_aggregation`: runs in Flower's own environment.

    python secagg_plus_child.py ENTRIES DEVICES GONE

The shipped workflow talks to the shipped client mod through a grid that hands messages over and counts them. Devices
that are gone have shared their keys and send no masked vector. 15 shares, of which 5 rebuild a key (with 7, a round of
200 devices is often halted for want of neighbours); else its defaults.
"""

import json
import logging
import sys
import time
from collections.abc import Iterable, Mapping, Set

import numpy as np
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitIns, FitRes, Parameters, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.serde import recorddict_to_proto
from flwr.compat.common import recorddict_compat
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

SHARES, THRESHOLD = 15, 5
VECTORS = "collect_masked_vectors"


class Proxy:
    """All that the workflow asks of a client's proxy."""

    def __init__(self, node_id: int) -> None:
        self.node_id = node_id


class OneRound:
    """A strategy that asks every node and keeps the mean that it is given."""

    def __init__(self, nodes: Iterable[int], model: Parameters) -> None:
        self._nodes = nodes
        self._model = model
        self.mean: NDArray[np.float32] | None = None

    def configure_fit(self, *_: object) -> list[tuple[Proxy, FitIns]]:
        """Ask them all."""
        return [(Proxy(node), FitIns(self._model, {})) for node in self._nodes]

    def aggregate_fit(
        self, _round: int, results: list[tuple[Proxy, FitRes]], _failures: list[Exception]
    ) -> tuple[None, dict[str, float]]:
        """Keep the mean, which is every result's."""
        self.mean = parameters_to_ndarrays(results[0][1].parameters)[0]
        return None, {}


class CountingGrid:
    """Hands messages to each node's mod; counts bytes both ways and the node's processor time."""

    def __init__(self, updates: Mapping[int, NDArray[np.float32]], gone: Set[int]) -> None:
        self._updates = updates
        self._gone = gone
        self._contexts = {node: Context(1, node, {}, RecordDict(), {}) for node in updates}
        self.received = dict.fromkeys(updates, 0)
        self.sent = dict.fromkeys(updates, 0)
        self.seconds = dict.fromkeys(updates, 0.0)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None) -> list[Message]:
        """What the nodes answer, without waiting for any of them."""
        assert timeout is None
        return [self._answer(message) for message in messages]

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        if node in self._gone and message.content["secaggplus_configs"]["stage"] == VECTORS:
            return Message(Error(0, "gone"), reply_to=message)
        self.received[node] += recorddict_to_proto(message.content).ByteSize()
        copied = Message(RecordDict(dict(message.content)), node, message.metadata.message_type)
        copied.content["secaggplus_configs"] = ConfigRecord(dict(message.content["secaggplus_configs"]))
        begun = time.process_time()
        reply = secaggplus_mod(copied, self._contexts[node], self._fit)
        self.seconds[node] += time.process_time() - begun
        self.sent[node] += recorddict_to_proto(reply.content).ByteSize()
        return Message(reply.content, reply_to=message)

    def _fit(self, message: Message, context: Context) -> Message:
        parameters = ndarrays_to_parameters([self._updates[context.node_id]])
        result = FitRes(Status(Code.OK, ""), parameters, num_examples=1, metrics={})
        return Message(recorddict_compat.fitres_to_recorddict(result, keep_input=False), reply_to=message)


def main() -> None:
    """Print what one node sends, receives and computes in the mean, and what the server computes."""
    entries, devices, share_gone = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    logging.disable(logging.CRITICAL)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    generator = np.random.default_rng(entries + devices)
    updates = {node: generator.normal(0, 0.3, entries).astype(np.float32) for node in range(1, devices + 1)}
    gone = set(list(updates)[: round(share_gone * devices)])
    grid = CountingGrid(updates, gone)
    model = ndarrays_to_parameters([np.zeros(entries, np.float32)])
    strategy = OneRound(list(updates), model)
    state = RecordDict(
        {
            "config": ConfigRecord({"current_round": 1}),
            "parameters": recorddict_compat.parameters_to_arrayrecord(model, keep_input=True),
        }
    )
    context = LegacyContext(Context(1, 0, {}, state, {}), strategy=strategy)
    begun = time.process_time()
    SecAggPlusWorkflow(SHARES, THRESHOLD, max_weight=4.0)(grid, context)
    total = time.process_time() - begun
    left = [node for node in updates if node not in gone]
    if strategy.mean is None:
        raise SystemExit("the round was halted: too many neighbours of a device are gone; run it again")
    error = float(np.abs(strategy.mean - np.mean([updates[node] for node in left], axis=0)).max())
    print(
        json.dumps(
            {
                "device_sends_bytes": round(np.mean([grid.sent[node] for node in left])),
                "device_receives_bytes": round(np.mean([grid.received[node] for node in left])),
                "device_ms": round(1000 * np.mean([grid.seconds[node] for node in left]), 3),
                "server_and_grid_ms": round(1000 * (total - sum(grid.seconds.values())), 3),
                "largest_error_of_mean": error,
            }
        )
    )


if __name__ == "__main__":
    main()
