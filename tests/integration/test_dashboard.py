"""The dashboard on a database, without a coordinator: what its pages say, what it refuses, and what harms it not."""

import asyncio
import json
import secrets
import sqlite3
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from sqlalchemy import insert

from broker_coordinator.admission.fleet_view import Device, DeviceState
from broker_coordinator.configuration import CoordinatorConfiguration, load_configuration
from broker_coordinator.dashboard import pages
from broker_coordinator.dashboard.access import Doors
from broker_coordinator.dashboard.database_at_hand import DatabaseAtHand
from broker_coordinator.dashboard.feed import MOST_STREAMS, Feed, TooManyStreamsError
from broker_coordinator.dashboard.gate import HEADERS, MAX_BODY_BYTES
from broker_coordinator.dashboard.questions import DevicesAsked
from broker_coordinator.dashboard.routes import Dashboard
from broker_coordinator.dashboard.watch import Watch
from broker_coordinator.storage.database import writing
from broker_coordinator.storage.device_registry import store_device
from broker_coordinator.storage.records import Evaluation
from broker_coordinator.storage.schema import devices, rejections
from broker_coordinator.storage.version_registry import VersionRegistry
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import SigningKey
from tests.support.bench import Bench
from tests.support.bundles import TASK
from tests.support.device import SigningDevice

TOKEN = secrets.token_hex(32)
HOST = "http://127.0.0.1:8765"
COORDINATOR = (
    'fleet = "home"\nkey_file = "coordinator.key"\ndatabase = "coordinator.db"\n[broker]\nhost = "127.0.0.1"\n'
)


@pytest.fixture
def bench(tmp_path, bundle) -> Bench:
    """A coordinator with one device, three of whose updates made version 1 and of which one was refused."""
    bench, device = Bench(tmp_path / "coordinator.db", bundle), SigningDevice("kitchen-pi")
    bench.handle(device, device.enrolment(), *(device.update(sequence) for sequence in (1, 2, 3)))
    bench.make_versions()
    bench.handle(device, device.update(4, task="roses"), b"garbage")
    VersionRegistry(bench.journal.engine).add_evaluation(TASK, Evaluation(1, 10, 0.5, 0.875))
    return bench


@pytest.fixture
def configuration(tmp_path: Path) -> CoordinatorConfiguration:
    (tmp_path / "coordinator.toml").write_text(COORDINATOR)
    return load_configuration(tmp_path / "coordinator.toml")


@pytest.fixture
def dashboard(bench: Bench, configuration: CoordinatorConfiguration) -> Dashboard:
    database, feed = DatabaseAtHand(configuration.journal()), Feed()
    watch = Watch(database, feed.tell)
    return Dashboard(
        configuration,
        Doors(token=TOKEN, port=8765),
        database,
        feed,
        watch,
        ThreadPoolExecutor(2),
        ThreadPoolExecutor(1),
    )


@pytest.fixture
async def client(dashboard: Dashboard) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    transport = httpx.ASGITransport(dashboard.app())
    async with httpx.AsyncClient(transport=transport, base_url=HOST, headers=headers, timeout=30) as client:
        yield client


async def test_pages_say_what_the_database_says(client) -> None:
    overview = (await client.get("/api/overview")).json()
    (row,) = overview["tasks"]
    assert (row["task"], row["version"], row["accepted"], row["waiting"]) == (TASK, 1, 3, 0)
    assert (row["evaluated_version"], row["accuracy"], row["loss"]) == (1, 0.875, 0.5)
    assert overview["devices"] == {"pending": 0, "approved": 1, "revoked": 0}
    page = (await client.get(f"/api/tasks/{TASK}")).json()
    assert page["row"] == row
    assert page["told"]["scale"]
    zero, one = (await client.get(f"/api/tasks/{TASK}/versions")).json()["versions"]
    assert (zero["number"], zero["updates"], one["number"], one["updates"], one["accuracy"]) == (0, 0, 1, 3, 0.875)
    (device,) = (await client.get("/api/devices")).json()["devices"]
    assert (device["name"], device["updates"], device["refused"]) == ("kitchen-pi", 3, {"unknown_task": 1})
    refused = (await client.get("/api/refused")).json()
    assert {each["reason"]: each["messages"] for each in refused["reasons"]} == {"unknown_task": 1, "malformed": 1}
    (payload,) = refused["payloads"]
    assert (payload["device"], payload["sequence"], payload["reason"]) == ("kitchen-pi", 4, "unknown_task")


