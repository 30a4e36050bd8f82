"""Proxies and certificates: that they are used, and that what is known of the first byte holds behind them all the same."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from actors.batch.references import load_reference
from actors.errors import SettingsError, SoraError
from actors.settings import Settings
from actors.sora import upload
from actors.sora.client import Accepted, NoAnswer, Refused, SoraClient
from actors.sora.rate_limiter import RateLimiter
from actors.sora.requests import VideoSpec
from actors.sora.upload import SendForbidden
from storage.records import ReferenceRecord
from tests.servers.http_proxy import Death, Proxy, proxying
from tests.servers.http_recorder import Recorder, answer, certificate, listening, serving_with
from tests.servers.port import Port

SMALL = VideoSpec("a lake", None, None, None)
LARGE = VideoSpec("a lake", None, None, None, ReferenceRecord("d", "a.png", "image/png", bytes(4 << 20)))
SPECS = pytest.mark.parametrize("spec", [SMALL, LARGE], ids=["small", "large"])
SCHEMES = pytest.mark.parametrize("scheme", ["http", "https"])


@pytest.fixture(scope="module")
def cert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("tls"))


@asynccontextmanager
async def client_of(host: str, scheme: str = "http", **given: Any) -> AsyncIterator[SoraClient]:
    for name in ("http_proxy", "https_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir", "requests_ca_bundle"):
        given.setdefault(name, None)  # whatever the environment says
    settings = Settings(_env_file=None, openai_base_url=f"{scheme}://{host}/v1", openai_api_key="the-key", **given)  # type: ignore[call-arg]
    async with SoraClient(settings, str(settings.openai_base_url), RateLimiter()) as client:
        yield client


def through(
    proxy: Proxy,
    server: Recorder,
    use: Callable[[SoraClient], Awaitable[Any]],
    scheme: str = "http",
    cert: Path | None = None,
    user: str = "",
    **given: Any,
) -> Any:
    """Use a client of a server behind a proxy."""

    async def run() -> Any:
        tls = serving_with(cert) if cert and scheme == "https" else None
        async with listening(server, tls) as host, proxying(proxy) as between:
            ways = {"http_proxy": f"http://{user}{between}", "https_proxy": f"{user}{between}"}
            trusted = {"ssl_cert_file": str(cert)} if cert else {}
            async with client_of(host, scheme, **{**ways, **trusted, **given}) as client:
                return await use(client)

    return asyncio.run(run())


class Sending:
    """A create, and whether its guard was asked."""

    def __init__(self, spec: VideoSpec = SMALL) -> None:
        self.spec, self.asked = spec, 0

    def guard(self) -> None:
        self.asked += 1

    async def __call__(self, client: SoraClient) -> Any:
        return await client.create(self.spec, "intent", self.guard)


@SPECS
@SCHEMES
def test_a_create_goes_through_the_proxy(scheme: str, spec: VideoSpec, cert: Path) -> None:
    proxy, server, sending = Proxy(), Recorder(), Sending(spec)
    assert isinstance(through(proxy, server, sending, scheme, cert, user="me:p%40ss@"), Accepted)
    assert sending.asked == 1
    (line,) = proxy.lines
    assert line.startswith("CONNECT 127.0.0.1:" if scheme == "https" else "POST http://127.0.0.1:")
    assert "Proxy-Authorization: Basic bWU6cEBzcw==" in proxy.heads[0]
    assert ("the-key" in proxy.heads[0]) is (scheme == "http")
    assert server.values("Proxy-Authorization") == [None]
    assert server.values("Authorization") == ["Bearer the-key"]
    assert len(server.bodies[0]) > (len(LARGE.reference.data) if spec is LARGE and LARGE.reference else 0)


@SCHEMES
def test_everything_else_goes_through_it_too(scheme: str, cert: Path) -> None:
    async def use(client: SoraClient) -> None:
        await client.retrieve("v1")
        await client.delete("v1", lambda: None, 10)
        async with client.content("v1") as response:
            await response.read()

    proxy = Proxy()
    through(proxy, Recorder([("content", answer(b"film"))]), use, scheme, cert)
    assert len(proxy.heads) == 3


@pytest.mark.parametrize(
    "names", ["127.0.0.1", "*", "example.com, 127.0.0.1:{port}", "127.0.0.0/8", "[::1],127.0.0.1/32"]
)
def test_a_host_that_needs_no_proxy_is_reached_without_it(names: str) -> None:
    async def run() -> None:
        async with listening(Recorder()) as host:
            no_proxy = names.format(port=host.partition(":")[2])
            async with client_of(host, http_proxy="http://127.0.0.1:1", no_proxy=no_proxy) as client:
                assert isinstance(await Sending()(client), Accepted)

    asyncio.run(run())


@SPECS
@pytest.mark.parametrize(
    ("proxy", "passes", "words"),
    [
        (Proxy(answer(b"", "407 Proxy Authentication Required")), False, "requires a user and a password (HTTP 407): set HTTPS_PROXY=http://USER"),
        (
            Proxy(answer(b"", "401 Unauthorized")),
            False,
            "requires a user and a password (HTTP 401): set HTTPS_PROXY=http://USER",
        ),
        (Proxy(answer(b"", "403 Filtered")), False, "(HTTPS_PROXY) refused a connection to it (HTTP 403 Filtered)"),
        (Proxy(answer(b"", "502 Bad Gateway")), True, "refused a connection to it (HTTP 502 Bad Gateway)"),
        (Proxy(answer(b"", "504 Gateway Timeout")), True, "HTTP 504"),
        (Proxy(dies="at once"), True, "can't be reached"),
    ],
    ids=["407", "401", "403", "502", "504", "dies"],
)  # fmt: skip
def test_a_tunnel_that_does_not_come_about_has_sent_nothing(
    proxy: Proxy, passes: bool, words: str, spec: VideoSpec, cert: Path
) -> None:
    server, sending = Recorder(), Sending(spec)
    result = through(proxy, server, sending, "https", cert, user="me:Kestrel5@")
    assert isinstance(result, Refused)
    assert (result.sent, result.passes, sending.asked, server.heads) == (False, passes, 0, [])
    assert words in result.failure.message
    assert "Kestrel5" not in str(result)
    assert "the-key" not in "".join(proxy.heads)


@SCHEMES
def test_a_proxy_that_is_not_there_has_sent_nothing(scheme: str) -> None:
    async def run() -> Any:
        port, sending = Port(), Sending()
        ways = {"http_proxy": f"127.0.0.1:{port.number}", "https_proxy": f"127.0.0.1:{port.number}"}
        async with client_of("videos.example", scheme, **ways) as client:
            result = await sending(client)
        port.release()
        return result, sending.asked, port.number

    result, asked, port = asyncio.run(run())
    assert isinstance(result, Refused)
    assert (result.sent, result.passes, asked) == (False, True, 0)
    assert f"no connection to the proxy 127.0.0.1:{port}" in result.failure.message


@SPECS
@pytest.mark.parametrize("death", ["at once", "before the body", "after the body"])
def test_a_proxy_that_dies_with_a_create_leaves_its_outcome_unknown(death: Death, spec: VideoSpec) -> None:
    server, sending = Recorder(), Sending(spec)
    result = through(Proxy(dies=death), server, sending)
    assert isinstance(result, NoAnswer)
    assert sending.asked == 1
    assert len(server.bodies) == (death == "after the body")


@pytest.mark.parametrize(
    "status", ["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout", "407 Proxy Authentication Required"]
)
def test_what_a_proxy_answers_in_the_server_s_place_proves_nothing(status: str) -> None:
    result = through(Proxy(answer(b"", status)), Recorder(), Sending())
    assert isinstance(result, NoAnswer)
    assert f"HTTP {status[:3]}" in result.failure.message
    wants = "the proxy requires a user and a password: set HTTP_PROXY=http://USER:PASSWORD@HOST:PORT"
    assert (wants in result.failure.message) is status.startswith("407")


@pytest.mark.parametrize("status", ["403 Filtered", "429 Too Many Requests"])
def test_a_definite_refusal_is_one_whoever_says_it(status: str) -> None:
    result = through(Proxy(answer(b"", status)), Recorder(), Sending())
    assert isinstance(result, Refused)
    assert result.sent


def test_a_401_may_be_the_proxy_s() -> None:
    wants = "; if the proxy sent this answer: the proxy requires a user and a password: set HTTP_PROXY="
    refusing = answer(b"", "401 Unauthorized")
    assert wants in through(Proxy(refusing), Recorder(), Sending()).failure.message
    direct = through(Proxy(), Recorder([("POST", refusing)]), Sending(), no_proxy="*")
    assert (direct.failure.code, wants in direct.failure.message) == ("authentication", False)


def test_nothing_leaves_through_a_tunnel_that_the_guard_stops(cert: Path) -> None:
    async def use(client: SoraClient) -> Any:
        def guard() -> None:
            raise SendForbidden("it is too late")

        return await client.create(LARGE, "intent", guard)

    proxy, server = Proxy(), Recorder()
    result = through(proxy, server, use, "https", cert)
    assert isinstance(result, Refused)
    assert (result.sent, server.heads, len(proxy.heads)) == (False, [], 1)


@SCHEMES
def test_an_upload_whose_time_is_up_ends_behind_a_proxy_too(
    scheme: str, cert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process was suspended after the first block: nothing of the rest leaves, whatever lies between."""
    server, now = Recorder(), 1000.0
    monkeypatch.setattr(upload, "boottime", lambda: now)
    drain = upload.Upload._may_go_on

    async def suspended(self: upload.Upload, writer: Any, *, last: bool) -> None:
        nonlocal now
        now += 61.0
        await drain(self, writer, last=last)

    monkeypatch.setattr(upload.Upload, "_may_go_on", suspended)
    result = through(Proxy(), server, Sending(LARGE), scheme, cert)
    assert isinstance(result, NoAnswer)
    assert result.timed_out
    assert server.bodies == []


