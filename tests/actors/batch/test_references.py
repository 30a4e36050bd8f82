"""Input references: what may be read, from where, and what is kept of it."""

import base64
import hashlib
import http.client
import os
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from actors.batch import references
from actors.batch.fields import FileId
from actors.batch.references import load_reference
from actors.errors import InvalidRequest
from actors.settings import Settings

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 16
JPEG = b"\xff\xd8\xff\xe0" + b"\0" * 16
WEBP = b"RIFF\x10\0\0\0WEBPVP8 "


def settings(**changes):
    return Settings(_env_file=None, **changes)


def load(reference, *, paths=True, **changes):
    return load_reference(reference, settings(**changes), ("videos", "0", "input_reference"), paths=paths)


def refused(reference, *, paths=True, **changes):
    with pytest.raises(InvalidRequest) as caught:
        load(reference, paths=paths, **changes)
    (error,) = caught.value.errors
    assert (error.field, error.code) == ("/videos/0/input_reference", "input_reference")
    assert str(caught.value).startswith("videos[0].input_reference: the input reference ")
    return str(caught.value)


def data_url(content, kind="image/png"):
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@pytest.fixture
def picture(tmp_path):
    (tmp_path / "allowed").mkdir()
    path = tmp_path / "allowed" / "lake.png"
    path.write_bytes(PNG)
    return path


def test_a_file_is_kept_with_its_name_its_kind_and_its_sum(picture):
    kept, record = load(str(picture))
    assert kept == {"digest": hashlib.sha256(PNG).hexdigest()}
    assert (record.digest, record.name, record.content_type, record.data) == (
        kept["digest"], "lake.png", "image/png", PNG,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("content", "kind"), [(PNG, "image/png"), (JPEG, "image/jpeg"), (WEBP, "image/webp"), (b"fLaC", "audio/flac")]
)
def test_a_file_is_what_its_first_bytes_say_and_not_its_name(tmp_path, content, kind):
    (tmp_path / "x.gif").write_bytes(content)
    assert load(str(tmp_path / "x.gif"))[1].content_type == kind


def test_what_is_no_image_video_or_audio_is_refused_and_not_shown(tmp_path):
    (tmp_path / "x.png").write_bytes(b"root:secret")
    text = refused(str(tmp_path / "x.png"), paths=False, sora_reference_dirs=(str(tmp_path),))
    assert "not an image, video or audio file, by its first bytes: use PNG, JPEG, " in text
    assert "secret" not in text
    assert "not an image, video or audio file" in refused(data_url(b"%PDF-1.7"))


def test_a_file_without_an_extension_gets_that_of_its_kind(tmp_path):
    (tmp_path / "thing").write_bytes(JPEG)
    assert load(str(tmp_path / "thing"))[1].name == "thing.jpg"


def test_a_data_url_is_read():
    kept, record = load(data_url(PNG), paths=False)
    assert (record.data, record.name, record.content_type) == (PNG, "reference.png", "image/png")
    assert kept["digest"] == record.digest


def test_a_data_url_is_what_it_holds_and_not_what_it_says():
    assert load(data_url(JPEG, "text/html"))[1].content_type == "image/jpeg"


def test_a_file_id_is_kept_as_it_is():
    assert load(FileId(file_id="file-1"), paths=False) == ({"file_id": "file-1"}, None)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("data:image/png,plain", "must be data:<type>;base64,<data>"),
        ("data:image/png;base64", "must be data:<type>;base64,<data>"),
        ("data:image/png;base64,?!", "invalid base64"),
        ("data:image/png;base64,", "the content is empty"),
        ("/does/not/exist.png", "No such file"),
        ("/", "not a regular file"),
        ("http://images.example/a.png", "only https URLs are allowed"),
        ("https://images.example/a.png", "the host 'images.example' is not in SORA_REFERENCE_HOSTS"),
        ("https://allowed.example@evil.example/a.png", "the host 'evil.example' is not in"),
        ("https://allowed.example.evil.example/", "is not in"),
        ("https:///a.png", "the host '' is not in"),
        ("https://allowed.example:8443/a.png", "the host 'allowed.example:8443' is not in"),
        ("/dev/zero", "not a regular file"),
        ("file:///etc/passwd", "No such file"),
    ],
)
def test_what_can_not_be_had_is_refused_with_the_reason(reference, words):
    text = refused(reference, sora_reference_hosts=("allowed.example",))
    assert words in text
    assert repr(reference) in text


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "empty.png").touch()
    assert "the content is empty" in refused(str(tmp_path / "empty.png"))


