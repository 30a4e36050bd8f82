"""The page in a real browser: what a person does there, against the simulator; and what everybody must be able to use."""

import base64
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.expected_conditions import staleness_of
from selenium.webdriver.support.wait import WebDriverWait

from actors.service import BatchService
from actors.simulator import SimulatorOptions
from actors.web.listener import Listener
from tests.integration.support import PATIENCE, options_for, settings_from, videos
from tests.javascript.node import package
from tests.servers.chromium import chromium
from tests.servers.simulator import simulator_in_thread

pytestmark = pytest.mark.integration

TITLE = "Foxes & <b>owls</b>"


class Site:
    """A service with the page, which can be lost and come back; and the browser that looks at it."""

    def __init__(self, base_url: str, folder: Path, browser: Chrome, screenshots: Path) -> None:
        self.browser, self._screenshots, self._port = browser, screenshots, "127.0.0.1:0"
        options = options_for(base_url, folder, batch_max_size=100, sora_poll_interval="250ms")
        self.service = BatchService(settings_from(options))
        self.service.serve()
        self.open()

    def open(self) -> None:
        self.listener = Listener(self.service, self._port, None)
        self._port = f"127.0.0.1:{self.listener.port}"

    def close(self) -> None:
        self.listener.close()
        self.service.close()

    def go(self, path: str) -> None:
        self.browser.get(f"http://{self._port}{path}")

    @property
    def path(self) -> str:
        return str(self.browser.current_url).removeprefix(f"http://{self._port}")

    def all(self, selector: str) -> list[WebElement]:
        return list(self.browser.find_elements(By.CSS_SELECTOR, selector))

    def one(self, selector: str) -> WebElement:
        return self.until(lambda: next(iter(self.all(selector)), None))

    def text(self, selector: str = "main") -> str:
        script = "return document.querySelector(arguments[0])?.innerText"  # at once: what is live is replaced
        return str(self.until(lambda: None if (text := self.run(script, selector)) is None else [text])[0])

    def shows(self, text: str, selector: str = "main") -> None:
        self.until(lambda: text in self.text(selector))

    def click(self, selector: str) -> None:
        self.until(lambda: self.one(selector).click() is None)

    def write(self, field: str, text: str) -> None:
        element = self.one(f"[name={field}]")
        element.clear()
        element.send_keys(text)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def until(self, holds: Callable[[], Any]) -> Any:
        waiting = WebDriverWait(self.browser, PATIENCE, 0.05, [StaleElementReferenceException])
        return waiting.until(lambda _: holds())

    def look(self, name: str, *, whole: bool = True) -> None:
        """Everybody can use what is shown, in both schemes and on a narrow screen; and take a picture of each."""
        for scheme, width in (("light", 1280), ("dark", 1280), ("light", 320)):
            self.browser.execute_cdp_cmd(
                "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
            )
            self._width(width)
            if scheme == "dark" or width == 1280:
                assert self._violations() == [], f"{name}, {scheme}, {width}"
            assert self.run("return document.documentElement.scrollWidth") <= width, f"{name} at {width}"
            picture = self.browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": whole})
            file = self._screenshots / f"{name}-{scheme}-{width}.png"
            file.write_bytes(base64.b64decode(picture["data"]))
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
        self._width(1280)

    def _width(self, width: int) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def _violations(self) -> list[str]:
        """What axe-core calls serious, or worse."""
        if not self.run("return typeof axe !== 'undefined'"):
            self.run((package("axe-core") / "axe.min.js").read_text())
        script = (
            "const done = arguments[0]; axe.run({resultTypes: ['violations']}).then(found => done(found.violations))"
        )
        found = self.browser.execute_async_script(script)
        return [
            f"{each['id']} at {each['nodes'][0]['target']}: {each['help']}"
            for each in found
            if each["impact"] in ("serious", "critical")
        ]

    def complaints(self) -> list[str]:
        """What the browser has logged: violations of the policy, and mistakes of the script."""
        return [entry["message"] for entry in self.browser.get_log("browser")]


