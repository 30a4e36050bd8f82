"""The listener: who may ask what, where it may listen, and that slow clients are nobody's business but its own."""

import json
import socket
import threading
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager

import pytest

from actors import needs
from actors.errors import SettingsError
from actors.service import BatchService
from actors.settings import Settings
from actors.settings.groups import read_listen
from actors.web import bodies, health
from actors.web import listener as module
from actors.web.listener import Listener
from tests.integration.support import until

OPEN = ["/livez", "/metrics"]


@pytest.fixture
def service(tmp_path):
    folder = {"database_url": f"sqlite:///{tmp_path}/batches.db", "video_dir": str(tmp_path / "videos")}
    with BatchService(Settings(_env_file=None, **folder), simulate=True) as service:
        yield service


@contextmanager
def listening(service, token=None, listen="127.0.0.1:0"):
    listener = Listener(service, listen, token)
    try:
        yield listener
    finally:
        listener.close()


def ask(listener, path, method="GET", **headers):
    given = {name.replace("_", "-"): text for name, text in headers.items()}
    request = urllib.request.Request(f"http://127.0.0.1:{listener.port}{path}", headers=given, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def problem(answer):
    status, headers, body = answer
    document = json.loads(body)
    assert headers["Content-Type"].startswith("application/problem+json")
    assert document["status"] == status
    assert document["type"] == f"urn:sora-batch:error:{document['code']}"
    return status, document["code"]


@pytest.mark.parametrize("path", OPEN)
@pytest.mark.parametrize("token", [None, "secret"])
def test_health_and_metrics_are_open_to_any_host(service, path, token):
    with listening(service, token) as listener:
        assert ask(listener, path, Host="anything.example")[0] == 200
        assert ask(listener, path, method="HEAD", Host="anything.example")[0] == 200


def test_everything_else_needs_the_token(service):
    with listening(service, "secret") as listener:
        status, headers, body = ask(listener, "/api/v1/batches", Host="anything.example")
        assert problem((status, headers, body)) == (401, "authentication")
        assert headers["WWW-Authenticate"].startswith("Bearer")
        assert b"secret" not in body
        for wrong in ("Bearer wrong", "Basic secret", "Bearer", "secret", "Bearer sécret"):
            assert problem(ask(listener, "/x", Authorization=wrong)) == (401, "authentication")
        right = {"Host": "anything.example", "Authorization": "Bearer secret"}
        assert problem(ask(listener, "/x", **right)) == (404, "not_found")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example", "", "10.0.0.1"])
def test_without_a_token_a_foreign_host_is_refused(service, host):
    with listening(service) as listener:
        assert problem(ask(listener, "/x", Host=host)) == (403, "permission")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1:80", "[::1]:80"])
def test_without_a_token_this_machines_names_are_taken(service, host):
    with listening(service) as listener:
        assert problem(ask(listener, "/x", Host=host)) == (404, "not_found")


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1", "http://[", "garbage"])
def test_a_write_from_a_foreign_origin_is_refused_even_with_the_token(service, origin):
    with listening(service, "secret") as listener:
        answer = ask(listener, "/x", method="POST", Origin=origin, Authorization="Bearer secret")
        assert problem(answer) == (403, "permission")
        assert problem(ask(listener, "/x", Origin=origin, Authorization="Bearer secret")) == (404, "not_found")


def test_a_write_from_the_own_origin_is_taken(service):
    with listening(service) as listener:
        own = f"http://127.0.0.1:{listener.port}"
        assert problem(ask(listener, "/x", method="POST", Origin=own)) == (404, "not_found")


def test_a_wrong_method_is_named_with_the_right_ones(service):
    with listening(service) as listener:
        status, headers, body = ask(listener, "/metrics", method="POST")
        assert problem((status, headers, body)) == (405, "invalid_request")
        assert "GET" in headers["Allow"]


def test_an_expectation_that_cannot_be_met_is_a_problem_and_the_usual_one_is_met(service):
    with listening(service) as listener:
        status, headers, body = ask(listener, "/livez", Expect="200-ok")
        assert (status, headers["Content-Type"]) == (417, "application/problem+json")
        assert "200-ok" in json.loads(body)["detail"]
        with socket.create_connection(("127.0.0.1", listener.port), timeout=10) as connection:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 100"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/api/v1/batches", "application/json"), ("/new", "multipart/form-data; boundary=b"),
        ("/batches/b/edit", "application/x-www-form-urlencoded"), ("/login", "application/x-www-form-urlencoded"),
    ],
)  # fmt: skip
def test_a_body_that_does_not_arrive_is_not_waited_for(service, path, kind, monkeypatch):
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.1)
    with (
        listening(service) as listener,
        socket.create_connection(("127.0.0.1", listener.port), timeout=10) as connection,
    ):
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n".encode())
        connection.sendall(b"Content-Length: 100\r\n\r\n--b")
        assert connection.recv(12) == b"HTTP/1.1 408"


def test_a_connection_that_is_idle_after_an_answer_is_closed(service, monkeypatch):
    monkeypatch.setattr(module, "_IDLE_SECONDS", 0.1)
    with (
        listening(service) as listener,
        socket.create_connection(("127.0.0.1", listener.port), timeout=10) as connection,
    ):
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"".join(iter(lambda: connection.recv(4096), b"")).startswith(b"HTTP/1.1 200")


