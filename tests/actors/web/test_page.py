"""The page, without a browser: what it shows, what it must never let through, and what its forms do."""

import json
import re
import socket
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from actors.messages import Wait
from actors.service import BatchService
from actors.settings import Settings
from actors.web.listener import Listener
from actors.web.page import batches, forms, live, videos, words
from actors.web.page.rendering import Renderer
from storage.states import BatchStatus, JobStatus, SubmissionState
from tests.builders import NOON, a_batch, a_job, an_event, an_intent, put, some_jobs
from tests.integration.support import PATIENCE, until

HTML = {"Accept": "text/html"}
HOSTILE = "\"'></textarea></title><script>alert(1)</script><img src=//evil.example/x onerror=alert(1)>{{ 7*7 }}&lt;"
ERROR = {"code": "server_error", "message": HOSTILE, "retryable": True, "detail": {"body": HOSTILE}}
VIDEO = {
    "uri": "file:///films/a.mp4", "path": "/films/a.mp4", "url": None, "bytes": 1_400_000, "sha256": "ab" * 32,
    "content_type": "video/mp4",
}  # fmt: skip


def settings(tmp_path, **more):
    folder = {"database_url": f"sqlite:///{tmp_path}/batches.db", "video_dir": str(tmp_path / "videos")}
    return Settings(_env_file=None, **folder, **more)


@pytest.fixture
def service(tmp_path):
    with BatchService(settings(tmp_path), simulate=True) as service:
        yield service


@contextmanager
def listening(service, token=None):
    listener = Listener(service, "127.0.0.1:0", token)
    try:
        yield listener
    finally:
        listener.close()


@pytest.fixture
def listener(service):
    with listening(service) as listener:
        yield listener


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect)


def ask(listener, path, data=None, **headers):
    """Status, headers and text of an answer."""
    if isinstance(data, dict | list):
        data = urllib.parse.urlencode(data).encode()
    given = HTML | {name.replace("_", "-"): text for name, text in headers.items()}
    request = urllib.request.Request(f"http://127.0.0.1:{listener.port}{path}", data=data, headers=given)
    try:
        with OPENER.open(request, timeout=PATIENCE) as response:
            return response.status, response.headers, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read().decode()


def store(service, batch, jobs=None, events=()):
    def write():
        put(service._storage, batch, jobs)
        service._storage.journal.append(events)

    service._write(write)


class Reader(HTMLParser):
    """Notes what a browser would do with a page."""

    def __init__(self, html):
        super().__init__()
        self.scripts, self.wrong, self.links, self.fields, self._area = [], [], [], {}, None
        self.feed(html)

    def handle_data(self, data):
        if self._area is not None:
            self.fields[self._area] = (self.fields[self._area] + data).removeprefix("\n")

    def handle_endtag(self, tag):
        if tag == "textarea":
            self._area = None

    def handle_starttag(self, tag, attrs):
        names = dict(attrs)
        if tag in ("input", "textarea") and "name" in names:
            self.fields[names["name"]] = names.get("value") or ""
            self._area = names["name"] if tag == "textarea" else None
        if tag == "script":
            self.scripts.append(names.get("src"))
        self.wrong += [f"{tag} {name}" for name in names if name.startswith("on") or name == "style"]
        self.wrong += [tag] if tag in ("style", "iframe", "object", "embed", "base") else []
        for name in ("src", "href", "action", "poster", "formaction", "srcset"):
            if name in names and not re.match(r"/(?!/)|\?|#", names[name] or ""):
                self.wrong.append(f"{tag} {name}={names[name]}")
            if name in names:
                self.links.append(names[name])


def checked(html):
    """A page that runs nothing but our script, and loads nothing from elsewhere."""
    reader = Reader(html)
    assert reader.wrong == []
    assert all(re.fullmatch(r"/static/page-\w+\.js", script) for script in reader.scripts)
    assert len(reader.scripts) <= 1
    return reader


def hostile_batch(service):
    named = {HOSTILE[:60]: HOSTILE}
    jobs = [
        a_job(1, "hostile", prompt=HOSTILE, status=JobStatus.FAILED, error=ERROR, metadata=named, model=HOSTILE,
              remote_id=HOSTILE, options={"params": named}),
        a_job(2, "hostile", prompt=HOSTILE, status=JobStatus.COMPLETED, video=VIDEO, metadata=named,
              made={"warnings": [{"code": "x", "message": HOSTILE, "asked": 1, "made": 2}],
                    "reported": {"revised_prompt": HOSTILE, "size": None, "seconds": None, "seed": None}}),
        a_job(3, "hostile", prompt=HOSTILE, status=JobStatus.CANCELLED, error=ERROR),
    ]  # fmt: skip
    event = an_event(
        1, "hostile", type="job.failed", key="job.failed.hostile.hostile-01",
        body=json.dumps({"data": {"job": {"error": ERROR}}}),
    )  # fmt: skip
    batch = a_batch(
        "hostile", name=HOSTILE, metadata=named, total=3, completed=1, failed=1, cancelled=1, error=ERROR,
        status=BatchStatus.PARTIAL, completed_at=NOON,
    )  # fmt: skip
    store(service, batch, jobs, [event])