def test_a_delete_whose_tunnel_does_not_come_about_was_not_sent(cert: Path) -> None:
    asked: list[None] = []

    async def use(client: SoraClient) -> None:
        await client.delete("v1", lambda: asked.append(None), 10)

    with pytest.raises(SendForbidden, match="HTTP 502"):
        through(Proxy(answer(b"", "502 Bad Gateway")), Recorder(), use, "https", cert)
    assert asked == []
    with pytest.raises(SoraError, match="got no answer"):
        through(Proxy(dies="at once"), Recorder(), use)
    assert asked == [None]


# --- certificates


@pytest.mark.parametrize("between", [True, False], ids=["proxy", "direct"])
def test_a_certificate_that_can_not_be_verified_is_named_and_final(cert: Path, between: bool) -> None:
    async def run() -> Any:
        server, sending = Recorder(), Sending()
        async with (
            listening(server, serving_with(cert)) as host,
            proxying(Proxy()) as proxy,
            client_of(host, "https", https_proxy=proxy if between else None) as client,
        ):
            with pytest.raises(SoraError, match=r"has a certificate that can't be verified \(self") as caught:
                await client.retrieve("v1")
            return await sending(client), sending.asked, server.heads, str(caught.value)

    result, asked, heads, looked = asyncio.run(run())
    assert isinstance(result, Refused)
    assert (result.sent, result.passes, asked, heads) == (False, False, 0, [])
    for said in (result.failure.message, looked):
        assert said.endswith("set SSL_CERT_FILE to the file of its CA")


