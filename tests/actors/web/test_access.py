"""Who may ask: sessions, read-only mode, and the id of each request."""

import http.client
import http.cookies
import logging
import time
from contextlib import closing

import pytest
from aiohttp.test_utils import make_mocked_request

from actors.service import BatchService
from actors.web import security
from actors.web.security import SESSION, Access

TOKEN = "a-long-secret"


def cookie_of(answer):
    cookie = http.cookies.SimpleCookie(answer.headers["Set-Cookie"])[SESSION]
    return cookie, f"{SESSION}={cookie.value}"


@pytest.fixture
def guarded(listen, service):
    return listen(service, TOKEN)


def test_a_login_gives_a_cookie_that_is_taken_in_the_tokens_place(guarded):
    answer = guarded.form("/login", token=f" {TOKEN} ", next="/batches/a?x=1")
    assert (answer.status, answer.headers["Location"]) == (303, "/batches/a?x=1")
    cookie, sent = cookie_of(answer)
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
    assert cookie["path"] == "/"
    assert TOKEN not in answer.headers["Set-Cookie"]
    guarded.token = None
    assert guarded("/api/v1/batches").problem == (401, "authentication")
    assert guarded("/api/v1/batches", Cookie=sent).status == 200
    ended = guarded("/logout", b"", "POST", Content_Type="application/x-www-form-urlencoded", Cookie=sent)
    assert ended.status == 303
    assert cookie_of(ended)[0].value == ""


def test_a_session_is_over_after_a_week_and_cannot_be_forged(guarded, monkeypatch):
    access = Access(TOKEN)
    guarded.token = None
    until, _, signature = access.session().partition(".")
    forged = [
        f"{int(until) + 1}.{signature}", f"{until}.{'0' * 64}", until, f"{until}.", ".", "", f"٣.{signature}",
        Access("another").session(), Access(None).session(),
    ]  # fmt: skip
    for value in forged:
        assert guarded("/api/v1/batches", Cookie=f"{SESSION}={value}".encode().decode("latin-1")).status == 401, value
    monkeypatch.setattr("actors.web.security.SESSION_SECONDS", -1)
    assert guarded("/api/v1/batches", Cookie=f"{SESSION}={access.session()}").status == 401


def test_a_wrong_token_beside_a_session_is_wrong(guarded):
    guarded.token = None
    sent = f"{SESSION}={Access(TOKEN).session()}"
    assert guarded("/api/v1/batches", Cookie=sent, Authorization="Bearer wrong").problem == (401, "authentication")


def test_a_login_leads_nowhere_else(guarded):
    for elsewhere in ("//evil.example", "/\\evil.example", "https://evil.example", "evil", "/a\r\nX: y", "/ä", ""):
        assert guarded.form("/login", token=TOKEN, next=elsewhere).headers["Location"] == "/"


def test_failed_logins_are_limited_also_for_the_right_token(guarded, monkeypatch):
    for _ in range(security.FAILURES):
        assert guarded.form("/login", token="wrong").problem == (401, "authentication")
    limited = guarded.form("/login", token=TOKEN)
    assert limited.problem == (429, "rate_limited")
    assert 0 < int(limited.headers["Retry-After"]) <= security.FAILURE_SECONDS
    assert guarded("/api/v1/batches").status == 200  # a program is not locked out by somebody else's guesses
    monkeypatch.setattr(security, "FAILURE_SECONDS", 0.0)
    assert guarded.form("/login", token=TOKEN).status == 303


def test_guesses_are_limited_wherever_a_token_is_looked_at_and_nobody_is_locked_out(guarded, monkeypatch):
    monkeypatch.setattr(security, "TURN_SECONDS", 0.2)
    for _ in range(3 * security.FAILURES):  # one and the same guess: a program that is set up wrong
        assert guarded("/api/v1/batches", Authorization="Bearer wrong").status == 401
    for number in range(security.FAILURES):
        path = ("/api/v1/batches", "/login", "/metrics", "/livez")[number % 4]
        guarded(path, Authorization=f"Bearer {number}")
    began = time.monotonic()
    assert [guarded("/api/v1/batches").status for _ in range(4)] == [200] * 4  # slower, but it gets in
    assert time.monotonic() - began > 0.5
    monkeypatch.setattr(security, "WAIT_SECONDS", -1.0)
    limited = guarded("/api/v1/batches")
    assert limited.problem == (429, "rate_limited")
    assert int(limited.headers["Retry-After"]) == 1
    session = {"Cookie": f"{SESSION}={Access(TOKEN).session()}"}
    for source, headers in (("127.0.0.1", session), ("127.0.0.2", {"Authorization": f"Bearer {TOKEN}"})):
        asking = http.client.HTTPConnection("127.0.0.1", guarded.listener.port, source_address=(source, 0))
        with closing(asking):
            asking.request("GET", "/api/v1/batches", headers=headers)
            assert asking.getresponse().status == 200, source