PAGES = [
    "/", "/new", "/service", "/login", "/batches/hostile", "/batches/hostile/retry", "/batches/hostile/cancel",
    "/batches/hostile/history", "/batches/hostile/edit", "/batches/hostile/delete", "/new?batch=hostile&video=2", "/batches/hostile/jobs/1", "/batches/hostile/jobs/2", "/batches/hostile/jobs/3",
    "/batches/nobody", f"/?metadata.x={urllib.parse.quote(HOSTILE)}&status=failed",
    f"/login?next={urllib.parse.quote(HOSTILE)}", f"/batches/{urllib.parse.quote(HOSTILE, safe='')}",
]  # fmt: skip


def test_nothing_hostile_gets_through_on_any_page(service, listener):
    hostile_batch(service)
    for path in PAGES:
        status, headers, html = ask(listener, path)
        assert status in (200, 404), path
        policy = headers["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        checked(html)
        assert "<img src=//" not in html, path
        assert "<script>alert" not in html, path
        assert "49&lt;" not in html, path
        if "nobody" not in path and path.startswith("/batches/hostile"):
            assert "&lt;script&gt;alert(1)" in html, path


def test_what_is_live_is_escaped_as_well(service, listener):
    hostile_batch(service)
    message = first_message(listener, "/batches/hostile/live?since=0")
    assert set(message["cards"]) == {"1", "2", "3"}
    for html in (message["head"], message["moments"], *message["cards"].values()):
        assert "&lt;script&gt;" in html
        checked(html)


def first_message(listener, path, **headers):
    url = f"http://127.0.0.1:{listener.port}{path}"
    request = urllib.request.Request(url, headers={name.replace("_", "-"): text for name, text in headers.items()})
    with OPENER.open(request, timeout=PATIENCE) as stream:
        return next_message(stream)


def next_message(stream):
    for line in stream:
        if line.startswith(b"data: "):
            return json.loads(line[6:])
    return None


def test_the_stream_tells_what_changed_and_resumes_where_a_page_was(service, listener):
    jobs = some_jobs(2, "b", status=JobStatus.GENERATING, updated_at=NOON)
    batch = a_batch("b", total=2, processing=2, status=BatchStatus.PROCESSING, wanted=True, updated_at=NOON + 100)
    store(service, batch, jobs)
    message = first_message(listener, f"/batches/b/live?since={NOON + 100}")
    assert message["cards"] == message["bars"] == {}
    assert message["n"]["processing"] == 2
    with OPENER.open(f"http://127.0.0.1:{listener.port}/batches/b/live?since={NOON + 100}", timeout=PATIENCE) as stream:
        assert next_message(stream)["at"] == NOON + 100
        ended = jobs[0]._replace(status=JobStatus.COMPLETED, video=VIDEO, updated_at=NOON + 101)

        def write():
            service._storage.jobs.save([ended])
            after = batch._replace(sequence=2, completed=1, processing=1, updated_at=NOON + 101)
            assert service._storage.batches.advance(after, epoch=0, sequence=1)

        service._write(write)
        messages = [next_message(stream)]
        while not messages[-1]["cards"]:
            messages.append(next_message(stream))
        assert list(messages[-1]["cards"]) == ["1"]
        assert messages[-1]["n"]["completed"] == 1
        service.update_metadata("b", {"team": "blue"})
        while "reload" not in messages[-1]:
            messages.append(next_message(stream))
    resumed = first_message(listener, f"/batches/b/live?since={NOON}", Last_Event_ID=str(NOON + 101))
    assert list(resumed["cards"]) == ["1"]


def test_who_looks_and_takes_nothing_is_let_go(service, listener, monkeypatch):
    store(service, a_batch("b"))
    monkeypatch.setattr(live, "_SLOW_SECONDS", 0.2)
    monkeypatch.setattr(live, "_PERIOD", 0.0)
    monkeypatch.setattr(live.BatchWatch, "look", lambda _: {"at": 1, "text": "x" * 1_000_000})
    with socket.create_connection(("127.0.0.1", listener.port)) as slow:
        slow.sendall(b"GET /batches/b/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert slow.recv(15) == b"HTTP/1.1 200 OK"
        until(lambda: not listener._runner.server.connections)


def test_what_it_costs_is_shown_and_told(service, listener):
    def charge(number, **columns):
        return an_intent(f"i{number}", a_job(number, "b"), state=SubmissionState.BOUND, **columns)

    batch = a_batch("b", total=4, processing=4, status=BatchStatus.PROCESSING)
    store(service, batch, some_jobs(4, "b", status=JobStatus.GENERATING))

    def write():
        for each in (
            charge(1, currency="USD", charge="charged", reserved_micros=900_000, charged_micros=800_000),
            charge(2, currency="USD", charge="assumed", reserved_micros=400_000),
            charge(3, currency="USD", charge="reserved", reserved_micros=100_000),
            charge(4),
        ):
            service._storage.submissions.intend([each])

    service._write(write)
    html = ask(listener, "/batches/b")[2]
    told = "0.80 USD charged by the server; 0.40 USD assumed from the prices; 0.10 USD reserved"
    assert ">1.30 USD<" in html
    assert told in html
    assert "1 submission without a price (SORA_PRICES)" in html
    message = first_message(listener, "/batches/b/live?since=0")
    assert message["cost"][0] == "1.30 USD"
    assert message["cost"][1].startswith(told)
    assert "0.40 USD assumed" in ask(listener, "/batches/b/jobs/2")[2]


def test_a_page_that_has_missed_much_is_told_to_load_anew(service, listener):
    store(service, a_batch("many", total=200), some_jobs(200, "many"))
    assert first_message(listener, "/batches/many/live?since=0") == {"reload": True}
    assert first_message(listener, "/batches/many/live?since=nonsense") == {"reload": True}


def test_a_stream_of_no_batch_is_not_found(listener):
    assert ask(listener, "/batches/nobody/live")[0] == 404


def test_a_batch_of_ten_thousand_has_pages_of_sixty_and_stays_small(service, listener):
    prompt = "A wide valley at dawn, fog, slow push-in, 35 mm, warm light from the left. " * 40
    jobs = [
        a_job(each, "big", prompt=prompt, size="1280x720", model="sora-2-pro", duration=12, video=VIDEO,
              status=JobStatus.COMPLETED if each % 2 else JobStatus.FAILED, error=None if each % 2 else ERROR,
              options={"seed": each, "params": {"fps": 24, "negative_prompt": "blur " * 50}})
        for each in range(1, 10_001)
    ]  # fmt: skip
    batch = a_batch("big", total=10_000, completed=5000, failed=5000, status=BatchStatus.PARTIAL)
    store(service, batch, jobs)
    status, _, html = ask(listener, "/batches/big")
    assert (status, html.count('class="card')) == (200, 60)
    assert len(html.encode()) < 100_000
    assert 'id="v60"' in html
    assert "Page 1 of 167" in html
    html = ask(listener, "/batches/big?page=167")[2]
    assert (html.count('class="card'), 'id="v10000"' in html) == (40, True)
    html = ask(listener, "/batches/big?status=failed&page=2")[2]
    assert [*re.findall(r'id="v(\d+)"', html)][:2] == ["122", "124"]
    assert "Page 2 of 84" in html
    assert ask(listener, "/batches/big?page=99999&status=nonsense")[0] == 200
    assert len(ask(listener, "/batches/big/retry")[2].encode()) < 1_000_000


def test_the_script_and_the_style_sheet_are_small_and_kept(listener):
    reader = checked(ask(listener, "/")[2])
    assets = [link for link in reader.links if link.startswith("/static/")]
    assert len(assets) == 3
    sizes = 0
    for path in assets:
        status, headers, text = ask(listener, path)
        assert status == 200
        assert "immutable" in headers["Cache-Control"]
        sizes += len(text.encode())
        assert not re.search(r"https?://(?!www\.w3\.org/)", text)
    assert sizes <= 40_000
    assert ask(listener, "/static/../views.py")[0] == 404
    assert ask(listener, "/static/page.css")[0] == 404


def form(**fields):
    return dict.fromkeys(forms.NEW_FIELDS, "") | {"key": "k"} | fields


def test_a_form_becomes_a_batch_and_twice_sent_it_is_one(service, listener):
    filled = form(
        prompts="A {style} fox\r\n# not this\r\n\r\n\\#1 fan", batch_name="Foxes", duration="4", seed="7", takes="2",
        params="fps=24\r\nnegative_prompt=blur, noise", matrix="style=oil, 3", metadata="team=blue\nn=5", do="save",
    )  # fmt: skip
    status, headers, _ = ask(listener, "/new", filled)
    assert status == 303
    assert ask(listener, "/new", filled)[1]["Location"] == headers["Location"]
    (batch,) = service.list_batches()
    assert headers["Location"] == f"/batches/{batch.id}"
    jobs = service.get_batch_status(batch.id).jobs
    assert [job.prompt for job in jobs][:5] == ["A oil fox", "A oil fox", "A 3 fox", "A 3 fox", "#1 fan"]
    assert (jobs[0].duration, jobs[1].seed, jobs[0].params) == (4, 8, {"fps": 24, "negative_prompt": "blur, noise"})
    assert jobs[2].metadata == {"style": 3}
    assert (batch.name, batch.metadata, batch.status) == ("Foxes", {"team": "blue", "n": 5}, "pending")
    other = ask(listener, "/new", {**filled, "prompts": "Another"})
    assert other[0] == 422
    assert "sent before" in other[2]
    assert len(service.list_batches()) == 1
    again = re.search(r'name="key" value="(\w+)"', other[2])[1]
    assert ask(listener, "/new", {**filled, "prompts": "Another", "matrix": "", "key": again})[0] == 303
    assert len(service.list_batches()) == 2


def test_what_was_made_can_be_asked_for_again(service, listener):
    params = {"fps": 24, "note": "24", "text": "a, b", "lines": "a\nb", "deep": {"a": [1, None]}}
    made = a_job(
        1, "b", prompt="#1 fan", duration=8, size="720x1280", model="sora-2", status=JobStatus.COMPLETED, video=VIDEO,
        options={"seed": 7, "params": params},
    )  # fmt: skip
    others = [
        a_job(2, "b", prompt="two\nlines", status=JobStatus.COMPLETED, video=VIDEO),
        a_job(3, "b", reference={"file_id": "x"}, status=JobStatus.COMPLETED, video=VIDEO),
    ]
    said = {"team": "blue", "number": 5, "text": "5", "a=b": "c", ' "odd" ': "x", '"': "y", "two\nlines": True}
    batch = a_batch("b", name="Fans", metadata=said, total=3, completed=3, status=BatchStatus.COMPLETED)
    store(service, batch, [made, *others])
    html = ask(listener, "/batches/b")[2]
    assert re.findall(r'href="(/new[?][^"]+)"', html) == ["/new?batch=b&amp;video=1"]
    fields = Reader(ask(listener, "/new?batch=b&video=1")[2]).fields
    fields.pop("file", None)
    status, headers, _ = ask(listener, "/new", {**fields, "do": "save"})
    assert status == 303
    again = service.get_batch_status(headers["Location"].removeprefix("/batches/"))
    assert (again.name, again.metadata) == ("Fans", said)
    (job,) = again.jobs
    assert (job.prompt, job.duration, job.size, job.model, job.seed) == ("#1 fan", 8, "720x1280", "sora-2", 7)
    assert job.params == params
    assert ask(listener, "/new?batch=b&video=9")[0] == ask(listener, "/new?batch=%00&video=1")[0] == 404


def test_a_wrong_form_comes_back_as_it_was_filled_in(service, listener):
    filled = form(prompts="A fox", seed="many", size="big", params="fps", takes="0", metadata="=x")
    status, headers, html = ask(listener, "/new", filled)
    assert (status, headers["Content-Type"]) == (422, "text/html; charset=utf-8")
    assert html.count('href="#params"') == html.count('href="#metadata"') == 1
    status, _, html = ask(listener, "/new", {**filled, "params": "", "metadata": ""})
    assert [*re.findall(r'<li><a href="#(\w+)"', html)] == ["size", "seed", "takes"]
    assert 'value="many"' in html
    assert html.count('aria-invalid="true"') == 3
    assert "Write at least one prompt." in ask(listener, "/new", form(prompts="# only a comment"))[2]
    assert "at most 10 videos" in ask(listener, "/new", form(prompts="x\n" * 11))[2]
    assert service.list_batches() == []


def test_a_form_is_checked_and_priced_before_anything_is_made(tmp_path):
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"sora-2": {"currency": "USD", "output_cost_per_second": 0.1}}))
    with (
        BatchService(settings(tmp_path, sora_prices=str(prices)), simulate=True) as service,
        listening(service) as listener,
    ):
        filled = form(prompts="A fox\nA lake", takes="2", duration="8", model="sora-2")
        told = json.loads(ask(listener, "/new/quote", filled)[2])["text"]
        assert told.startswith("4 videos. At most 3.2")
        assert "USD" in told
        nothing = json.loads(ask(listener, "/new/quote", form(prompts=""))[2])
        assert nothing == {"text": "", "problem": "Write at least one prompt."}
        status, _, html = ask(listener, "/new", {**filled, "do": "check"})
        assert status == 200
        assert told.partition(" (")[0] in html
        assert "A fox\nA lake" in html
        assert ask(listener, "/new", {**filled, "seed": "x", "do": "check"})[0] == 422
        assert service.list_batches() == []