def test_a_certificate_for_another_host_is_not_to_be_mended_by_a_ca(cert: Path) -> None:
    async def run() -> Any:
        async with listening(Recorder(), serving_with(cert)) as host:
            port = host.partition(":")[2]
            async with client_of(f"localhost:{port}", "https", ssl_cert_file=str(cert)) as client:
                return await Sending()(client)

    result = asyncio.run(run())
    assert isinstance(result, Refused)
    assert "Hostname mismatch" in result.failure.message
    assert result.failure.message.endswith("set OPENAI_BASE_URL to the host that it was issued for")


def folder_of(cert: Path, folder: Path) -> Path:
    openssl = shutil.which("openssl")
    assert openssl is not None
    named = subprocess.run(
        [openssl, "x509", "-hash", "-noout", "-in", cert], check=True, capture_output=True, text=True
    )
    (folder / f"{named.stdout.strip()}.0").write_bytes(cert.read_bytes())
    return folder


@pytest.mark.parametrize("name", ["ssl_cert_file", "ssl_cert_dir", "requests_ca_bundle", "requests_ca_bundle/"])
def test_a_certificate_is_verified_with_what_the_variables_name(name: str, cert: Path, tmp_path: Path) -> None:
    path = folder_of(cert, tmp_path) if name.endswith(("dir", "/")) else cert
    server = Recorder([("content", answer(b"", "302 Found", Location="https://{host}/film"))])

    async def run() -> None:
        async with listening(server, serving_with(cert)) as host, listening(Recorder([("content", answer(
            b"", "302 Found", Location=f"https://{host}/film"))])) as plain:  # fmt: skip
            trusted = {name.rstrip("/"): str(path)}
            async with client_of(host, "https", **trusted) as client:
                assert isinstance(await Sending()(client), Accepted)
                assert (await client.retrieve("v1"))[0].id == "v1"
                await client.delete("v1", lambda: None, 10)
            server.answers[:] = [("film", answer(b"film"))]
            async with client_of(plain, **trusted) as client, client.content("v1") as response:
                assert await response.read() == b"film"

    asyncio.run(run())


