"""A wait for the broker's answer ends when it is cancelled, also at the moment at which the answer comes."""

import asyncio

import aiomqtt
import pytest

from edge_agent.mqtt.broker_client import BrokerClient
from fleet_host.broker_settings import BrokerSettings

DEADLINE_SECONDS = 20


def client() -> BrokerClient:
    return BrokerClient(BrokerSettings("broker.example"), "pi", maximum_packet_bytes=1000, on_too_long=lambda *_: None)


async def test_cancellation_that_comes_together_with_the_answer_is_not_lost():
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(client()._wait_for(answer, timeout=DEADLINE_SECONDS))
    await asyncio.sleep(0)  # it waits now
    answer.set_result(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_answer_that_does_not_come_in_time_is_an_error_of_the_connection():
    with pytest.raises(aiomqtt.MqttError, match="no answer in time"):
        await client()._wait_for(asyncio.Event().wait(), timeout=0.001)