def multipart(**parts):
    lines = []
    for name, (extra, data) in parts.items():
        head = f'--b\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode()
        lines.append(head + data + b"\r\n")
    return b"".join(lines) + b"--b--\r\n"


def test_a_file_of_prompts_is_taken_and_one_that_is_no_text_refused(service, listener):
    kind = {"Content_Type": "multipart/form-data; boundary=b"}
    file = ('; filename="x.txt"', "\ufeffA fox\r\nA näher Fuchs".encode())
    body = multipart(do=("", b"save"), key=("", b"u"), prompts=("", b"First"), file=file)
    assert ask(listener, "/new", body, **kind)[0] == 303
    (batch,) = service.list_batches()
    prompts = [job.prompt for job in service.get_batch_status(batch.id).jobs]
    assert prompts == ["First", "A fox", "A näher Fuchs"]
    wrong = ask(listener, "/new", multipart(file=('; filename="x.mp4"', b"\xff\xfe\x00")), **kind)
    assert wrong[0] == 422
    assert "is not UTF-8 text" in wrong[2]
    large = ask(listener, "/new", multipart(file=('; filename="x"', b"x" * 2_000_000)), **kind)
    assert large[0] == 413
    assert ask(listener, "/new", b"{}", Content_Type="application/json")[0] == 415
    assert len(service.list_batches()) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("shots.CSV", "prompt,seed,params.fps\nfox,1,24\nowl,2,24\n"),
        ("shots.jsonl", '{"prompt": "fox", "seed": 1, "params": {"fps": 24}}\n{"prompt": "owl", "seed": 2}\n'),
        (
            "shots.yml",
            "defaults: {seconds: 8, params: {fps: 24}}\nvideos:\n- {prompt: fox, seed: 1}\n- {prompt: owl, seed: 2}\n",
        ),
        ("shots", '{"videos": [{"prompt": "fox", "seed": 1, "params": {"fps": 24}}, {"prompt": "owl", "seed": 2}]}'),
    ],
)
def test_a_batch_file_is_taken_as_on_the_command_line_and_completed_by_the_form(service, listener, name, text):
    kind = {"Content_Type": "multipart/form-data; boundary=b"}
    file = (f'; filename="{name}"', text.encode())
    rest = {"key": ("", b"u"), "prompts": ("", b"A hare"), "model": ("", b"m"), "budget": ("", b"5 videos")}
    checked_first = ask(listener, "/new", multipart(do=("", b"check"), file=file, **rest), **kind)
    fields = Reader(checked_first[2]).fields
    assert (checked_first[0], "3 videos." in checked_first[2]) == (200, True)
    assert (fields["document"], fields["document_name"]) == (text.strip(), name)
    told = json.loads(ask(listener, "/new/quote", form(document=text, document_name=name))[2])
    assert told == {"text": "2 videos.", "problem": ""}
    status, headers, _ = ask(listener, "/new", form(**{**fields, "do": "save"}))
    assert status == 303
    made = service.get_batch_status(headers["Location"].removeprefix("/batches/"))
    assert [(job.prompt, job.seed, job.model) for job in made.jobs] == [
        ("fox", 1, "m"), ("owl", 2, "m"), ("A hare", None, "m"),
    ]  # fmt: skip
    assert made.jobs[0].params == {"fps": 24}
    assert made.jobs[0].duration == (8 if "seconds" in text else None)