@pytest.mark.parametrize(
    ("remote", "forwarded", "behind_proxy", "peer"),
    [
        ("127.0.0.1", "10.0.0.1, 203.0.113.9", True, "203.0.113.9"),
        ("127.0.0.1", "10.0.0.1, 203.0.113.9", False, "127.0.0.1"),
        ("127.0.0.1", "nobody", True, "127.0.0.1"),
        ("127.0.0.1", None, True, "127.0.0.1"),
        ("198.51.100.7", "203.0.113.9", True, "198.51.100.7"),
        ("::ffff:198.51.100.7", None, False, "198.51.100.7"),
        ("2001:db8::7", None, False, "2001:db8::/64"),
        ("", None, True, ""),
    ],
)
def test_a_peer_is_who_a_proxy_of_this_machine_asks_for(remote, forwarded, behind_proxy, peer):
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    request = make_mocked_request("GET", "/", headers=headers).clone(remote=remote)
    assert security.peer_of(request, behind_proxy=behind_proxy) == peer


def test_who_has_a_whole_network_is_one_peer_and_peers_are_forgotten(monkeypatch):
    monkeypatch.setattr(security, "_PEERS", 3)
    failures = security.Failures()
    for number in range(10):
        for _ in range(security.FAILURES):
            failures.note(f"10.0.0.{number}")
    assert [failures.wait(f"10.0.0.{number}") > 0 for number in (0, 6, 7, 9)] == [False, False, True, True]


def test_a_form_is_a_form_and_small(guarded):
    assert guarded("/login", {"token": TOKEN}).problem == (415, "invalid_request")
    assert guarded.form("/login", token="x" * 20_000).problem == (413, "invalid_request")


def test_without_a_token_there_is_nothing_to_log_in_for(client):
    answer = client.form("/login", token="whatever", next="/x")
    assert (answer.status, answer.headers["Location"], answer.headers["Set-Cookie"]) == (303, "/x", None)


def test_read_only_refuses_writes_but_the_login(listen, settings):
    with BatchService(settings(web_read_only=True), simulate=True) as service:
        client = listen(service, TOKEN)
        assert client("/api/v1/batches", {}, "POST").problem == (403, "permission")
        assert client("/api/v1/batches").status == 200
        assert client.form("/login", token=TOKEN).status == 303


def test_a_proxy_may_change_the_host(listen, settings):
    with BatchService(settings(web_public_url="https://videos.example"), simulate=True) as service:
        client = listen(service)
        assert client("/api/v1/batches", {}, "POST", Origin="https://videos.example").status == 422
        assert client("/api/v1/batches", {}, "POST", Origin="https://evil.example").problem == (403, "permission")


def test_no_answer_tells_what_it_is_made_with(client):
    for answer in (client("/api/v1/batches"), client("/livez"), client("/none")):
        assert answer.headers["Server"] == "sora-batch"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_each_request_has_an_id_that_is_answered_and_logged(client, caplog):
    with caplog.at_level(logging.INFO, "actors.web.application"):
        assert client("/api/v1/batches", X_Request_Id="abc-1").headers["X-Request-Id"] == "abc-1"
        made = client("/api/v1/batches/none").headers["X-Request-Id"]
        for bad in ("x" * 129, "caf\xe9", "a\tb"):
            assert client("/livez", X_Request_Id=bad).headers["X-Request-Id"] != bad
    told = [(each.request_id, each.method, each.path, each.status) for each in caplog.records]
    assert told == [("abc-1", "GET", "/api/v1/batches", 200), (made, "GET", "/api/v1/batches/none", 404)]
    assert len(made) >= 16