@pytest.fixture(scope="session")
def browser() -> Iterator[Chrome]:
    with chromium() as browser:
        browser.set_script_timeout(PATIENCE)
        yield browser


@pytest.fixture(scope="module")
def site(browser: Chrome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    named = os.environ.get("PAGE_SCREENSHOTS")
    screenshots = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    options = SimulatorOptions(latency=(0.6, 1.2), moderation=("forbidden",), seed=7)
    with simulator_in_thread(options) as (_, base_url):
        site = Site(base_url, tmp_path_factory.mktemp("service"), browser, screenshots)
        yield site
        site.close()
    print(f"\nscreenshots: {screenshots}")


@contextmanager
def without_scripts(site: Site) -> Iterator[None]:
    site.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        yield
    finally:
        site.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.fixture(autouse=True)
def nothing_to_complain_of(site: Site) -> Iterator[None]:
    yield
    assert [each for each in site.complaints() if "Failed to load resource" not in each] == []


def test_from_an_empty_list_to_a_batch_that_comes_live_and_a_film_that_plays(site: Site) -> None:
    site.go("/")
    site.shows("There is no batch yet")
    site.look("empty")
    site.click(".empty a.button")
    site.write("prompts", "A red fox\n# a comment\nAn owl that is forbidden\nA lake")
    site.shows("3 videos", "#count")
    site.write("takes", "2")
    site.shows("6 videos", "#count")
    site.write("takes", "1")
    site.write("batch_name", TITLE)
    site.click("summary")
    site.write("metadata", "team=blue")
    site.look("new")
    site.click("button.main")
    site.until(lambda: site.path.startswith("/batches/"))
    assert site.text("h1") == TITLE
    before = site.run(
        "return [...document.querySelectorAll('.card .frame')].map(e => e.getBoundingClientRect().height)"
    )
    site.run("window.loaded = true")
    site.until(lambda: site.all("progress[data-p]"))
    site.look("running")
    site.shows("Partly completed", ".head")
    assert site.run("return window.loaded") is True  # nothing was loaded anew
    after = site.run("return [...document.querySelectorAll('.card .frame')].map(e => e.getBoundingClientRect().height)")
    assert after == before
    assert site.text('.head [data-n="completed"]') == "2"
    assert "moderation_blocked" in site.text("#v2")
    assert "Batch ended, partly completed" in site.text("#moments")
    site.look("partial")
    plays(site)


def plays(site: Site) -> None:
    """Under the pointer, on focus, and where it was clicked; one at a time."""
    for index in (1, 3):
        ActionChains(site.browser).move_to_element(site.one(f"#v{index} .frame")).perform()
        site.until(lambda index=index: site.run(f"return document.querySelector('#v{index} video')?.currentTime > 0"))
        assert len(site.all("video")) == 1
    ActionChains(site.browser).move_to_element(site.one("h1")).perform()
    site.until(lambda: not site.all("video"))
    site.run("document.querySelector('#v1 a.film').focus()")
    site.until(lambda: site.all("#v1 video"))
    site.browser.switch_to.active_element.send_keys(Keys.ENTER)
    site.until(lambda: site.all("#v1 video[controls]"))
    site.browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    site.until(lambda: not site.all("video"))


def test_one_failed_video_is_retried_with_another_prompt(site: Site) -> None:
    batch = an_ended(site, "An owl that is forbidden", "A lake")
    site.go(f"/batches/{batch}")
    site.click("#v1 .acts a.act[href*=retry]")
    site.look("retry")
    site.write("prompt-1", "An owl")
    site.click("button.main")
    site.shows("2 of 2", ".figures")
    site.shows("Completed", ".head .badge")
    assert "An owl" in site.text("#v1")
    site.click("#v1 .prompt")
    site.until(lambda: site.path == f"/batches/{batch}/jobs/1")
    assert site.one(".text a[download]").get_attribute("download") == f"{batch}-01.mp4"
    site.until(lambda: site.run("return document.querySelector('video').readyState") >= 1)
    site.look("video")


def an_ended(site: Site, *prompts: str, **more: Any) -> str:
    batch = site.service.create_batch(videos(*prompts, **more))
    site.service.process_batch(batch.id).result(PATIENCE)
    return batch.id


def test_a_batch_is_cancelled_and_says_first_what_may_be_charged(site: Site) -> None:
    batch = site.service.create_batch(videos(*(f"Cloud {number}" for number in range(40)), concurrency=2))
    site.service.process_batch(batch.id)
    site.go(f"/batches/{batch.id}")
    site.until(lambda: int(site.text('.head [data-n="processing"]')) > 0)
    site.click(".acts a[href$=cancel]")
    site.shows("may charge for")
    site.look("cancel")
    site.click("button.danger")
    site.shows("Cancelled", "h1")
    assert site.service.get_batch_status(batch.id).status == "cancelled"
    site.look("cancelled")
    site.click(".acts a.button")
    site.shows("Cancelled", ".head .badge")
    site.look("batch-cancelled")


def test_filters_are_in_the_address_and_going_back_undoes_them(site: Site) -> None:
    blue = an_ended(site, "A stone", metadata={"team": "blue & green"}, batch_name="Stones")
    other = an_ended(site, "A forbidden stone")
    site.go("/")
    site.write("key", "team")
    site.write("value", "blue & green")
    site.click(".filters button")
    site.until(lambda: site.path == "/?metadata.team=blue+%26+green")
    shown = [row.get_attribute("data-batch") for row in site.all("#rows .row")]
    assert shown == [blue]
    site.look("list-filtered")
    site.browser.back()
    site.until(lambda: len(site.all("#rows .row")) > 1)
    site.run("document.querySelector('[name=status]').value = 'failed'")
    site.click(".filters button")
    site.until(lambda: site.path == "/?status=failed")
    assert other in [row.get_attribute("data-batch") for row in site.all("#rows .row")]
    assert blue not in [row.get_attribute("data-batch") for row in site.all("#rows .row")]
    site.go("/?metadata.team=nobody")
    site.shows("No batch matches")


def test_the_list_follows_what_others_create(site: Site) -> None:
    site.go("/")
    site.one("#rows")
    batch = site.service.create_batch(videos("A hill", "A dune", batch_name="Hills"))
    site.until(lambda: site.all(f"#rows [data-batch='{batch.id}']"))
    site.service.process_batch(batch.id)
    site.until(lambda: site.all(f"#running [data-batch='{batch.id}']"))
    site.look("list")
    site.until(lambda: site.all(f"#rows [data-batch='{batch.id}'] .badge.is-completed"))
    site.until(lambda: not site.all(f"#running [data-batch='{batch.id}']"))


def test_a_page_outlives_the_loss_of_its_service_and_a_reload_in_the_middle(site: Site) -> None:
    batch = site.service.create_batch(videos("A storm", "A breeze", "A gale", concurrency=1))
    site.service.process_batch(batch.id)
    site.go(f"/batches/{batch.id}")
    site.until(lambda: site.all("progress[data-p]"))
    site.listener.close()
    site.shows("Connection lost", "#lost")
    site.look("lost")
    site.open()
    site.until(lambda: not site.one("#lost").is_displayed())
    site.browser.refresh()
    site.shows("Completed", ".head .badge")
    assert len(site.all(".card.is-completed")) == 3


def test_a_form_is_kept_where_nobody_takes_it(site: Site) -> None:
    site.go("/new")
    site.write("prompts", "A harbour at night")
    site.listener.close()
    site.click("button.main")
    site.shows("the form was not sent", "#lost")
    assert site.one("#prompts").get_attribute("value") == "A harbour at night"
    site.open()
    site.click("button.main")
    site.until(lambda: site.path.startswith("/batches/"))
    assert "A harbour at night" in site.text("#v1")


def test_without_scripts_all_can_be_read_and_done(site: Site) -> None:
    with without_scripts(site):
        site.go("/new")
        site.write("prompts", "A quiet lake")
        site.click("button[value=save]")
        assert site.text(".head .badge") == "Not started"
        start = site.one(".head button.main")
        start.click()
        site.until(lambda: staleness_of(start)(site.browser))  # to reload before the answer would take the click back
        batch = site.path.removeprefix("/batches/")

        def completed() -> bool:
            site.browser.refresh()
            return site.text(".head .badge") == "Completed"

        site.until(completed)
        assert site.one("#v1 a[download]").get_attribute("href").endswith(f"/{batch}/jobs/1/video")
        site.go(f"/batches/{batch}/history")
        assert "Batch completed" in site.text(".moments")


def test_a_file_is_chosen_or_dropped_onto_the_prompts(site: Site, tmp_path: Path) -> None:
    (tmp_path / "shots.txt").write_text("A bridge\nA tunnel\n")
    site.go("/new")
    site.one("#file").send_keys(str(tmp_path / "shots.txt"))
    site.shows("2 videos", "#count")
    drop = """
        const transfer = new DataTransfer();
        transfer.items.add(new File(["A harbour"], arguments[0]));
        document.querySelector("#prompts").dispatchEvent(
            new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
    """
    site.run(drop, "more.txt")
    site.shows("3 videos", "#count")
    assert site.one("#prompts").get_attribute("value").split("\n") == ["A bridge", "A tunnel", "A harbour", ""]
    site.run(drop.replace("A harbour", "x"), "film.mp4")
    site.shows("film.mp4 was not taken", "#count")
    site.run(drop.replace("A harbour", "prompt,takes\\nA ferry,5"), "shots.csv")
    site.shows("8 videos", "#count")
    assert site.text("#document-title") == "shots.csv"
    site.look("new-batch-file")
    site.write("document", "prompt,takes\nA ferry,many")
    site.shows("on line 2", "#count")


def test_what_is_wrong_with_a_form_is_said_beside_it(site: Site) -> None:
    site.go("/new")
    site.write("seed", "many")
    site.click("button.main")
    site.one("#problems")
    assert "seed" in site.text("#problems")
    assert site.one("#seed").get_attribute("value") == "many"
    assert site.one("#seed").get_attribute("aria-invalid") == "true"
    site.look("new-refused")


def test_what_is_shown_anew_keeps_the_focus_and_still_pictures_for_who_wants_them(site: Site) -> None:
    batch = an_ended(site, "A forbidden pond", "A pond")
    site.browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-reduced-motion", "value": "reduce"}]}
    )
    site.go(f"/batches/{batch}")
    site.run("document.querySelector('#v2 a.film').focus()")
    ActionChains(site.browser).move_to_element(site.one("#v2 .frame")).perform()
    assert site.all("video") == []
    site.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    site.run("document.querySelector('#v1 a.again').focus()")
    site.service.retry_batch(batch, [f"{batch}-01"], {f"{batch}-01": {"prompt": "A calm pond"}}).result(PATIENCE)
    site.shows("2 of 2", ".figures")
    assert site.run("return document.querySelector('#v1').contains(document.activeElement)")


@pytest.mark.parametrize("path", ["/service", "/login", "/batches/nobody", "/nowhere"])
def test_the_other_pages_can_be_used_by_everybody(site: Site, path: str) -> None:
    site.go(path)
    site.look(path.strip("/").replace("/", "-"))


def test_the_keyboard_reaches_everything_and_shows_where_it_is(site: Site) -> None:
    batch = an_ended(site, "A pond")
    site.go(f"/batches/{batch}")
    reached = []
    for _ in range(40):
        site.browser.switch_to.active_element.send_keys(Keys.TAB)
        element = site.browser.switch_to.active_element
        if element.tag_name == "body":
            break
        reached.append(element.get_attribute("href") or element.tag_name)
        outline = site.run("return getComputedStyle(arguments[0]).outlineStyle", element)
        assert outline != "none", reached
    assert any(each.endswith("#main") for each in reached[:1])
    for part in ("/new", "/jobs/1/video", "/jobs/1", "/history"):
        assert any(each.endswith(part) for each in reached), (part, reached)