async def test_versions_turn_page_by_page(client, bench) -> None:
    for number in (0, 1, 2, 3):
        VersionRegistry(bench.journal.engine).roll_back(TASK, number)
    first = (await client.get(f"/api/tasks/{TASK}/versions?rows=4")).json()
    assert ([each["number"] for each in first["versions"]], first["before"]) == ([2, 3, 4, 5], 2)
    second = (await client.get(f"/api/tasks/{TASK}/versions?rows=4&before=2")).json()
    assert ([each["number"] for each in second["versions"]], second["before"]) == ([0, 1], None)
    assert second["versions"][1]["updates"] == 3


async def test_ten_thousand_devices_are_searched_and_sorted_a_page_at_a_time(client, bench) -> None:
    rows = [
        {
            "public_key": number.to_bytes(32, "big"),
            "name": f"pi-{number:05}",
            "state": ("approved", "pending", "revoked")[number % 3],
            "profile": f"<b>board {number % 7}</b>",
            "software": "",
            "presence": "offline",
            "boot": 0,
            "request_sequence": 0,
            "changed": number,
        }
        for number in range(9_999)
    ]
    with writing(bench.journal.engine) as connection:
        connection.execute(insert(devices), rows)
        refusals = [{"reason": "rate_limited", "device": row["name"], "count": 1 + row["changed"]} for row in rows]
        connection.execute(insert(rejections), refusals)
    page = (await client.get("/api/devices?rows=3&first=5000&sort=name&descending=true")).json()
    assert ([each["name"] for each in page["devices"]], page["total"]) == (["pi-04998", "pi-04997", "pi-04996"], 10_000)
    found = (await client.get("/api/devices?search=PI-005&state=pending&rows=200")).json()
    assert found["total"] == len(found["devices"]) == 33
    assert {each["state"] for each in found["devices"]} == {"pending"}
    assert found["devices"][0]["profile"].startswith("<b>board"), "as it is: pages show it as text"
    most = (await client.get("/api/devices?sort=refused&descending=true&rows=2")).json()
    assert [(each["name"], each["refused"]) for each in most["devices"]] == [
        ("pi-09998", {"rate_limited": 9999}),
        ("pi-09997", {"rate_limited": 9998}),
    ]
    none = (await client.get("/api/devices", params={"search": "100%_"})).json()
    assert (none["total"], none["devices"]) == (0, []), "what the database takes for a pattern is a text"


@pytest.mark.parametrize(
    "address",
    [
        "/api/devices?rows=0",
        "/api/devices?rows=100000000000000000000000000",
        "/api/devices?rows=NaN",
        "/api/devices?first=-1",
        "/api/devices?first=1e308",
        "/api/devices?sort=public_key",
        "/api/devices?state=dead",
        "/api/devices?colour=red",
        "/api/devices?search=" + "x" * 101,
        "/api/tasks/roses",
        f"/api/tasks/{TASK}/versions?rows=201",
        f"/api/tasks/{TASK}/versions?before=99999999999999999999",
        f"/api/tasks/{TASK}/model?version=7",
        "/api/refused?device=<script>",
        "/api/refused?reason=boredom",
        "/api/tasks/%00/versions",
        "/api/devices?search=a%00b",
    ],
)
async def test_absurd_question_is_refused_in_words(client, address) -> None:
    answer = await client.get(address)
    assert answer.status_code == 400, answer.text
    assert len(answer.json()["error"]) > 20


