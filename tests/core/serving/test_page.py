"""The page in a browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.core.serving.conftest import photo_bytes

from abair import images
from abair.serving.live import LiveRestorer

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is missing; pip install playwright")
CHROMIUM = shutil.which("chromium")
AXE = "axe-core is missing; pip install axe-playwright-python"
SHOTS = Path(__file__).parents[3] / "docs/images"
"""Pictures of the page for the documentation; `--update-docs` makes them anew."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium; apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def page(browser: Any, listening: Callable[..., str]) -> Iterator[Any]:
    """The page of a server; at the end nothing was refused by the policy and no script failed."""
    context = browser.new_context(accept_downloads=True, viewport={"width": 390, "height": 800}, has_touch=True)
    opened = context.new_page()
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda said: problems.append(said.text) if "Content Security" in said.text else None)
    opened.goto(listening())
    yield opened
    context.close()
    assert problems == []


def drop(page: Any, *files: tuple[str, str, bytes]) -> None:
    given = [{"name": name, "mimeType": kind, "buffer": data} for name, kind, data in files]
    page.set_input_files("#files", given)


def downloaded(page: Any) -> tuple[str, Path]:
    with page.expect_download() as download:
        page.click(".download")
    return download.value.suggested_filename, Path(download.value.path())


def wait_until_done(page: Any) -> None:
    page.wait_for_selector(".photo:not(.busy) abair-compare:not([hidden])", timeout=20_000)


def test_a_photo_is_dropped_compared_changed_and_downloaded(
    page: Any, live: LiveRestorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(live.restorer._estimator._buffers, "confidence_temperature", torch.ones(()))
    exif = Image.Exif()
    exif[0x010E] = "a cat"
    data = photo_bytes(exif=exif.tobytes())
    drop(page, ("cat.png", "image/png", data))
    wait_until_done(page)

    # the same pixels as the command's, and the metadata
    name, file = downloaded(page)
    (tmp_path / "cat.png").write_bytes(data)
    photo = images.read(tmp_path / "cat.png")
    restored = live.restorer(photo.visible)
    assert name == "cat.restored.png"
    with Image.open(file) as found:
        assert found.getexif()[0x010E] == "a cat"
        assert np.array_equal(np.asarray(found.convert("RGB")), restored.image)

    # how sure it is, where the deployment can tell
    assert restored.confidence is not None
    assert page.locator(".sure").inner_text().endswith(f" {round(100 * restored.confidence)} %")

    # the line is moved by the keyboard and by a finger
    compare = page.locator("abair-compare")
    assert compare.evaluate("e => e.position") == 50
    compare.locator("input").focus()
    page.keyboard.press("ArrowRight")
    assert compare.evaluate("e => e.position") == 50.5
    page.keyboard.press("Home")
    assert compare.evaluate("e => getComputedStyle(e.pair).getPropertyValue('--at')") == "0%"
    box = compare.locator(".pair").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] * 0.75, box["y"] + box["height"] / 2)
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 5)
    page.mouse.up()
    assert compare.evaluate("e => e.position") == pytest.approx(25, abs=2)

    # one pixel of the photo is one of the screen
    page.click(".actual")
    assert compare.locator("img").first.evaluate("e => e.getBoundingClientRect().width * devicePixelRatio") == 64
    page.click(".actual")

    # a weight set by hand restores anew, without another estimate
    with page.expect_request(lambda sent: "weights=" in sent.url) as request:
        page.locator(".rows input").first.fill("80")
    assert "noise%3D0.8" in request.value.url
    page.wait_for_function("() => !document.querySelector('.photo').classList.contains('busy')")
    sliders = page.locator(".rows input").evaluate_all("all => all.map(e => Number(e.value))")
    assert sliders[0] == 80
    assert sum(sliders) <= 100
    _, file = downloaded(page)
    assert not np.array_equal(np.asarray(Image.open(file).convert("RGB")), restored.image)

    # nothing is wrong: the file as it came
    with page.expect_request(lambda sent: "weights=" in sent.url):
        page.click(".clean")
    page.wait_for_function("() => !document.querySelector('.photo').classList.contains('busy')")
    assert downloaded(page)[1].read_bytes() == data