def test_what_is_wrong_in_a_batch_file_is_said_with_its_line(service, listener):
    for name, text, expected in (
        ("a.csv", "prompt,size\nfox,big\n", "videos[0].size: must be"),
        ("a.yaml", "videos: [\n", "a.yaml: not YAML"),
        ("a.json", '{"videos": [], "videos": []}', "a.json: duplicate key"),
        ("a.csv", "prompt,speed\nfox,1\n", "unknown column"),
        ("a.yaml", "videos:\n- prompt: fox\n  input_reference: /etc/passwd\n", "input_reference"),
    ):
        status, _, html = ask(listener, "/new", form(document=text, document_name=name, do="save"))
        assert (status, expected in html) == (422, True), name
        assert re.findall(r'<li><a href="#(\w+)"', html) == ["document"]
        assert 'id="batch-file" hidden' not in html
    told = json.loads(ask(listener, "/new/quote", form(document="prompt,size\nfox,big\n", document_name="a.csv"))[2])
    assert "on line 2" in told["problem"]
    assert service.list_batches() == []


def budgeted(service, **more):
    error = {"code": "budget_exceeded", "message": "no", "retryable": True, "detail": {"scope": "batch"}}
    job = a_job(1, "b", status=JobStatus.FAILED, error=error)
    batch = a_batch(
        "b", total=1, failed=1, status=BatchStatus.FAILED, completed_at=NOON, error=error,
        budget=[{"amount": "5", "unit": "seconds"}], metadata={"team": "blue", "n": 5, "text": "5", "deep": {"a": 1}}, **more,
    )  # fmt: skip
    store(service, batch, [job])