def test_of_what_is_too_large_no_more_is_read_than_shows_it(tmp_path, monkeypatch):
    monkeypatch.setattr(references, "MAX_BYTES", 100)
    (tmp_path / "large.png").write_bytes(b"x" * 101)
    assert "the content exceeds the limit of 100 bytes" in refused(str(tmp_path / "large.png"))
    assert "the content exceeds the limit of 100 bytes" in refused(data_url(b"x" * 101))


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="Linux has files that tell no size")
def test_a_file_that_tells_no_size_is_read_no_further_than_the_limit(monkeypatch):
    monkeypatch.setattr(references, "MAX_BYTES", 100)
    assert Path("/proc/self/maps").stat().st_size == 0
    assert "the content exceeds the limit of 100 bytes" in refused("/proc/self/maps")


def test_a_long_reference_is_shown_shortened():
    assert len(refused("data:" + "x" * 100_000)) < 300


# --- from a command: no file that the operator did not allow


def test_a_file_of_an_allowed_folder_is_read(picture):
    _, record = load(str(picture), paths=False, sora_reference_dirs=(str(picture.parent),))
    assert record.data == PNG


def test_without_allowed_folders_no_file_is_read(picture):
    assert "outside SORA_REFERENCE_DIRS" in refused(str(picture), paths=False)


@pytest.mark.parametrize(
    "escape",
    [
        lambda allowed, secret: allowed / ".." / secret.name,
        lambda allowed, secret: secret,
        lambda allowed, secret: _link(allowed / "link.png", secret),
        lambda allowed, secret: _link(allowed / "folder", secret.parent) / secret.name,
    ],
    ids=["dots", "outside", "link to a file", "link to a folder"],
)
def test_nothing_leads_out_of_an_allowed_folder(picture, tmp_path, escape):
    secret = tmp_path / "secret.png"
    secret.write_bytes(PNG)
    path = escape(picture.parent, secret)
    assert "the path is outside" in refused(str(path), paths=False, sora_reference_dirs=(str(picture.parent),))


@pytest.mark.parametrize("swapped", ["the file", "its folder"])
def test_a_link_that_is_put_there_after_the_look_is_not_followed(picture, tmp_path, mocker, swapped):
    inside, outside = picture.parent / "inner", tmp_path / "outside"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "x.png").write_bytes(PNG)
    look = Path.resolve

    def look_and_swap(path, **how):
        found = look(path, **how)
        if path.name == "x.png" and not inside.is_symlink() and not (inside / "x.png").is_symlink():
            place = inside / "x.png" if swapped == "the file" else inside
            place.rename(tmp_path / "gone")
            place.symlink_to(outside / "x.png" if swapped == "the file" else outside)
        return found

    mocker.patch.object(Path, "resolve", look_and_swap)
    assert "the path is outside" in refused(
        str(inside / "x.png"), paths=False, sora_reference_dirs=(str(picture.parent),)
    )


def test_an_allowed_folder_itself_is_no_file(picture):
    assert "the path is outside" in refused(
        str(picture.parent), paths=False, sora_reference_dirs=(str(picture.parent),)
    )


def test_a_pipe_in_an_allowed_folder_is_not_waited_for(picture):
    os.mkfifo(picture.parent / "pipe.png")
    text = refused(str(picture.parent / "pipe.png"), paths=False, sora_reference_dirs=(str(picture.parent),))
    assert "not a regular file" in text


def test_a_folder_whose_name_only_begins_like_an_allowed_one_is_not_allowed(picture, tmp_path):
    (tmp_path / "allowed-not").mkdir()
    (tmp_path / "allowed-not" / "x.png").write_bytes(PNG)
    text = refused(str(tmp_path / "allowed-not" / "x.png"), paths=False, sora_reference_dirs=(str(picture.parent),))
    assert "the path is outside" in text