async def test_device_is_approved_and_revoked_as_the_commands_do_it(client, bench, caplog) -> None:
    caplog.set_level("INFO")
    key = SigningKey.generate().verify_key
    with writing(bench.journal.engine) as connection:
        store_device(connection, Device("attic-pi", key, DeviceState.PENDING))
    (row,) = (await client.get("/api/devices?state=pending")).json()["devices"]
    assert (await client.post("/api/devices/attic-pi/approve", json={"key": row["key_id"]})).json() == {
        "state": "approved"
    }
    assert "event=dashboard_changed change=approve of=attic-pi" in caplog.text
    assert (await client.post("/api/devices/attic-pi/revoke", json={})).json() == {"state": "revoked"}
    unknown = await client.post("/api/devices/cellar-pi/revoke", json={})
    assert (unknown.status_code, "no device 'cellar-pi'" in unknown.json()["error"]) == (400, True)
    assert "broker_accounts" in (await client.post("/api/invitations", json={"name": "new-pi"})).json()["error"]
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"/api/tasks/{TASK}/rollback", b'{"version": -1}'),
        (f"/api/tasks/{TASK}/rollback", b'{"version": 1e400}'),
        (f"/api/tasks/{TASK}/rollback", b"{}"),
        (f"/api/tasks/{TASK}/rollback", b'{"version": 1}'),
        (f"/api/tasks/{TASK}/pause", b'{"how": "long"}'),
        (f"/api/tasks/{TASK}/pause", b"[" * 10_000),
        ("/api/tasks/roses/pause", b"{}"),
        ("/api/devices/kitchen-pi/approve", b'{"key": "zz"}'),
        ("/api/devices/KITCHEN/approve", b'{"key": "0000000000000000"}'),
        ("/api/invitations", b'{"name": "<b>"}'),
        ("/api/invitations", b'{"name": "new-pi", "hours": 0}'),
        ("/api/invitations", b"\xff\xfe"),
        ("/api/tasks/%00/pause", b"{}"),
        ("/api/devices/kitchen-pi/approve", b'{"key": "\\u0000"}'),
    ],
)
async def test_bad_change_is_refused_in_words_and_changes_nothing(client, bench, path, body) -> None:
    before = list(bench.journal.engine.raw_connection().driver_connection.iterdump())
    answer = await client.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]
    assert list(bench.journal.engine.raw_connection().driver_connection.iterdump()) == before


async def test_login_gives_a_cookie_that_no_script_reads_and_no_other_site_sends(dashboard) -> None:
    transport = httpx.ASGITransport(dashboard.app())
    async with httpx.AsyncClient(transport=transport, base_url=HOST) as browser:
        assert (await browser.get("/api/overview")).status_code == 401
        wrong = await browser.post("/api/login", json={"token": "x" * 64})
        assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
        right = await browser.post("/api/login", json={"token": TOKEN}, headers={"origin": HOST})
        cookie = right.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
        assert TOKEN not in cookie
        assert (await browser.get("/api/overview")).status_code == 200
        assert (await browser.post(f"/api/tasks/{TASK}/pause", json={})).status_code == 200
        stolen = await browser.post(f"/api/tasks/{TASK}/resume", json={}, headers={"origin": "http://evil.example"})
        assert stolen.status_code == 403
        copied = {"cookie": cookie.partition(";")[0]}
        await browser.post("/api/logout", json={})
        assert (await browser.get("/api/overview")).status_code == 401
        assert (await browser.get("/api/overview", headers=copied)).status_code == 401
        https = {"origin": "https://127.0.0.1:8765"}
        assert (
            "Secure" in (await browser.post("/api/login", json={"token": TOKEN}, headers=https)).headers["set-cookie"]
        )


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/api/overview", "/nowhere", "/static/../routes.py"])
async def test_every_answer_forbids_scripts_of_others_and_frames(client, path) -> None:
    answer = await client.get(path)
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "access-control-allow-origin" not in answer.headers


async def test_get_changes_nothing_and_a_body_is_bounded(client, bench) -> None:
    for path in (f"/api/tasks/{TASK}/pause", "/api/devices/kitchen-pi/revoke", "/api/login"):
        assert (await client.get(path)).status_code in {404, 405}
    json_type = {"content-type": "application/json"}
    large = await client.post(f"/api/tasks/{TASK}/pause", content=b" " * (MAX_BODY_BYTES + 1), headers=json_type)
    assert large.status_code == 413


async def test_mistake_of_ours_is_an_answer_with_a_number_that_the_log_has(client, monkeypatch, caplog) -> None:
    monkeypatch.setattr(pages, "overview", lambda _: 1 / 0)
    answer = await client.get("/api/overview")
    assert answer.status_code == 500
    number = answer.json()["error"].split()[-1]
    assert f"event=dashboard_failed id={number} path=/api/overview" in caplog.text
    assert "ZeroDivisionError" not in answer.text