def test_a_budget_that_was_reached_is_raised_where_the_page_says_so(service, listener):
    budgeted(service)
    html = ask(listener, "/batches/b")[2]
    assert "Retry it with a larger budget" in html
    assert "<dt>Budget</dt><dd>5 seconds</dd>" in html
    fields = Reader(ask(listener, "/batches/b/retry")[2]).fields
    assert fields["budget"] == "5 seconds"
    status, _, html = ask(listener, "/batches/b/retry", fields | {"do": "all", "budget": "much"})
    assert (status, re.findall(r'<li><a href="#(\w+)"', html)) == (422, ["budget"])
    assert ask(listener, "/batches/b/retry", fields | {"do": "all", "budget": "50 seconds, 9 videos"})[0] == 303
    record = service.look(lambda storage: storage.batches.get("b"))
    assert record.budget == [{"amount": "50", "unit": "seconds"}, {"amount": "9", "unit": "videos"}]
    assert record.status is BatchStatus.PENDING


def test_metadata_and_budget_are_edited_and_what_others_change_meanwhile_stays(service, listener):
    budgeted(service)
    fields = Reader(ask(listener, "/batches/b/edit")[2]).fields
    service.update_metadata("b", {"team": "blue", "n": 5, "text": "5", "deep": {"a": 1}, "later": True})
    text = fields["metadata"].replace("team=blue\n", "").replace("n=5", "n=6") + "\r\nnew=a=b"
    sent = fields | {"metadata": text, "budget": ""}
    assert ask(listener, "/batches/b/edit", sent)[1]["Location"] == "/batches/b"
    record = service.look(lambda storage: storage.batches.get("b"))
    assert record.metadata == {"n": 6, "text": "5", "deep": {"a": 1}, "later": True, "new": "a=b"}
    assert record.budget == []
    for wrong in ({"metadata": "x"}, {"budget": "5"}, {"metadata": "x=" + "y" * 70_000}):
        status, _, html = ask(listener, "/batches/b/edit", fields | {"key": "other"} | wrong)
        assert (status, re.findall(r'<li><a href="#(\w+)"', html)) == (422, list(wrong)), wrong
    assert ask(listener, "/batches/nobody/edit", fields | {"key": "third"})[0] == 404


