"""The addresses of the dashboard, and what answers at each."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, Router
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from broker_coordinator.commands.export import model_of
from broker_coordinator.configuration import CoordinatorConfiguration
from broker_coordinator.dashboard import pages
from broker_coordinator.dashboard.access import (
    LOGIN,
    ONLY_SHOWS,
    Doors,
    Visitor,
    is_token,
    session_of,
)
from broker_coordinator.dashboard.changes import CHANGES, Change, make_change
from broker_coordinator.dashboard.database_at_hand import DatabaseAtHand
from broker_coordinator.dashboard.event_stream import EventStream
from broker_coordinator.dashboard.feed import Feed
from broker_coordinator.dashboard.gate import VISITOR, Gate
from broker_coordinator.dashboard.questions import (
    DevicesAsked,
    Login,
    ModelAsked,
    RefusedAsked,
    VersionsAsked,
    read_body,
    read_query,
)
from broker_coordinator.dashboard.sessions import (
    NONCE_BYTES,
    SESSION_SECONDS,
    EndedSessions,
    is_session,
    new_session,
)
from broker_coordinator.dashboard.watch import Watch
from broker_coordinator.storage.database import JournalUnavailableError
from broker_coordinator.storage.journal_reader import JournalReader
from fleet_host.log_lines import log_line
from fleet_protocol.errors import ConfigurationError, ProtocolError

STATIC: Final = Path(__file__).parent / "static"
Answer = TypeVar("Answer")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Dashboard:
    """What requests are answered with. Databases are asked in `readers`, and changed, one at a time, in `writer`."""

    configuration: CoordinatorConfiguration
    doors: Doors
    database: DatabaseAtHand
    feed: Feed
    watch: Watch
    readers: Executor
    writer: Executor
    ended: EndedSessions = field(default_factory=EndedSessions)

    def app(self) -> Gate:
        """The whole application, in ASGI."""
        reads: list[BaseRoute] = [
            Route("/", self._page),
            Route("/api/session", self._session),
            Route("/api/overview", self._overview),
            Route("/api/tasks/{task}", self._task),
            Route("/api/tasks/{task}/versions", self._versions),
            Route("/api/tasks/{task}/model", self._model),
            Route("/api/devices", self._devices),
            Route("/api/refused", self._refused),
            Route("/api/events", EventStream(self.feed), methods=["GET"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ]
        changes = [Route(path, partial(self._change, change), methods=["POST"]) for path, change in CHANGES.items()]
        logins = [Route(LOGIN, self._login, methods=["POST"]), Route("/api/logout", self._logout, methods=["POST"])]
        return Gate(_Told(Router([*changes, *logins, *reads])), self.doors, self.ended)

    async def _page(self, _: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def _session(self, request: Request) -> Response:
        visitor: Visitor = request.scope[VISITOR]
        said: dict[str, object] = {"fleet": self.configuration.fleet, "shard": self.configuration.shard}
        said |= {"name": visitor.name, "may_change": visitor.may_change, "has_token": self.doors.token is not None}
        return JSONResponse(said)

    async def _overview(self, _: Request) -> Response:
        return await self._read(pages.overview)

    async def _task(self, request: Request) -> Response:
        return await self._read(lambda journal: pages.task_page(journal, request.path_params["task"]))

    async def _versions(self, request: Request) -> Response:
        asked = read_query(request.query_params, VersionsAsked)
        return await self._read(lambda journal: pages.versions_page(journal, request.path_params["task"], asked))

    async def _devices(self, request: Request) -> Response:
        asked = read_query(request.query_params, DevicesAsked)
        heard, since = self.watch.heard(), self.watch.since
        return await self._read(lambda journal: pages.devices_page(journal, asked, heard, since, time.time()))

    async def _refused(self, request: Request) -> Response:
        asked = read_query(request.query_params, RefusedAsked)
        return await self._read(lambda journal: pages.refused_page(journal, asked))

    async def _model(self, request: Request) -> Response:
        visitor: Visitor = request.scope[VISITOR]
        if not visitor.may_change:
            raise HTTPException(403, ONLY_SHOWS)
        task, asked = request.path_params["task"], read_query(request.query_params, ModelAsked)
        weights = await _in(
            self.writer,
            lambda: self.database.read(lambda journal: model_of(journal, task, asked.version, single=asked.single)),
        )
        name = f"{task}-{'newest' if asked.version is None else asked.version}.safetensors"
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(weights, media_type="application/octet-stream", headers=headers)

    async def _change(self, change: Change, request: Request) -> Response:
        body = read_body(await request.body(), change.body)
        subject, visitor = request.path_params.get("subject", ""), request.scope[VISITOR]

        def make() -> object:
            self.database.read(lambda _: None)  # a change must not make a database that is gone anew
            return make_change(change, self.configuration, subject, body, visitor)

        return JSONResponse(await _in(self.writer, make))

    async def _login(self, request: Request) -> Response:
        visitor: Visitor = request.scope[VISITOR]
        given = read_body(await request.body(), Login).token.strip()
        if self.doors.token is None:
            raise ConfigurationError("nobody has to log in here: [dashboard] has no token_file")
        if not is_token(given, self.doors.token):
            logger.warning(log_line("dashboard_login_refused", address=visitor.address))
            raise HTTPException(401, "that is not the token of [dashboard] token_file")
        logger.info(log_line("dashboard_login", address=visitor.address))
        answer = JSONResponse({})
        answer.set_cookie(
            self.doors.cookie,
            new_session(self.doors.token, time.time(), secrets.token_bytes(NONCE_BYTES)),
            max_age=SESSION_SECONDS,
            secure=request.headers.get("origin", "").startswith("https:"),
            httponly=True,
            samesite="strict",
        )
        return answer

    async def _logout(self, request: Request) -> Response:
        session = session_of(request.headers.get("cookie", ""), self.doors)
        if self.doors.token is not None and session is not None and is_session(session, self.doors.token, time.time()):
            self.ended.add(session, time.time())
        answer = JSONResponse({})
        answer.delete_cookie(self.doors.cookie, httponly=True, samesite="strict")
        return answer

    async def _read(self, question: Callable[[JournalReader], object]) -> Response:
        found = await _in(self.readers, lambda: msgspec.json.encode(self.database.read(question)))
        return Response(found, media_type="application/json")


class _Told:
    """What is wrong with a request, or with the database now, as an answer in words."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; what it raises behind the first byte of an answer, and what is a mistake of ours, goes on."""
        try:
            _require_text(scope)
            await self._router({**scope, "app": self}, receive, send)
        except HTTPException as error:
            await JSONResponse({"error": error.detail}, error.status_code)(scope, receive, send)
        except (ConfigurationError, ProtocolError) as error:
            await JSONResponse({"error": str(error)}, 400)(scope, receive, send)
        except JournalUnavailableError as error:
            words = f"the database can't be read or written now: {error}; this page tries again by itself"
            await JSONResponse({"error": words}, 503)(scope, receive, send)


def _require_text(scope: Scope) -> None:
    if "\0" in scope["path"] or b"%00" in scope["query_string"]:  # PostgreSQL has no text with it
        raise ConfigurationError("the address can't be answered: no name has the character NUL")


async def _in(executor: Executor, work: Callable[[], Answer]) -> Answer:
    return await asyncio.get_running_loop().run_in_executor(executor, work)
