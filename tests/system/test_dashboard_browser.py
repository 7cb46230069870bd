"""The dashboard in Debian's Chromium: by keyboard, on a phone, for a screen reader, with hostile text, and alone."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import Browser, expect

from broker_coordinator.admission.fleet_view import Device, DeviceState
from broker_coordinator.dashboard.feed import MOST_STREAMS
from broker_coordinator.storage.change_counters import TASKS, count_up
from broker_coordinator.storage.database import writing
from broker_coordinator.storage.device_registry import store_device
from broker_coordinator.storage.journal import Journal, insert_version
from broker_coordinator.storage.records import Evaluation
from broker_coordinator.storage.version_registry import VersionRegistry
from fleet_protocol.keys import SigningKey
from tests.support.agent import AgentProcess, copy_digits_bundle
from tests.support.broker import Broker, free_port
from tests.support.browser import Looker, chromium
from tests.support.coordinator import CoordinatorProcess
from tests.support.dashboard import TOKEN, AskedDashboard, asked_dashboard, settings_of
from tests.support.waiting import until

HOSTILE = "<img src=x onerror=alert(1)>"
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def coordinator(tmp_path: Path, broker: Broker) -> Iterator[CoordinatorProcess]:
    """With closed enrolment, some versions, and a device that waits whose profile would be HTML."""
    copy_digits_bundle(tmp_path / "digits", buffer_size=1)
    more = settings_of(tmp_path, free_port())
    coordinator = CoordinatorProcess(
        tmp_path / "coordinator", broker, [tmp_path / "digits"], enrolment="closed", more=more
    )
    coordinator.start_serving()
    with Journal.open(coordinator.database) as journal:
        versions = VersionRegistry(journal.engine)
        zero = journal.newest_version("digits")
        assert zero is not None
        with writing(journal.engine) as connection:
            for number in range(1, 6):
                insert_version(connection, replace(zero, number=number, restored=0))
            count_up(connection, TASKS)
            key = SigningKey.generate().verify_key
            store_device(connection, Device("attic-pi", key, DeviceState.PENDING, HOSTILE, HOSTILE))
        for number in range(1, 6):
            versions.add_evaluation("digits", Evaluation(number, 100, 1 / number, 1 - 0.5**number))
    yield coordinator
    coordinator.kill()


@pytest.fixture
def address(coordinator: CoordinatorProcess) -> str:
    (port,) = re.findall(r"port = (\d+)\ntoken_file", coordinator.configuration.read_text())
    return asked_dashboard(coordinator, int(port)).address


def test_device_is_approved_by_keyboard_and_its_version_appears_without_a_reload(
    tmp_path, broker, coordinator, address, browser
) -> None:
    agent = AgentProcess(tmp_path / "kitchen", "kitchen-pi", broker, coordinator.public_key)
    agent.start()
    try:
        looker = Looker(browser, address, TOKEN)
        page = looker.page
        looker.open("devices", "Devices")
        button = page.get_by_role("button", name="Approve kitchen-pi")
        button.wait_for(timeout=60_000)
        page.locator("main").focus()
        for _ in range(40):
            page.keyboard.press("Tab")
            if button.evaluate("each => each === document.activeElement"):
                break
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog", name="Let kitchen-pi take part?")
        expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
        assert looker.barriers() == []
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_have_text("kitchen-pi is approved")
        expect(page.get_by_role("row", name="kitchen-pi")).to_contain_text("approved")
        looker.open("versions/digits", "Versions of digits")
        expect(page.get_by_text("Version 5 is the newest.")).to_be_visible()
        agent.feed(4)
        expect(page.get_by_text("Version 6 is the newest.")).to_be_visible(timeout=60_000)
        assert looker.strangers() == []
        assert looker.complaints == []
    finally:
        agent.kill()


PAGES = {
    "tasks": "Tasks",
    "tasks/digits": "Task digits",
    "versions/digits": "Versions of digits",
    "devices": "Devices",
    "log": "What was refused",
}


def test_nothing_keeps_anybody_from_using_a_page(coordinator, address, browser) -> None:
    for scheme, width in product(("light", "dark"), (1280, 360)):
        looks = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
        stranger = Looker(browser, address, **looks)
        stranger.page.get_by_role("heading", name="Log in", level=1).wait_for()
        assert stranger.barriers() == []
        looker = Looker(browser, address, TOKEN, **looks)
        for name, heading in PAGES.items():
            looker.open(name, heading)
            looker.page.locator("main table, main p.soft").first.wait_for(state="attached")
            for summary in looker.page.locator("summary").all():
                summary.click()
            assert looker.barriers() == [], (name, scheme, width)
            assert looker.page.evaluate("document.documentElement.scrollWidth") <= width, f"{name} scrolls sideways"
        assert looker.strangers() == []
        assert looker.complaints == []


def test_text_of_a_device_stays_text(coordinator, address, browser) -> None:
    looker = Looker(browser, address, TOKEN)
    looker.open("devices", "Devices")
    row = looker.page.get_by_role("row", name="attic-pi")
    expect(row).to_contain_text(HOSTILE)
    assert looker.page.locator("img").count() == 0
    assert looker.complaints == []


def test_database_that_is_gone_is_said_on_the_page_until_it_is_back(coordinator, address, browser) -> None:
    looker = Looker(browser, address, TOKEN)
    trouble = looker.page.get_by_role("alert")
    moved = coordinator.database.with_name("moved.db")
    coordinator.database.rename(moved)
    expect(trouble).to_contain_text("No such file or directory", timeout=30_000)
    moved.rename(coordinator.database)
    expect(trouble).to_be_hidden(timeout=30_000)
    expect(looker.page.get_by_role("row", name="digits")).to_be_visible()


def test_page_of_another_port_has_the_cookie_and_can_change_nothing(tmp_path, coordinator, address, browser) -> None:
    looker = Looker(browser, address, TOKEN)
    other = looker.context.new_page()
    serve = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "digits"))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        other.goto(f"http://127.0.0.1:{server.server_port}/task.json")
        options = "{method: 'POST', credentials: 'include', mode: 'no-cors', body: '{}'}"
        send = f"address => fetch(address, {options}).then(() => 1, () => 0)"
        other.evaluate(send, f"{address}/api/tasks/digits/pause")
        server.shutdown()
    until(lambda: "event=dashboard_refused reason=403" in coordinator.log(), "the coordinator has refused it")
    assert coordinator.tasks("list")[0]["paused"] is False


def test_rollback_is_confirmed_first_and_pause_says_what_it_did(coordinator, address, browser) -> None:
    looker = Looker(browser, address, TOKEN)
    page = looker.page
    looker.open("versions/digits", "Versions of digits")
    page.get_by_role("button", name="Go back to version 2", exact=True).click()
    page.keyboard.press("Escape")
    assert coordinator.tasks("list")[0]["version"] == 5
    page.get_by_role("button", name="Go back to version 2", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Go back", exact=True).click()
    expect(page.get_by_text("Version 6 is the newest.")).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("status")).to_have_text("digits is paused: devices keep their updates")
    expect(page.get_by_role("button", name="Resume")).to_be_focused()
    with page.expect_download() as download:
        page.get_by_role("link", name="Model to use (safetensors)").click()
    assert download.value.suggested_filename == "digits-newest.safetensors"


def test_page_that_no_stream_was_left_for_says_so_and_gets_one_later(coordinator, address, browser) -> None:
    asked = AskedDashboard(int(address.rpartition(":")[2]), {"Authorization": f"Bearer {TOKEN}"})
    with ExitStack() as streams:
        for _ in range(MOST_STREAMS):
            streams.enter_context(asked.client.stream("GET", "/api/events"))
        looker = Looker(browser, address, TOKEN)
        expect(looker.page.get_by_role("alert")).to_contain_text("tries again by itself")
    expect(looker.page.get_by_role("alert")).to_be_hidden(timeout=30_000)
    asked.post("/api/tasks/digits/pause")
    expect(looker.page.get_by_role("row", name="digits")).to_contain_text("paused", timeout=30_000)