def test_an_ended_batch_is_deleted_and_one_that_runs_is_not(service, listener):
    budgeted(service)
    assert 'href="/batches/b/delete"' in ask(listener, "/batches/b")[2]
    assert "1 video and everything recorded" in ask(listener, "/batches/b/delete")[2]
    assert ask(listener, "/batches/b/delete", {"x": "y"})[1]["Location"] == "/"
    assert ask(listener, "/batches/b")[0] == 410
    assert ask(listener, "/batches/b/delete", {"x": "y"})[0] == 410
    running = service.create_batch({"videos": [{"prompt": "x"}]}).id
    assert "has not ended" in ask(listener, f"/batches/{running}/delete")[2]
    assert ask(listener, f"/batches/{running}/delete", {"x": "y"})[0] == 409


def test_pictures_are_offered_only_where_they_can_be_drawn(service, listener, monkeypatch):
    hostile_batch(service)
    assert "/sheet" in ask(listener, "/batches/hostile")[2]
    assert "/poster" in ask(listener, "/batches/hostile")[2]
    monkeypatch.setattr("actors.web.page.rendering.find_spec", lambda name: None)
    with listening(service) as without:
        for path in ("/batches/hostile", "/batches/hostile/jobs/2"):
            html = ask(without, path)[2]
            assert "/video" in html
            assert "/sheet" not in html
            assert "/poster" not in html


def ended(batch_id="b", **errors):
    failed = {"status": JobStatus.FAILED, "attempts": 1}
    jobs = [
        a_job(number, batch_id, **failed, error={"code": code, "message": "no", "retryable": retryable, "detail": None})
        for number, (code, retryable) in enumerate(errors.values(), 1)
    ]
    return a_batch(batch_id, total=len(jobs), failed=len(jobs), status=BatchStatus.FAILED, completed_at=NOON), jobs


def test_a_retry_takes_the_chosen_with_their_changed_prompts_once(service, listener):
    store(service, *ended(a=("moderation_blocked", False), b=("server_error", True), c=("server_error", True)))
    html = ask(listener, "/batches/b/retry")[2]
    assert re.findall(r'id="c(\d)" checked', html) == ["2", "3"]  # unchanged, the first would be refused again
    sent = [("key", "r"), ("do", "chosen"), ("video", "1"), ("prompt-1", "a calm\r\nlake"), ("prompt-2", "lake 2")]
    assert ask(listener, "/batches/b/retry", sent)[1]["Location"] == "/batches/b"
    jobs = service.get_batch_status("b").jobs
    assert [(job.prompt, job.status) for job in jobs] == [
        ("a calm\nlake", "pending"), ("lake 2", "failed"), ("lake 3", "failed"),
    ]  # fmt: skip
    assert ask(listener, "/batches/b/retry", sent)[0] == 303  # it was done before
    status, _, html = ask(listener, "/batches/b/retry", [("key", "other"), ("do", "all")])
    assert status == 409
    assert "wait for it to end" in html


def test_a_retry_of_all_leaves_alone_what_would_fail_again(service, listener):
    store(service, *ended(a=("moderation_blocked", False), b=("server_error", True)))
    assert ask(listener, "/batches/b/retry", [("key", "r"), ("do", "all"), ("prompt-1", "lake 1")])[0] == 303
    assert [job.status for job in service.get_batch_status("b").jobs] == ["failed", "pending"]


def test_a_retry_of_nothing_says_so(service, listener):
    store(service, *ended(a=("server_error", True)))
    status, _, html = ask(listener, "/batches/b/retry", [("key", "r"), ("do", "chosen")])
    assert (status, "Choose at least one video." in html) == (422, True)
    assert "Retry" in ask(listener, "/batches/b/retry?video=1")[2]
    assert ask(listener, "/batches/b/retry?video=7")[0] == 404