def test_what_a_browser_cannot_show_is_shown_and_comes_back_in_its_format(page: Any) -> None:
    drop(page, ("scan.tif", "image/tiff", photo_bytes(kind="TIFF")))
    wait_until_done(page)
    assert page.locator("img").first.evaluate("e => e.naturalWidth") == 64
    name, file = downloaded(page)
    assert name == "scan.restored.tif"
    assert file.read_bytes()[:2] in {b"II", b"MM"}


def test_an_error_is_shown_beside_its_photo_and_the_others_go_on(page: Any) -> None:
    drop(page, ("notes.txt", "text/plain", b"no photo"), ("cat.jpg", "image/jpeg", photo_bytes(kind="JPEG")))
    page.wait_for_selector('[role="alert"]:not([hidden])')
    assert page.locator('[role="alert"]:not([hidden])').inner_text() == (
        "notes.txt: found text, expected a JPEG, PNG, WebP, TIFF or BMP photo; convert it first"
    )
    wait_until_done(page)
    assert page.locator("#all").is_visible()
    page.click("#remove-all")
    assert page.locator(".photo").count() == 0


def test_an_estimate_that_is_not_followed_is_shown_as_it_was_seen(
    page: Any, live: LiveRestorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hot = torch.full((), 1e6)  # all labels are as likely
    monkeypatch.setitem(live.restorer._estimator._buffers, "confidence_temperature", hot)
    data = photo_bytes()
    with page.expect_response("**/v1/estimate*") as estimated:
        drop(page, ("cat.png", "image/png", data))
    wait_until_done(page)
    weights = estimated.value.json()["weights"]
    assert max(weights, key=weights.get) != "clean", "the fixture sees something"
    seen = page.locator(".seen span").all_inner_texts()
    assert seen == [f"seen: {round(100 * weight)} %" for label, weight in weights.items() if label != "clean"]
    assert {e.input_value() for e in page.locator(".rows input").all()} == {"0"}
    assert "left as it is" in page.locator(".warnings").inner_text()
    assert page.locator(".sure").inner_text().startswith("It is not sure of that: ")
    assert downloaded(page)[1].read_bytes() == data


FOLDER = """([photo, text]) => {
  const file = (name, type, data) => {
    const made = new File([Uint8Array.from(data)], name, { type });
    return { name, isFile: true, file: (done) => done(made) };
  };
  const folder = (name, ...entries) => {
    const parts = [...entries.map((entry) => [entry]), []];
    return { name, isDirectory: true, createReader: () => ({ readEntries: (done) => done(parts.shift()) }) };
  };
  const inside = folder("sub", file("b.png", "image/png", photo), file(".hidden.png", "image/png", photo));
  const entry = folder("in", inside, file("notes.txt", "text/plain", text), file("a.png", "image/png", photo));
  const event = new Event("drop");
  event.dataTransfer = { files: [], items: [{ webkitGetAsEntry: () => entry }] };
  document.dispatchEvent(event);
}"""


def test_a_folder_stands_for_the_photos_in_it(page: Any) -> None:
    page.evaluate(FOLDER, [list(photo_bytes()), list(b"no photo")])
    page.wait_for_function(
        "() => document.querySelectorAll('.photo:not(.busy) abair-compare:not([hidden])').length === 2"
    )
    assert page.locator("h2").all_inner_texts() == ["a.png", "b.png"]
    assert page.locator("#status").inner_text() == "2 photos"


def test_a_file_that_is_gone_is_not_said_to_be_the_servers_fault(page: Any, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(photo_bytes())
    page.set_input_files("#files", tmp_path / "cat.png")
    wait_until_done(page)
    (tmp_path / "cat.png").unlink()
    page.locator(".rows input").first.fill("80")
    page.wait_for_selector('[role="alert"]:not([hidden])')
    assert page.locator('[role="alert"]').inner_text() == "cat.png cannot be read any more. Choose it again."


def test_a_token_is_asked_for(browser: Any, listening: Callable[..., str]) -> None:
    page = browser.new_page()
    page.goto(listening(token="a" * 20))
    page.wait_for_selector("#login:not([hidden])")
    page.fill("#token", "a" * 20)
    page.click("#login button")
    page.wait_for_function("() => document.querySelector('#deployment').textContent === 'tiny-bundle'")
    drop(page, ("cat.png", "image/png", photo_bytes()))
    wait_until_done(page)
    page.close()


CONTROLS = """() => [...document.querySelectorAll('button, input, img, progress, abair-compare')]
  .flatMap(e => e.shadowRoot ? [...e.shadowRoot.querySelectorAll('input')] : [e])
  .filter(e => e.offsetParent !== null)
  .filter(e => !(e.labels?.length || e.getAttribute('aria-label') || e.alt || e.textContent.trim()))
  .map(e => e.outerHTML)"""

CONTRAST = """() => {
  const light = c => { const v = c.match(/[\\d.]+/g).slice(0, 3).map(n => n / 255)
    .map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126*v[0] + 0.7152*v[1] + 0.0722*v[2] };
  const back = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (c !== 'rgba(0, 0, 0, 0)') return c; } return 'rgb(255, 255, 255)' };
  const bad = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.offsetParent === null) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(back(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) bad.push(e.outerHTML.slice(0, 80));
  }
  return bad;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_is_labelled_readable_and_fits_a_phone(page: Any, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason=AXE)
    page.emulate_media(color_scheme=scheme)
    drop(page, ("notes.txt", "text/plain", b"no photo"), ("cat.png", "image/png", photo_bytes(size=(900, 300))))
    wait_until_done(page)
    page.wait_for_selector('[role="alert"]:not([hidden])')
    found = axe.Axe().run(page).response["violations"]
    assert [(one["id"], one["impact"]) for one in found if one["impact"] in {"serious", "critical"}] == []
    assert page.evaluate(CONTROLS) == []
    assert page.evaluate(CONTRAST) == []
    wide = "() => [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > 391)"
    assert page.evaluate(f"{wide}.map(e => e.outerHTML.slice(0, 60))") == []
    small = "all => all.filter(e => e.offsetParent !== null && e.getBoundingClientRect().height < 40).length"
    assert page.locator("button, input[type=range]").evaluate_all(small) == 0
    assert page.evaluate("() => document.documentElement.lang") == "en"
    assert page.locator("h1").count() == 1


def test_the_gallery_moves_its_line_by_the_same_component(browser: Any, tmp_path: Path) -> None:
    from abair.cli.gallery import open_gallery

    source = tmp_path / "a.png"
    source.write_bytes(photo_bytes())
    photo = images.read(source)
    with open_gallery(tmp_path / "look.html") as gallery:
        gallery.add("a.png", photo, 255 - photo.pixels, {"noise": 1.0})
    page = browser.new_page()
    page.goto((tmp_path / "look.html").as_uri())
    compare = page.locator("abair-compare")
    compare.locator("input").focus()
    page.keyboard.press("End")
    assert compare.evaluate("e => getComputedStyle(e.pair).getPropertyValue('--at')") == "100%"
    seen = np.asarray(Image.open(io.BytesIO(compare.locator(".pair").screenshot())).convert("RGB"))
    assert abs(seen.mean() - photo.pixels.mean()) < 12  # before alone is seen
    page.close()


def test_pictures_of_the_page_for_the_documentation_are_small(
    browser: Any, listening: Callable[..., str], request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--update-docs"):
        _take_pictures(browser, listening(served=LiveRestorer("factory")))
    shots = sorted(SHOTS.glob("serve*.jpg"))
    assert [shot.name for shot in shots] == ["serve-phone-dark.jpg", "serve-phone.jpg", "serve.jpg"]
    assert sum(shot.stat().st_size for shot in shots) < 200_000


def _take_pictures(browser: Any, url: str) -> None:
    from abair.data.sample_photos import sample_photos

    photo = sample_photos()["cat"].astype(float)
    noisy = (photo + np.random.default_rng(0).normal(0, 25, photo.shape)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "PNG")
    for name, width, height, scheme in (
        ("serve", 900, 1000, "light"),
        ("serve-phone", 390, 800, "light"),
        ("serve-phone-dark", 390, 800, "dark"),
    ):
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.goto(url)
        drop(page, ("cat.png", "image/png", file.getvalue()))
        page.wait_for_selector(".photo:not(.busy) abair-compare:not([hidden])", timeout=300_000)
        page.locator(".photo").scroll_into_view_if_needed()
        page.evaluate("() => document.querySelector('.photo').scrollIntoView()")
        page.screenshot(path=SHOTS / f"{name}.jpg", type="jpeg", quality=70)
        page.close()