async def test_locked_database_is_said_and_read_again_once_it_is_free(client, bench, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("broker_coordinator.storage.database.BUSY_TIMEOUT_MILLISECONDS", 50)
    with closing(sqlite3.connect(tmp_path / "coordinator.db", isolation_level=None)) as other:
        bench.journal.close()
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN EXCLUSIVE")
        answer = await client.get("/api/overview")
        assert answer.status_code == 503, answer.text
        assert "database" in answer.json()["error"]
    assert (await client.get("/api/overview")).status_code == 200


async def test_restored_database_is_opened_anew(client, bench, tmp_path, bundle) -> None:
    assert (await client.get("/api/overview")).json()["tasks"][0]["version"] == 1
    bench.journal.close()
    for name in ("coordinator.db", "coordinator.db-wal", "coordinator.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    Bench(tmp_path / "coordinator.db", bundle).journal.close()
    assert (await client.get("/api/overview")).json()["tasks"][0]["version"] == 0


def test_watch_notes_who_was_heard_and_tells_what_fails_once_in_the_log(dashboard, bench, tmp_path, caplog) -> None:
    told: list[bytes] = []
    watch = Watch(dashboard.database, told.append)
    watch.look()
    assert watch.heard() == {}, "what came before was not seen coming"
    device = SigningDevice("attic-pi")
    bench.handle(device, device.enrolment(), device.update(1, base_version=1))
    watch.look()
    assert list(watch.heard()) == ["attic-pi"]
    assert json.loads(told[-1])["waiting"] == {TASK: 1}
    hidden = (tmp_path / "coordinator.db").rename(tmp_path / "hidden.db")
    watch.look()
    watch.look()
    assert "No such file" in json.loads(told[-1])["database"]
    assert caplog.text.count("event=dashboard_database_unavailable") == 1
    hidden.rename(tmp_path / "coordinator.db")
    watch.look()
    assert json.loads(told[-1])["database"] == ""


async def test_slow_reader_is_told_the_newest_alone_and_holds_up_nobody() -> None:
    feed = Feed()
    with feed.stream() as slow, feed.stream() as quick:
        feed.tell(b"1")
        assert await anext(slow) == await anext(quick) == b"data: 1\n\n"
        for number in range(2, 1000):
            feed.tell(str(number).encode())
            assert await anext(quick) == b"data: %d\n\n" % number
        assert await anext(slow) == b"data: 999\n\n"
        waiting = asyncio.create_task(anext(slow))
        await asyncio.sleep(0)
        feed.tell(b"999")
        feed.close()
        with pytest.raises(StopAsyncIteration):
            await waiting


def test_streams_are_bounded_and_a_place_is_free_again() -> None:
    feed = Feed(most=2)
    with feed.stream(), feed.stream(), pytest.raises(TooManyStreamsError), feed.stream():
        pass
    with feed.stream():
        pass
    assert MOST_STREAMS == 64


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('port = 8765\naddress = "0.0.0.0"', "token_file"),
        ('port = 8765\naddress = "flock.example"', "token_file"),
        ('port = 8765\naddress = "999.1.1.1"', "999.1.1.1"),
        ("port = 0", "port"),
        ('user_header = "X User"', "user_header"),
        ('proxies = ["proxy.example"]', "proxies"),
        ('hosts = ["http://flock.example"]', "hosts"),
        ('password = "x"', "password"),
    ],
)
def test_bad_table_is_refused_in_words(tmp_path, table, words) -> None:
    (tmp_path / "coordinator.toml").write_text(f"{COORDINATOR}[dashboard]\n{table}\n")
    with pytest.raises(ConfigurationError, match=words):
        load_configuration(tmp_path / "coordinator.toml")


@pytest.mark.parametrize(("token", "mode", "words"), [("short", 0o600, "openssl rand"), ("t" * 32, 0o644, "chmod o=")])
def test_token_that_others_know_or_guess_is_refused(tmp_path, token, mode, words) -> None:
    (tmp_path / "coordinator.toml").write_text(f'{COORDINATOR}[dashboard]\ntoken_file = "token"\n')
    settings = load_configuration(tmp_path / "coordinator.toml").dashboard
    with pytest.raises(ConfigurationError, match="make it, or take the key out"):
        settings.token()
    (tmp_path / "token").write_text(token)
    (tmp_path / "token").chmod(mode)
    with pytest.raises(ConfigurationError, match=words):
        settings.token()


def test_sorts_and_states_of_the_page_are_those_of_the_database() -> None:
    script = (Path(pages.__file__).parent / "static" / "pages" / "devices.js").read_text()
    for sort in ("name", "state", "presence", "profile", "software", "changed", "refused"):
        assert DevicesAsked(sort=sort).sort == sort
        assert f"{sort}:" in script
