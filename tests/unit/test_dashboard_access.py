"""Who is let into the dashboard: every way in is refused by the one value that is wrong."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.dashboard.access import (
    Asked,
    Doors,
    Refusal,
    Visitor,
    admit,
    is_token,
)
from broker_coordinator.dashboard.sessions import SESSION_SECONDS, EndedSessions, is_session
from broker_coordinator.dashboard.sessions import new_session as session_of_nonce

NOW = 1_790_000_000.0
TOKEN = "t" * 32
HOST = "127.0.0.1:8765"
WITH_TOKEN = Doors(token=TOKEN, port=8765)
BEHIND_PROXY = Doors(user_header="X-Remote-User", proxies=("127.0.0.1",), hosts=("flock.example",), port=8765)
LOOKING = Doors(port=8765)
CHANGE = Asked(
    "POST",
    "/api/devices/kitchen-pi/approve",
    "127.0.0.1",
    [HOST],
    origin=f"http://{HOST}",
    fetch_site="same-origin",
    content_type="application/json",
    authorization=f"Bearer {TOKEN}",
)
LOOK = Asked("GET", "/api/overview", "127.0.0.1", [HOST])


def status(asked: Asked, doors: Doors) -> int:
    found = admit(asked, doors, NOW)
    return found.status if isinstance(found, Refusal) else 200


def new_session(token: str, now: float, nonce: bytes = bytes(8)) -> str:
    return session_of_nonce(token, now, nonce)


def cookie(value: str) -> str:
    return f"theme=dark; {WITH_TOKEN.cookie}={value}"


def test_change_with_the_token_from_the_page_itself_is_let_in() -> None:
    assert admit(CHANGE, WITH_TOKEN, NOW) == Visitor("who has the token", "127.0.0.1", may_change=True)
    by_cookie = replace(CHANGE, authorization=None, cookies=cookie(new_session(TOKEN, NOW)))
    assert status(by_cookie, WITH_TOKEN) == 200
    script = replace(CHANGE, origin=None, fetch_site=None)
    assert status(script, WITH_TOKEN) == 200


@pytest.mark.parametrize(
    ("changed", "refused"),
    [
        ({"authorization": None}, 401),
        ({"authorization": "Bearer " + "T" * 32}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"authorization": TOKEN}, 401),
        ({"authorization": None, "cookies": cookie("forged")}, 401),
        ({"authorization": None, "cookies": cookie(new_session("u" * 32, NOW))}, 401),
        ({"authorization": None, "cookies": cookie(new_session(TOKEN, NOW - SESSION_SECONDS - 1))}, 401),
        ({"authorization": None, "cookies": cookie(new_session(TOKEN, NOW)) + "x" * 5000}, 401),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"fetch_site": "cross-site"}, 403),
        ({"fetch_site": "same-site"}, 403),
        ({"fetch_site": "none"}, 403),
        ({"content_type": "text/plain"}, 415),
        ({"content_type": "application/x-www-form-urlencoded"}, 415),
        ({"content_type": None}, 415),
        ({"hosts": ["evil.example"], "origin": "http://evil.example"}, 421),
        ({"hosts": ["127.0.0.1.evil.example"], "origin": "http://127.0.0.1.evil.example"}, 421),
        ({"hosts": []}, 400),
        ({"hosts": [HOST, HOST]}, 400),
        ({"method": "PUT"}, 405),
        ({"method": "OPTIONS"}, 405),
    ],
)
def test_change_is_refused_by_the_one_value_that_is_wrong(changed, refused) -> None:
    assert status(replace(CHANGE, **changed), WITH_TOKEN) == refused


def test_reading_needs_the_token_too_but_for_pages_without_data() -> None:
    assert status(LOOK, WITH_TOKEN) == 401
    assert status(replace(LOOK, path="/"), WITH_TOKEN) == 200
    assert status(replace(LOOK, path="/static/app.js"), WITH_TOKEN) == 200
    assert admit(replace(LOOK, path="/"), WITH_TOKEN, NOW) == Visitor("", "127.0.0.1")
    assert status(replace(LOOK, path="/staticx"), WITH_TOKEN) == 401


def test_without_token_and_proxy_everybody_here_looks_and_nobody_changes() -> None:
    assert admit(LOOK, LOOKING, NOW) == Visitor("", "127.0.0.1")
    assert status(CHANGE, LOOKING) == 403
    assert status(replace(LOOK, hosts=["evil.example"]), LOOKING) == 421, "nor through a name made to mean this machine"
    assert status(CHANGE, replace(WITH_TOKEN, looks_only=True)) == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "[::1]:8765", "10.0.0.7", "127.0.0.1."])
def test_addresses_and_localhost_are_hosts(host) -> None:
    assert status(replace(LOOK, hosts=[host]), LOOKING) == 200


@pytest.mark.parametrize("host", ["", ":", "[::1", "a b", "flock.example", "localhost.evil.example", "\x00"])
def test_other_names_are_no_hosts(host) -> None:
    assert status(replace(LOOK, hosts=[host]), LOOKING) == 421


def test_proxy_says_who_asks_and_nobody_else_can() -> None:
    asked = replace(CHANGE, hosts=["flock.example"], origin="https://flock.example", authorization=None, user="ada")
    assert admit(asked, BEHIND_PROXY, NOW) == Visitor("ada", "127.0.0.1", may_change=True)
    assert status(replace(asked, peer="10.0.0.7"), BEHIND_PROXY) == 403
    assert status(replace(asked, user=None), BEHIND_PROXY) == 401
    assert status(replace(asked, user="  "), BEHIND_PROXY) == 401
    both = replace(BEHIND_PROXY, token=TOKEN)
    assert status(asked, both) == 401, "with a token the header alone is not enough"
    assert admit(replace(asked, authorization=f"bearer {TOKEN}"), both, NOW).name == "ada"


def test_name_that_a_proxy_gives_is_one_short_line() -> None:
    asked = replace(CHANGE, authorization=None, user="ada\nlevel=ERROR" + "x" * 500)
    found = admit(asked, BEHIND_PROXY, NOW)
    assert isinstance(found, Visitor)
    assert found.name.startswith("ada?level=ERROR")
    assert len(found.name) == 100


@given(st.text(), st.floats(0, 1e12))
def test_no_other_text_is_a_session(value, now) -> None:
    assert not is_session(value, TOKEN, now)
    assert not is_token(value, TOKEN)


def test_session_counts_until_it_ends_and_no_longer_one_can_be_made() -> None:
    session = new_session(TOKEN, NOW)
    assert is_session(session, TOKEN, NOW)
    assert is_session(session, TOKEN, NOW + SESSION_SECONDS - 1)
    assert not is_session(session, TOKEN, NOW + SESSION_SECONDS)
    later = f"{int(NOW) + 10 * SESSION_SECONDS}.{session.partition('.')[2]}"
    assert not is_session(later, TOKEN, NOW)


def test_session_that_logged_out_counts_no_longer_and_others_do() -> None:
    one, other = new_session(TOKEN, NOW), new_session(TOKEN, NOW, bytes(7) + b"1")
    ended = EndedSessions()
    ended.add(one, NOW)
    asked = [replace(LOOK, cookies=cookie(each)) for each in (one, other)]
    assert [isinstance(admit(each, WITH_TOKEN, NOW, ended), Visitor) for each in asked] == [False, True]


def test_sessions_that_have_ended_by_themselves_are_not_remembered() -> None:
    ended = EndedSessions()
    ended.add(first := new_session(TOKEN, NOW), NOW)
    ended.add(later := new_session(TOKEN, NOW + SESSION_SECONDS), NOW + SESSION_SECONDS)
    assert (first in ended, later in ended) == (False, True)