@pytest.mark.parametrize("name", ["ssl_cert_file", "requests_ca_bundle"])
@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_a_file_without_certificates_is_named(name: str, content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)

    async def run() -> None:
        async with client_of("127.0.0.1:1", "https", **{name: str(path)}):
            pass

    with pytest.raises(SettingsError) as caught:
        asyncio.run(run())
    assert str(caught.value).startswith(f"{name.upper()}='{path}': can't read certificates from it: ")


def test_a_file_without_certificates_disturbs_nobody_without_tls(tmp_path: Path) -> None:
    async def run() -> None:
        async with listening(Recorder()) as host, client_of(host, ssl_cert_file=str(tmp_path / "none")) as client:
            assert isinstance(await Sending()(client), Accepted)
            with pytest.raises(SoraError, match="can't read certificates from it"):
                async with client.content_at("https://127.0.0.1:1/film"):
                    pass

    asyncio.run(run())


@pytest.mark.parametrize("url", ["socks5://h:1", "http://", "http://h:99999", "ftp://h"])
def test_a_proxy_that_can_not_be_used_is_named(url: str) -> None:
    async def run() -> None:
        async with client_of("127.0.0.1:1", "https", https_proxy=url):
            pass

    with pytest.raises(SettingsError, match=f"HTTPS_PROXY={url}: must be the URL of an HTTP proxy"):
        asyncio.run(run())


def test_no_netrc_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("default login me password Kestrel5\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    proxy, server = Proxy(), Recorder()
    assert isinstance(through(proxy, server, Sending(), sora_auth="none"), Accepted)
    assert server.values("Authorization") == [None]
    assert "Proxy-Authorization" not in proxy.heads[0]


def test_the_system_s_own_certificates_hold_where_nothing_is_said() -> None:
    settings = Settings(_env_file=None, ssl_cert_file=None, ssl_cert_dir=None, requests_ca_bundle=None)  # type: ignore[call-arg]
    assert settings.trust is None


def test_the_system_s_certificates_stay_trusted_beside_a_bundle(cert: Path) -> None:
    settings = Settings(_env_file=None, ssl_cert_file=None, ssl_cert_dir=None, requests_ca_bundle=str(cert))  # type: ignore[call-arg]
    assert settings.trust is not None
    assert settings.trust.verify_mode is ssl.CERT_REQUIRED
    assert settings.trust.check_hostname
    system = ssl.get_default_verify_paths().openssl_cafile
    if Path(system).exists():
        assert len(settings.trust.get_ca_certs()) > 1


def test_a_reference_is_fetched_through_the_proxy_and_verified(cert: Path) -> None:
    async def run() -> tuple[Any, Proxy]:
        proxy, picture = Proxy(), b"\x89PNG\r\n\x1a\n" + bytes(100)
        server = Recorder([("a.png", answer(picture, **{"Content-Type": "image/png"}))])
        async with listening(server, serving_with(cert)) as host, proxying(proxy) as between:
            given: dict[str, Any] = {"sora_reference_hosts": (host,), "no_proxy": None, "https_proxy": between}
            settings = Settings(_env_file=None, ssl_cert_file=str(cert), **given)  # type: ignore[call-arg]
            url = f"https://{host}/a.png"
            _, record = await asyncio.to_thread(load_reference, url, settings, ("input_reference",), paths=False)
            return record, proxy

    record, proxy = asyncio.run(run())
    assert record.content_type == "image/png"
    assert [line.partition(" ")[0] for line in proxy.lines] == ["CONNECT"]
