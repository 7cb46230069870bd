"""A session that a test opens itself, so that it can decrypt what a wiretap has heard of it."""

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from bundle_runtime.bundle import Bundle
from fleet_protocol.sessions import device_end
from fleet_protocol.sessions.events import Granted, Wanted
from fleet_protocol.sessions.frames import FrameType, is_frame, read_frame
from fleet_protocol.sessions.secrecy import session_keys, unseal
from fleet_protocol.sessions.steps import StepRequest
from tests.support.session_members import DeviceMember, turning

Keys = dict[bytes, tuple[bytes, bytes]]
"""By session, of both directions."""


def noted_keys(monkeypatch: pytest.MonkeyPatch) -> Keys:
    """Those of the sessions that this process opens from now on, as they come."""
    keys: Keys = {}

    def note(session: bytes, *others: Any) -> tuple[bytes, bytes]:
        keys[session] = session_keys(session, *others)
        return keys[session]

    monkeypatch.setattr(device_end, "session_keys", note)
    return keys


def decrypted(published: Iterable[bytes], keys: Keys) -> list[bytes]:
    """What the frames of those sessions hold, in the clear."""
    frames = [read_frame(data) for data in published if is_frame(data)]
    return [
        unseal(keys[frame.session][frame.direction], frame.number, frame.index, frame.count, frame.body)
        for frame in frames
        if frame.session in keys and frame.type is FrameType.CONTENT
    ]


def pass_forward(member: DeviceMember, bundle: Bundle, cut: str, request: StepRequest) -> None:
    """Let a helper of the first version answer one request of a session."""
    member.open(Wanted(bundle.description.task, bytes.fromhex(bundle.hash), cut, 0))
    turning(member, when=lambda: member.events, what="the relay has answered")
    assert isinstance(member.events[0], Granted), member.events[0]
    asked = member.end.request(msgspec.msgpack.encode(request))
    turning(member, when=lambda: asked in member.answers, what="the helper has answered")
    member.end.leave()
    member.turn()
