"""The report in Chromium: no network, no error, links that lead somewhere, tables that sort by mouse and keyboard."""

import shutil

import pytest

from segbench.cli.report import run

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser, tiny_run, tmp_path):
    """A report that is open, offline; what the page complains of is in `page.complaints`."""
    path = run([str(tiny_run), f"output={tmp_path / 'report.html'}"])
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.complaints = []
    opened.on("console", lambda message: opened.complaints.append(message.text))
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.on(
        "request", lambda request: opened.complaints.append(request.url) if request.url.startswith("http") else None
    )
    opened.goto(path.as_uri())
    yield opened
    assert opened.complaints == []
    context.close()


def test_every_link_leads_to_its_section(page):
    links = page.locator("nav a")
    assert links.count() >= 6
    for number in range(links.count()):
        target = links.nth(number).get_attribute("href")
        assert page.locator(target).count() == 1
        links.nth(number).click()
        assert page.url.endswith(target)


def scores(page):
    rows = page.locator("#scores table").last.locator("tbody tr")
    return [float(rows.nth(n).locator("td").first.inner_text()) for n in range(rows.count())]


def test_tables_sort_by_mouse_and_by_keyboard(page):
    head = page.locator("#scores table").last.locator("thead th").nth(1)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert scores(page) == sorted(scores(page))
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert scores(page) == sorted(scores(page), reverse=True)


def test_pictures_are_there_and_said_in_words(page):
    pictures = page.locator("img")
    assert pictures.count() >= 3
    for number in range(pictures.count()):
        assert pictures.nth(number).evaluate("image => image.complete && image.naturalWidth > 0")
        assert pictures.nth(number).get_attribute("alt")
    drawings = page.locator('[role="img"]')
    assert drawings.count() >= 4
    assert all(drawings.nth(n).get_attribute("aria-label") for n in range(drawings.count()))


def test_nothing_is_wider_than_the_window_and_ink_follows_the_scheme(page):
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    ink = "getComputedStyle(document.body).color"
    page.emulate_media(color_scheme="light")
    light = page.evaluate(ink)
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(ink) != light
    text = page.locator("figure svg text").first
    assert text.evaluate("node => getComputedStyle(node).fill") == page.evaluate(ink)


def test_it_prints(page):
    page.emulate_media(media="print")
    assert page.pdf()[:5] == b"%PDF-"
    assert not page.locator("nav").is_visible()


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_but_tables_is_wider_than_the_window(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.evaluate("document.querySelector('h1').textContent = 'outputs/' + 'a'.repeat(120)")
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_paper_is_white_on_a_dark_screen(page):
    page.emulate_media(media="print", color_scheme="dark")
    colours = page.evaluate("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
    assert colours == ["rgb(255, 255, 255)", "rgb(27, 31, 36)"]
    page.emulate_media(media="screen", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 27)"


def test_a_wide_table_fits_a_sheet(page):
    cells = "".join(f"<th><button>mean_iu_of_class_{number}</button></th>" for number in range(12))
    page.evaluate(
        "html => document.querySelector('#scores table').innerHTML = html",
        f"<thead><tr>{cells}</tr></thead><tbody><tr>{'<td class=number>0.1234</td>' * 12}</tr></tbody>",
    )
    page.set_viewport_size({"width": 794, "height": 1123})
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") == 794
