"""`edge-agent status`: what it asks and shows, and its one clear line where no agent answers."""

import asyncio
import contextlib
import socket
from pathlib import Path

import msgspec
import pytest

from edge_agent.core.analytics.policy import QueryUse
from edge_agent.core.gossip.status import GossipStatus, NeighbourStatus
from edge_agent.core.lifecycle import State
from edge_agent.core.round_decisions import TaskState
from edge_agent.sources.tally import SourceStatus
from edge_agent.sources.unix_socket import Status
from edge_agent.verbs.own_status import ask, ask_for_training, show_status, words_of
from edge_agent.worker.contract import Progress
from fleet_protocol.errors import ConfigurationError

STATUS = Status(
    device="pi",
    state="sleeping",
    connected=False,
    boot=3,
    versions={"digits": 7},
    samples={"digits": 40, "tones": 1},
    new_samples={"digits": 12, "tones": 1},
    waiting_updates=2,
    accepted_updates=5,
    rejected_updates=1,
    withheld_updates=0,
    progress=Progress("training", 3, 40, None),
    tasks={
        "digits": TaskState(State.SLEEPING, "guard refused: 15 stored samples", "20 more new samples"),
        "tones": TaskState(State.ENDED, "task ended: its operator has removed it", ""),
    },
    sources=[
        SourceStatus("socket", "", 3, {}, "", ""),
        SourceStatus("mqtt", "tones", 0, {"not_json": 2}, "not_json: 'warm' is not JSON", "MqttError: refused"),
    ],
    coordinator_key="ab" * 32,
    dropped={"digits": {"balanced": 3, "waiting": 1}},
    queries=QueryUse(answered=4, refused=1, epsilon=1.5, promised=0.5),
    clusters={"digits": 2},
)


def test_every_task_is_shown_with_state_reason_and_what_it_waits_for():
    assert words_of(msgspec.json.encode(STATUS)).splitlines() == [
        "pi: sleeping, not connected to the broker",
        "updates: 2 waiting for a receipt; since the start 5 accepted, 1 refused, 0 not sent",
        "queries: 4 answered, 1 refused; epsilon 1.5 counts now, 0.5 more is promised to rounds to come",
        "coordinator key: abababababababababababababababababababababababababababababababab",
        "digits: sleeping; guard refused: 15 stored samples",
        "  version 7, cluster 2, 40 samples stored, 12 new",
        "  4 made room or were not kept (3 by 'balanced', 1 by 'waiting')",
        "  waits for 20 more new samples",
        "tones: ended; task ended: its operator has removed it",
        "  no version yet, 1 samples stored, 1 new",
        "from socket: 3 taken",
        "from mqtt for tones: 0 taken; refused: 2 not_json",
        "  the last refusal: not_json: 'warm' is not JSON",
        "  it does not run now: MqttError: refused",
        "in the round: training, step 3 of 40",
    ]


def test_shard_is_said_where_it_is_not_the_usual_one():
    for shard, said in (("", 0), ("0", 0), ("north", 1)):
        words = words_of(msgspec.json.encode(msgspec.structs.replace(STATUS, shard=shard)))
        assert words.count("in shard north") == said


def test_neighbours_are_shown_with_what_is_known_of_them_and_why_nothing_is_trained():
    neighbours = {"barn": NeighbourStatus(12.0, 2, 0.25), "den": NeighbourStatus(None, None, None)}
    gossip = GossipStatus(3, 8, 5, 4, neighbours, {"flood": 7}, "the roster is of another bundle")
    said = words_of(msgspec.json.encode(msgspec.structs.replace(STATUS, gossip={"digits": gossip})))
    assert "  among neighbours: trains nothing, as the roster is of another bundle\n" in said
    assert "  among 8 devices: 5 rounds, 4 changes told; refused from neighbours: 7 flood\n" in said
    assert "    barn: last heard 12 s ago, its copy is 2 rounds old, its model 0.25 from this one\n" in said
    assert "    den: nothing heard since the start, and no copy of its model yet\n" in said


def test_what_rounds_have_told_has_a_number_only_where_one_bounds_it():
    told = msgspec.structs.replace(STATUS, told={"digits": 1.234, "tones": None})
    lines = words_of(msgspec.json.encode(told)).splitlines()
    assert "  rounds have told epsilon 1.23 of a sample at most (delta 1e-05)" in lines
    assert "  rounds have told of samples what no epsilon bounds" in lines


def test_what_was_told_is_said_with_its_delta():
    told = msgspec.structs.replace(
        STATUS, told={"digits": 3.456}, told_of_device={"tones": 0.5}, resting={"digits": {"bedroom": 4}}, delta=1e-6
    )
    lines = words_of(msgspec.json.encode(told)).splitlines()
    assert "  rounds have told epsilon 3.46 of a sample at most (delta 1e-06)" in lines
    assert "  updates have told epsilon 0.5 of this device at most (delta 1e-06)" in lines
    assert "  4 samples rest, as another round would pass what the budget bedroom allows" in lines


def test_words_of_a_sensor_can_not_act_on_a_terminal():
    source = msgspec.structs.replace(STATUS.sources[0], last_refusal="not_json: '\x1b[2J\u202e'")
    lines = words_of(msgspec.json.encode(msgspec.structs.replace(STATUS, sources=[source]))).splitlines()
    assert "  the last refusal: not_json: '?[2J?'" in lines


def test_answer_of_another_release_is_said_to_be_one():
    with pytest.raises(ConfigurationError, match="restart it"):
        words_of(b'{"device": "pi"}')


async def asked_of(path: Path, answer: bytes) -> str:
    """What `show_status --json` writes, or raises, where the agent answers so."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert msgspec.json.decode(await reader.readline()) == {"command": "status"}
        writer.write(answer)
        writer.close()

    written: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(await asyncio.start_unix_server(serve, path))
        await asyncio.to_thread(show_status, path, written.append, as_json=True, watch=False)
        server.close()
    return "".join(written)


async def test_json_is_the_line_that_the_socket_answers(tmp_path):
    line = msgspec.json.encode(STATUS) + b"\n"
    assert await asked_of(tmp_path / "s", line) == line.decode()


@pytest.mark.parametrize("answer", [b'{"ok":true}', b'{"ok":false,"error":"unknown command"}'])
async def test_request_for_training_that_another_release_refuses_is_said_to_be_refused(tmp_path, answer):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert msgspec.json.decode(await reader.readline()) == {"command": "train"}
        writer.write(answer + b"\n")
        writer.close()

    async with await asyncio.start_unix_server(serve, tmp_path / "s") as server:
        asking = asyncio.to_thread(ask_for_training, tmp_path / "s")
        if b"true" in answer:
            await asking
        else:
            with pytest.raises(ConfigurationError, match=r"unknown command.*restart it"):
                await asking
        server.close()


async def test_half_an_answer_is_none(tmp_path):
    with pytest.raises(ConfigurationError, match="no whole answer"):
        await asked_of(tmp_path / "s", b'{"device":')


def test_agent_that_does_not_run_is_said_not_to(tmp_path):
    with pytest.raises(ConfigurationError, match=r"No such file or directory; start the agent: systemctl"):
        ask(tmp_path / "none", "status")
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / "s"))
    with pytest.raises(ConfigurationError, match="no agent listens; start it"):
        ask(tmp_path / "s", "train")