def test_an_allowed_folder_may_be_a_link_itself(picture, tmp_path):
    link = _link(tmp_path / "link", picture.parent)
    assert load(str(link / "lake.png"), paths=False, sora_reference_dirs=(str(link),))[1].data == PNG


def _link(path, target):
    path.symlink_to(target)
    return path


# --- fetching


class Answer:
    headers = type("Headers", (), {"get_content_type": staticmethod(lambda: "image/png")})

    def __init__(self, content):
        self._rest, self.length = content, len(content)

    def read1(self, limit):
        piece, self._rest = self._rest[:limit], self._rest[limit:]
        return piece

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def web(mocker):
    return mocker.patch.object(urllib.request.OpenerDirector, "open", return_value=Answer(PNG))


def test_an_allowed_host_is_asked(web):
    _, record = load("https://images.example/a/lake.png?x=1", paths=False, sora_reference_hosts=("images.example",))
    assert (record.name, record.data) == ("lake.png", PNG)
    assert web.call_count == 1


@pytest.mark.parametrize("url", ["https://IMAGES.example/a.png", "https://images.example:443/a.png"])
def test_a_host_is_the_same_in_every_spelling(web, url):
    assert load(url, paths=False, sora_reference_hosts=("Images.Example",))[1].data == PNG


def test_a_port_may_be_allowed(web):
    load("https://images.example:8443/a.png", paths=False, sora_reference_hosts=("images.example:8443",))
    refused("https://images.example/a.png", sora_reference_hosts=("images.example:8443",))
    assert web.call_count == 1


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert "not a regular file" in refused(str(tmp_path / "pipe.png"))


def test_another_host_is_not_even_asked(web):
    refused("https://other.example/a.png", sora_reference_hosts=("images.example",))
    refused("http://images.example/a.png", sora_reference_hosts=("images.example",))
    assert web.call_count == 0


def test_a_redirect_is_not_followed():
    redirect = references._NoRedirect().redirect_request(None, None, 302, "Found", {}, "https://evil.example")
    assert redirect is None


def test_an_address_that_can_not_be_sent_is_refused():
    assert "can't contain control characters" in refused(
        "https://images.example/a b.png", sora_reference_hosts=("images.example",)
    )


def test_an_answer_that_breaks_off_is_refused(web):
    web.side_effect = http.client.IncompleteRead(b"x", 9)
    assert "IncompleteRead" in refused("https://images.example/a.png", sora_reference_hosts=("images.example",))


def test_an_answer_that_is_shorter_than_it_said_is_refused(web):
    web.return_value.length = len(PNG) + 1
    assert "IncompleteRead" in refused("https://images.example/a.png", sora_reference_hosts=("images.example",))


def test_an_answer_that_drips_is_not_waited_for(web, monkeypatch):
    monkeypatch.setattr(references, "_FETCH_SECONDS", 0)
    assert "the download took longer than" in refused(
        "https://images.example/a.png", sora_reference_hosts=("images.example",)
    )


def test_a_name_that_leads_to_another_host_is_not_asked_for_anything(monkeypatch):
    """A name that was allowed leads to an address inside: whoever listens there has no certificate for it."""
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as inside:
        at = inside.getsockname()[1]

        def listen():
            connection, _ = inside.accept()
            with connection:
                connection.settimeout(5)
                heard.append(connection.recv(65_536))
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret")

        listener = threading.Thread(target=listen)
        listener.start()
        original = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", lambda _host, port, *more: original("127.0.0.1", port, *more))
        monkeypatch.setenv("no_proxy", "*")
        host = f"images.example:{at}"
        text = refused(f"https://{host}/a.png", paths=False, sora_reference_hosts=(host,))
        listener.join()
    assert "SSL" in text
    assert b"GET" not in heard[0]
    assert "secret" not in text


def test_a_host_that_does_not_answer_is_named(web):
    web.side_effect = urllib.error.URLError("timed out")
    assert "timed out" in refused("https://images.example/a.png", sora_reference_hosts=("images.example",))
