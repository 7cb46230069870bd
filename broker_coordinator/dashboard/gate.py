"""The outermost layer of every request: who is let in, how large a body may be, which headers every answer has."""

import asyncio
import logging
import secrets
import time
from collections.abc import Container, Mapping
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker_coordinator.dashboard.access import Asked, Doors, Refusal, admit
from fleet_host.log_lines import log_line
from fleet_protocol.limits import KIB

MAX_BODY_BYTES: Final = 16 * KIB
BODY_SECONDS: Final = 10.0
VISITOR: Final = "edgeflock.visitor"
"""Where a request's scope has its `Visitor`."""

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}

logger = logging.getLogger(__name__)


class BodyRefusedError(Exception):
    """A body is larger than it may be, comes too slowly, or not whole; says so in words for whoever sends it."""


class Gate:
    """Lets requests through to `app`; `ended` are the sessions that have logged out. What goes wrong behind it is one
    answer with a number that the log has too.
    """

    def __init__(self, app: ASGIApp, doors: Doors, ended: Container[str]) -> None:
        self._app = app
        self._doors = doors
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        has_begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *added]}
            await send(message)

        visitor = admit(_asked(scope, self._doors), self._doors, time.time(), self._ended)
        if isinstance(visitor, Refusal):
            self._log_refused(scope, visitor)
            await _answer(visitor.status, visitor.words, scope, receive, send_with_headers)
            return
        scope[VISITOR] = visitor
        try:
            body = b"" if scope["method"] != "POST" else await _read_body(receive)
        except BodyRefusedError as error:
            await _answer(413, str(error), scope, receive, send_with_headers)
            return
        try:
            await self._app(scope, _replayed(body, receive), send_with_headers)
        except Exception:
            number = secrets.token_hex(4)
            logger.exception(log_line("dashboard_failed", id=number, path=scope["path"][:100]))
            if not has_begun:
                words = f"something went wrong; the coordinator's log has it as {number}"
                await _answer(500, words, scope, receive, send_with_headers)

    @staticmethod
    def _log_refused(scope: Scope, refusal: Refusal) -> None:
        if refusal.status == 401 and scope["method"] != "POST":  # whoever has not logged in yet
            return
        logger.warning(
            log_line(
                "dashboard_refused",
                reason=refusal.status,
                path=scope["path"][:100],
                address=_peer(scope),
                why=refusal.words,
            )
        )


def _asked(scope: Scope, doors: Doors) -> Asked:
    headers = Headers(scope=scope)
    users = headers.getlist(doors.user_header) if doors.user_header else []
    return Asked(
        scope["method"],
        scope["path"],
        _peer(scope),
        headers.getlist("host"),
        headers.get("origin"),
        headers.get("sec-fetch-site"),
        headers.get("content-type"),
        headers.get("authorization"),
        headers.get("cookie"),
        users[0] if len(users) == 1 else None,  # a proxy that adds to what it was sent does not say who asks
    )


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


async def _read_body(receive: Receive) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise BodyRefusedError("the request ended before its end")
                body += message.get("body", b"")
                if len(body) > MAX_BODY_BYTES:
                    raise BodyRefusedError(f"the request is larger than {MAX_BODY_BYTES} bytes")
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise BodyRefusedError(f"the request did not come within {BODY_SECONDS:g} s") from None


def _replayed(body: bytes, receive: Receive) -> Receive:
    """What the application receives: the body that was read, then what else comes."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


async def _answer(status: int, words: str, scope: Scope, receive: Receive, send: Send) -> None:
    headers = {"allow": "GET, HEAD, POST"} if status == 405 else {}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if status in {413, 500}:
        headers["connection"] = "close"
    await JSONResponse({"error": words}, status, headers)(scope, receive, send)
