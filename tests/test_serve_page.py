"""The page of the service in headless Chromium: what a person drops, and sees."""

import shutil
import threading

import cv2
import numpy as np
import pytest
from exported import needs, some_rows, some_weights

needs("starlette", "uvicorn", "httpx", "python_multipart", "prometheus_client")
needs("playwright")

from playwright.sync_api import expect, sync_playwright  # noqa: E402
from served import FakeReader, SureOfBright, png, running  # noqa: E402

from robustscanner_jax.reading import Reading  # noqa: E402
from robustscanner_jax.views import Views  # noqa: E402

pytestmark = pytest.mark.browser
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("needs Chromium: apt install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Returns a function: client -> its page in a new tab, `page.troubles` beside it.

    The test fails where a trouble (an error in the console, an exception, a request
    to another host) is left that it has not taken out of the list.
    """
    tabs = []

    def open_tab(client, **context):
        page = browser.new_page(**context)
        page.set_default_timeout(20_000)
        page.troubles = []
        page.asked = []

        def note(request):
            page.asked.append(request.url.removeprefix(str(client.base_url)))
            if not request.url.startswith((str(client.base_url), "blob:", "data:")):
                page.troubles.append(f"asked {request.url}")

        page.on("request", note)
        page.on("pageerror", lambda error: page.troubles.append(str(error)))
        page.on(
            "console",
            lambda said: said.type == "error" and page.troubles.append(said.text),
        )
        tabs.append(page)
        page.goto(str(client.base_url))
        return page

    yield open_tab
    troubles = [trouble for page in tabs for trouble in page.troubles]
    for page in tabs:
        page.close()
    assert troubles == []


def file_of(name, data):
    return {"name": name, "mimeType": "image/png", "buffer": data}


def choose(page, *files):
    page.set_input_files("#file", [file_of(name, data) for name, data in files])


def drop(page, *files):
    """Drops files on the page as a file manager does."""
    transfer = page.evaluate_handle(
        """files => {
          const transfer = new DataTransfer();
          for (const [name, bytes] of files)
            transfer.items.add(new File([new Uint8Array(bytes)], name));
          return transfer;
        }""",
        [(name, list(data)) for name, data in files],
    )
    page.dispatch_event("#drop", "dragover", {"dataTransfer": transfer})
    expect(page.locator("#drop")).to_have_class("over")
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    expect(page.locator("#drop")).to_have_class("")


def test_a_chosen_image_shows_text_attention_and_gate(visit):
    from robustscanner_jax.recognizer import Recognizer

    recognizer = Recognizer(some_weights(), batch_size=1, dtype="float32")
    recognizer.gate = threading.Event()
    images = some_rows(5, 8)[0]
    readings = [recognizer.read([pixels[..., ::-1]])[0] for pixels in images]
    longest = max(range(8), key=lambda number: len(readings[number].text))
    expected = readings[longest]
    data = cv2.imencode(".png", images[longest])[1].tobytes()
    with running(recognizer) as (client, _):
        page = visit(client)
        choose(page, ("word.png", data))
        steps = len(expected.character_confidences)
        assert steps > 2
        expect(page.locator(".text")).to_have_text(expected.text)
        expect(page.locator(".detail")).to_contain_text(f"{expected.confidence:.4f}")
        expect(page.locator("article > img")).to_be_visible()
        rows = page.locator("tr:has(td)")
        expect(rows.locator("canvas")).to_have_count(2 * rows.count())
        letters = rows.locator("td:first-child").all_inner_texts()
        assert "".join(letters) == expected.text
        # Something was drawn, another map for each character.
        maps = [
            one.evaluate("c => c.toDataURL()") for one in page.locator("canvas").all()
        ]
        assert len(set(maps)) > steps
        shares = [m.evaluate("m => m.value") for m in rows.locator("meter").all()][1::2]
        assert all(0 < share < 1 for share in shares)


@pytest.fixture(scope="module")
def client():
    with running(FakeReader()) as (client, _):
        yield client


def test_several_dropped_images_are_read_in_their_order(visit, client):
    page = visit(client)
    drop(page, *((f"{value}.png", png(value)) for value in (30, 10, 20)))
    expect(page.locator(".text")).to_have_text(["c", "a", "b"])
    alts = [image.get_attribute("alt") for image in page.locator("article img").all()]
    assert alts == ["30.png", "10.png", "20.png"]
    drop(page, ("40.png", png(40)))  # a new drop takes the place of the older one
    expect(page.locator(".text")).to_have_text(["d"])


def test_the_same_file_can_be_chosen_again(visit, client):
    page = visit(client)
    for _ in range(2):
        with page.expect_response("**/read"):
            choose(page, ("10.png", png(10)))
        expect(page.locator(".text")).to_have_text(["a"])


def test_a_broken_image_says_so_and_the_page_goes_on(visit, client):
    page = visit(client)
    choose(page, ("10.png", png(10)), ("bad.png", b"junk"), ("20.png", png(20)))
    message = "bad.png: not an image (4 bytes)"
    expect(page.locator("article p:first-of-type")).to_have_text(["a", message, "b"])
    expect(page.locator(".error")).to_have_count(1)
    # The browser logs the status of the answer, and nothing else went wrong.
    (logged,) = page.troubles
    assert "422" in logged
    page.troubles.clear()
    choose(page, ("30.png", png(30)))
    expect(page.locator(".text")).to_have_text(["c"])


def test_an_exports_page_does_not_ask_for_maps(visit, client):
    page = visit(client)
    choose(page, ("10.png", png(10)))
    expect(page.locator(".text")).to_have_text(["a"])
    page.wait_for_load_state("networkidle")
    assert "/read" in page.asked and "/explain" not in page.asked
    expect(page.locator("canvas")).to_have_count(0)


def test_a_name_or_a_text_is_never_markup(visit):
    reader = FakeReader()
    marked = Reading("<b>x</b>", 1.0, (0.5,) * 8)
    reader.to_readings = lambda decoded, count: [marked] * count
    with running(reader) as (client, _):
        page = visit(client)
        choose(page, ("<img src=x onerror=alert(1)>.png", png(10)))
        expect(page.locator(".text")).to_have_text("<b>x</b>")
        expect(page.locator("b")).to_have_count(0)


def test_the_page_says_in_which_view_a_word_was_read(visit):
    tall = np.full((60, 20, 3), 10, np.uint8)
    tall[:, 10:] = 80  # what is on top once it is turned to the left
    reader = SureOfBright()
    with running(reader, views=Views(rotate_tall=1.0, look_closer=True)) as (client, _):
        page = visit(client)
        choose(page, ("tall.png", cv2.imencode(".png", tall)[1].tobytes()))
        expect(page.locator(".text")).to_have_text("h")
        expect(page.locator(".detail")).to_contain_text("turned by 90°")
        expect(page.locator(".detail")).not_to_contain_text("closer")
        framed = np.full((40, 80, 3), 30, np.uint8)
        framed[4:36, 4:76] = 70
        choose(page, ("framed.png", cv2.imencode(".png", framed)[1].tobytes()))
        expect(page.locator(".text")).to_have_text("g")
        expect(page.locator(".detail")).to_contain_text("closer")
        expect(page.locator(".detail")).not_to_contain_text("turned")


def test_the_page_asks_for_the_token_and_sends_it(visit):
    with running(FakeReader(), token="secret") as (client, _):
        page = visit(client)
        choose(page, ("10.png", png(10)))
        expect(page.locator(".error")).to_contain_text("Bearer TOKEN")
        assert ["401" in trouble for trouble in page.troubles] == [True]
        page.troubles.clear()
        page.fill("#token", "secret")
        choose(page, ("10.png", png(10)))
        expect(page.locator(".text")).to_have_text(["a"])


def contrast(page, selector) -> float:
    """Returns the contrast ratio of an element's text on the page, as WCAG has it."""
    colours = page.eval_on_selector(
        selector,
        """element => [getComputedStyle(element).color,
                       getComputedStyle(document.body).backgroundColor]""",
    )
    rgb = np.array([[float(c) for c in text[4:-1].split(",")] for text in colours])
    rgb /= 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    dark, light = np.sort(linear @ [0.2126, 0.7152, 0.0722])
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_can_be_read_in_light_and_dark(visit, client, scheme):
    page = visit(client, color_scheme=scheme)
    choose(page, ("10.png", png(10)), ("bad.png", b"junk"))
    expect(page.locator(".error")).to_be_visible()
    page.troubles.clear()
    for selector in (".text", ".error", "th:last-of-type", "a", "#drop"):
        assert contrast(page, selector) >= 4.5, selector
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


def test_the_page_fits_a_telephone(visit, client):
    page = visit(client, viewport={"width": 360, "height": 640})
    choose(page, ("10.png", png(10)))
    expect(page.locator(".text")).to_have_text(["a"])
    wide = "document.documentElement.scrollWidth > window.innerWidth"
    assert not page.evaluate(wide)