def test_nothing_may_be_loaded_from_anywhere_and_the_request_id_comes_back(service):
    with listening(service) as listener:
        _, headers, _ = ask(listener, "/livez", X_Request_Id="abc-1")
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert headers["X-Request-Id"] == "abc-1"


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "example.com:80"])
def test_where_others_reach_it_it_needs_a_token(service, listen):
    with pytest.raises(SettingsError, match="set WEB_TOKEN") as error:
        Listener(service, listen, None)
    assert listen in str(error.value)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("8080", ("127.0.0.1", 8080)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("[::1]:80", ("::1", 80)),
        ("[::]:80", ("::", 80)),
        ("localhost:0", ("localhost", 0)),
    ],
)
def test_where_to_listen_is_read(text, place):
    assert read_listen(text) == place


def test_a_process_whose_loop_hangs_is_not_live(service, monkeypatch):
    monkeypatch.setattr(health, "_BEAT_SECONDS", 0.2)
    with listening(service) as listener:
        service.serve()
        assert ask(listener, "/livez")[0] == 200
        stuck = threading.Event()
        service._runtime.io.call(stuck.wait)
        assert problem(ask(listener, "/livez")) == (503, "unavailable")
        stuck.set()
        assert ask(listener, "/livez")[0] == 200


def test_a_folder_that_hangs_is_told_within_the_bound_and_looked_at_by_one_thread(service, monkeypatch):
    looks, stuck = [], threading.Event()

    def hang(folder):
        looks.append(folder)
        stuck.wait()
        return True, ""

    with listening(service) as listener:
        service.serve()
        until(lambda: ask(listener, "/readyz")[0] == 200)
        monkeypatch.setattr(health, "LONGEST", 0.2)
        monkeypatch.setattr(needs, "writable", hang)
        for _ in range(3):
            body = ask(listener, "/readyz")[2]
            assert "store" in [error["field"] for error in json.loads(body)["errors"]]
        assert len(looks) == 1
        stuck.set()


def test_with_a_token_it_listens_for_everybody(service):
    with listening(service, "secret", "0.0.0.0:0") as listener:
        assert ask(listener, "/livez")[0] == 200


def test_a_port_in_use_is_named_with_a_way_out(service):
    with listening(service) as listener:
        with pytest.raises(SettingsError, match="is in use: end the program") as error:
            Listener(service, str(listener.port), None)
        assert f"port {listener.port} of 127.0.0.1" in str(error.value)


def test_a_service_that_serves_nothing_yet_is_live_and_not_ready(service):
    with listening(service) as listener:
        assert ask(listener, "/livez")[0] == 200
        status, headers, body = ask(listener, "/readyz", Host="anything.example")
        assert problem((status, headers, body)) == (503, "unavailable")
        assert [error["field"] for error in json.loads(body)["errors"]] == ["lease", "store"]
        assert headers["Retry-After"]


def test_a_service_that_makes_what_a_page_asks_for_needs_no_lease_while_it_has_nothing_to_make(service, tmp_path):
    service.adopts = True
    with listening(service) as listener:
        (tmp_path / "videos").mkdir(exist_ok=True)
        assert ask(listener, "/readyz")[0] == 200
        service._waiting.add(["b"])
        assert [error["field"] for error in json.loads(ask(listener, "/readyz")[2])["errors"]] == ["lease"]


def test_a_thousand_silent_connections_keep_nobody_from_asking(service, monkeypatch):
    monkeypatch.setattr(module, "most_connections", lambda: 1500)
    with listening(service) as listener:
        silent = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(1000)]
        try:
            for each in silent[:500]:
                each.sendall(b"GET /metrics HTTP/1.1\r\nHost: ")
            assert ask(listener, "/readyz")[0] == 503
            assert ask(listener, "/metrics")[0] == 200
        finally:
            for each in silent:
                each.close()


def test_a_connection_too_many_is_closed_at_once(service, monkeypatch):
    monkeypatch.setattr(module, "most_connections", lambda: 2)
    with listening(service) as listener, ExitStack() as open_ones:
        for _ in range(2):
            kept = open_ones.enter_context(socket.create_connection(("127.0.0.1", listener.port), timeout=10))
            kept.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert kept.recv(1)
        surplus = open_ones.enter_context(socket.create_connection(("127.0.0.1", listener.port), timeout=10))
        assert surplus.recv(1) == b""


def test_a_connection_that_sends_no_request_is_closed(service, monkeypatch):
    monkeypatch.setattr(module, "_REQUEST_SECONDS", 0.2)
    with listening(service) as listener, socket.create_connection(("127.0.0.1", listener.port), timeout=10) as silent:
        silent.sendall(b"GET /livez HTTP/1.1\r\n")
        assert silent.recv(1) == b""


@pytest.mark.parametrize(
    "sent",
    [b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nno header\r\n\r\n", b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n",
     b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 9000 + b"\r\n\r\n", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
     b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: a\x00b\r\n\r\n"],
)  # fmt: skip
def test_what_is_no_http_gets_a_problem_and_leaves_no_traceback(service, sent, caplog):
    with listening(service) as listener, socket.create_connection(("127.0.0.1", listener.port), timeout=10) as client:
        client.sendall(sent)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.")
    assert b"application/problem+json" in head
    assert json.loads(body)["code"] == "invalid_request"
    assert [each for each in caplog.records if each.exc_info] == []


@pytest.mark.parametrize("token", [None, "secret"])
def test_the_used_part_of_the_budgets_is_for_who_has_the_token(service, token):
    service._write(lambda: service._storage.ledger.set_ceilings({("day", "USD"): 1_000_000}, "us"))
    with listening(service, token) as listener:
        assert (b"sora_batch_budget_used_ratio" in ask(listener, "/metrics")[2]) is (token is None)
        assert b'ratio{scope="day"} 0.0' in ask(listener, "/metrics", Authorization=f"Bearer {token}")[2]