def test_a_batch_is_started_and_cancelled(service, listener):
    batch = service.create_batch({"videos": [{"prompt": "x"}, {"prompt": "y"}]})
    assert "Make the videos" in ask(listener, f"/batches/{batch.id}")[2]
    assert ask(listener, f"/batches/{batch.id}/process", {})[1]["Location"] == f"/batches/{batch.id}"
    html = ask(listener, f"/batches/{batch.id}")[2]
    assert "Queued" in html
    assert "Make the videos" not in html
    assert "2 waiting videos will not be started" in ask(listener, f"/batches/{batch.id}/cancel")[2]
    for _ in range(2):
        assert ask(listener, f"/batches/{batch.id}/cancel", {})[1]["Location"] == f"/batches/{batch.id}/cancel"
    html = ask(listener, f"/batches/{batch.id}/cancel")[2]
    assert "2 videos cancelled" in html
    assert "nothing is charged" in html
    assert "are kept" not in html
    assert service.get_batch_status(batch.id).status == "cancelled"


def test_a_foreign_page_can_send_no_form(service, listener):
    status, _, html = ask(listener, "/new", form(prompts="x"), Origin="https://evil.example")
    assert (status, "Not allowed" in html) == (403, True)
    assert service.list_batches() == []


def test_read_only_shows_no_form_and_takes_none(tmp_path):
    with BatchService(settings(tmp_path, web_read_only=True), simulate=True) as service, listening(service) as listener:
        store(service, *ended(a=("server_error", True)))
        for path in ("/", "/batches/b", "/batches/b/jobs/1"):
            html = ask(listener, path)[2]
            assert "<button" not in html.replace("<button>Filter", ""), path
            assert "/retry" not in html
            assert 'href="/new"' not in html
        for path in ("/new", "/batches/b/retry", "/batches/b/edit", "/batches/b/delete"):
            assert ask(listener, path)[0] == ask(listener, path, {"x": "y"})[0] == 403, path
        assert ask(listener, "/new", form(prompts="x"))[0] == 403
        assert service.list_batches()[0].id == "b"


def test_without_the_token_there_is_only_the_login(service):
    with listening(service, "secret-token") as listener:
        for path in ("/", "/batches/x", "/new", "/service"):
            status, _, html = ask(listener, f"{path}?a=1")
            assert status == 401
            assert f'name="next" value="{path}?a=1"' in html
            assert 'href="/new"' not in html
        for path, back in (
            ("/new", "/new"),
            ("/batches/x/retry", "/batches/x/retry"),
            ("/batches/x/process", "/batches/x"),
        ):
            status, _, html = ask(listener, path, {"prompts": "x"})
            assert (status, f'name="next" value="{back}"' in html) == (401, True)
            assert "the form was not sent, and nothing was changed" in html
        status, headers, html = ask(listener, "/login", {"token": "wrong", "next": "/"})
        assert (status, "The token is wrong" in html) == (401, True)
        status, headers, _ = ask(listener, "/login", {"token": "secret-token", "next": "/new?a=1"})
        assert (status, headers["Location"]) == (303, "/new?a=1")
        cookie = headers["Set-Cookie"].partition(";")[0]
        html = ask(listener, "/new", Cookie=cookie)[2]
        assert "Log out" in html
        assert "secret-token" not in html


def test_a_program_gets_problems_as_json(listener):
    status, headers, text = ask(listener, "/batches/nobody", Accept="application/json")
    assert (status, headers["Content-Type"]) == (404, "application/problem+json")
    assert json.loads(text)["code"] == "not_found"


def test_a_removed_file_is_said_and_not_offered(service, listener):
    removed = a_job(1, "b", status=JobStatus.COMPLETED, video={**VIDEO, "removed_at": NOON})
    store(service, a_batch("b", completed=1, status=BatchStatus.COMPLETED, completed_at=NOON), [removed])
    for path in ("/batches/b", "/batches/b/jobs/1"):
        html = ask(listener, path)[2]
        assert "The file was removed at" in html
        assert "download" not in html.lower()
        assert "<video" not in html


def test_a_filter_means_numbers_as_well_as_over_http(service, listener):
    store(service, a_batch("b", metadata={"n": 5, "on": True}))
    for query in ("metadata.n=5", "metadata.on=true"):
        assert 'data-batch="b"' in ask(listener, f"/?{query}")[2], query
    assert 'data-batch="b"' not in ask(listener, "/?metadata.n=6")[2].partition('id="rows"')[2]


def test_the_list_is_filtered_by_its_address_and_has_pages(service, listener):
    for number in range(60):
        batch = a_batch(f"b{number:02}", created_at=NOON + number, metadata={"team": "a&b" if number % 2 else "c"})
        store(service, batch)
    html = ask(listener, "/")[2]
    assert re.findall(r'data-batch="(b\d+)"', html)[:2] == ["b59", "b58"]
    older = re.search(r'href="(/\?after=[^"]+)"', html)[1]
    assert re.findall(r'data-batch="(b\d+)"', ask(listener, older)[2]) == [f"b{each:02}" for each in range(9, -1, -1)]
    status, headers, _ = ask(listener, "/?status=pending&key=team&value=a%26b")
    assert (status, headers["Location"]) == (303, "/?metadata.team=a%26b&status=pending")
    html = ask(listener, headers["Location"])[2]
    assert len(re.findall(r'data-batch="b\d+"', html)) == 30
    assert 'value="a&amp;b"' in html
    assert "No batch matches" in ask(listener, "/?status=failed")[2]
    assert ask(listener, "/?status=nonsense")[0] == 422
    assert ask(listener, "/?after=nobody")[0] == 404


def test_the_list_tells_of_new_batches_and_of_what_runs(service, listener):
    store(service, a_batch("old"))
    with OPENER.open(f"http://127.0.0.1:{listener.port}/live", timeout=PATIENCE) as stream:
        assert "Nothing is running" in next_message(stream)["running"]
        store(service, a_batch("new", status=BatchStatus.PROCESSING, wanted=True, created_at=NOON + 1))
        message = next_message(stream)
        assert "/batches/new" in message["running"]
        assert [batch_id for batch_id, _ in message["new"]] == ["new"]


def test_the_service_page_shows_each_check_and_what_fails(service, listener, tmp_path):
    html = ask(listener, "/service")[2]
    for name in ("Database", "Lease", "Files", "Key", "simulator"):
        assert name in html
    assert "this process does not hold a current lease" in html


def test_the_service_page_shows_what_is_left_of_the_budgets(tmp_path):
    with (
        BatchService(settings(tmp_path, sora_budget="50 USD per day"), simulate=True) as service,
        listening(service) as listener,
    ):
        assert "50.00 USD left of 50.00 USD per day" in ask(listener, "/service")[2]


def test_a_long_wait_is_told_in_days():
    assert [words.span(seconds) for seconds in (7, 3723, 47 * 3600, 3 * 86400 + 5)] == [
        "0:07", "1:02:03", "47:00:00", "3 days",
    ]  # fmt: skip


def test_a_feed_ends_with_its_last_reader(service, listener):
    store(service, a_batch("b"))
    before = len(listener._io.submit(tasks()).result())
    for _ in range(3):
        first_message(listener, "/batches/b/live?since=0")
    until(lambda: len(listener._io.submit(tasks()).result()) <= before)


async def tasks():
    import asyncio

    return [task for task in asyncio.all_tasks() if "_watch" in repr(task.get_coro())]


# --- without a service


def test_takes_of_one_request_stand_side_by_side():
    jobs = [
        a_job(1),
        *(a_job(each, prompt="owl", options={"take": each - 1}) for each in (2, 3, 4)),
        a_job(5, prompt="owl"),
    ]
    assert [len(group) for group in videos.groups([videos.Card(job) for job in jobs])] == [1, 3, 1]


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        (["1280x720"], "wide"), (["720x1280", "720x1280", None], "tall"), (["512x512"], "square"), ([], "wide"),
        ([None], "wide"), (["512x512", "1280x720"], "wide"),
    ],
)  # fmt: skip
def test_the_frames_have_the_shape_of_most_videos(sizes, shape):
    assert videos.shape([a_job(number, size=size) for number, size in enumerate(sizes, 1)]) == shape


def test_the_time_line_tells_what_happened_newest_first_without_progress():
    events = [
        an_event(1, type="batch.created", key="batch.created.nature"),
        an_event(2, type="job.progressed", key="job.progressed.nature.nature-01"),
        an_event(3, type="job.completed", key="job.completed.nature.nature-12"),
        an_event(4, type="batch.somethingnew", key="batch.somethingnew.nature"),
    ]
    assert [each.text for each in words.time_line(events)] == [
        "batch somethingnew", "Video 12 completed", "Batch created",
    ]  # fmt: skip


def test_every_event_state_and_error_has_words():
    for name in words.EventName:
        said = words.event(name.value, "b", 1 if name.value.startswith("job.") else None)
        assert name.value in words.SILENT or not re.search(r"[._]|^[a-z]", said), said
    assert set(words.BATCH_STATES) == set(BatchStatus)
    assert set(words.JOB_STATES) == set(JobStatus)
    for code in (*words.ErrorCode, "one_of_a_later_version"):
        assert words.way_out(str(code)).endswith(".")


def test_why_a_video_waits_is_said_with_its_next_try():
    waits = {"b-01": Wait("rate limited", 107.2), "": Wait("server unreachable", 99.0)}
    assert batches.waiting(waits, 100.0) == {"b-01": "rate limited; next try in 8 s", "": "server unreachable"}


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1400, "1.4 kB"), (1_400_000, "1.4 MB"), (2.5e9, "2.5 GB")]
)
def test_sizes_are_readable(number, text):
    assert words.size(number) == text


def test_a_name_that_a_template_misspells_is_an_error():
    with pytest.raises(Exception, match="undefined"):
        Renderer().page("problem", {"site": SimpleNamespace(known=False)})
