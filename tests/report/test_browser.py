"""The page in a real browser: what can be clicked, typed, heard and seen, wide and narrow, light and dark."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.clips import make_clip
from tests.report.browser import Visit, chromium, needs_browser
from tests.report.rows import LABELS, failed_row, random_rows, row_of, write_evaluation, write_rows
from tests.report.test_page import HOSTILE
from vidcls.report.page import make_page

pytestmark = needs_browser

Open = Callable[..., Visit]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def visit(browser: Any) -> Iterator[Open]:
    opened: list[Visit] = []

    def start(path: Path, **context: Any) -> Visit:
        opened.append(Visit(browser, path, **context))
        return opened[-1]

    yield start
    for one in opened:
        one.close()
        assert one.wrong == []


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 120 clips, three of which have frames and can be played, and one error."""
    folder = tmp_path_factory.mktemp("evaluation")
    rows = random_rows(120)
    for number in range(3):
        clip = make_clip(folder / f"clip {number}.webm", 20, codec="libvpx-vp9")
        rows[number] = {**rows[number], "path": str(clip)}
    truths = [LABELS[number % 4] for number in range(120)]
    truths[0] = truths[4] = "walk"  # were jump
    write_evaluation(folder / "set", [*rows, failed_row("gone.mp4")], [*truths, "run"])
    make_page(folder / "set", folder / "page.html")
    return folder / "page.html"


@pytest.fixture(scope="module")
def timelines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two timelines: of a video beside it, and of one that is gone."""
    folder = tmp_path_factory.mktemp("timelines")
    make_clip(folder / "film.webm", 100, codec="libvpx-vp9")
    spans = [(0, 1.5, "run"), (1.5, 3, "walk"), (3.2, 4, "run")]
    segments = [
        {
            "start": start,
            "end": end,
            "label": label,
            "score": 0.8,
            "predictions": [{"label": label, "score": 0.8}],
        }
        for start, end, label in spans
    ]
    film = {"path": str(folder / "film.webm"), "duration": 4.0, "segments": segments, "cuts": [1.5]}
    gone = {"path": "gone.mp4", "segments": [], "error": "gone.mp4: no such file"}
    (folder / "timeline.json").write_text(json.dumps([film, gone]))
    make_page(folder / "timeline.json", folder / "page.html")
    return folder / "page.html"


def eventually(page: Any, condition: str) -> None:
    """Wait for a condition; Playwright's own way is what the page's policy forbids."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never: {condition}")


def names(page: Any) -> list[str]:
    return page.locator("#clips tbody .name").all_text_contents()


def test_tabs_by_keyboard(visit: Open, evaluation: Path) -> None:
    page = visit(evaluation).page
    tabs = page.get_by_role("tab")
    titles = ["Summary", "Clips120", "Errors1", "Confusion matrix", "Classes", "Confident errors2"]
    assert tabs.all_text_contents() == titles
    tabs.first.focus()
    for title in [*titles[1:], titles[0]]:
        page.keyboard.press("ArrowRight")
        chosen = page.locator('[role="tab"][aria-selected="true"]')
        assert chosen.all_text_contents() == [title]
        assert page.evaluate("document.activeElement.textContent") == title
        panels = page.locator('[role="tabpanel"]:visible')
        assert panels.count() == 1
        assert panels.get_attribute("aria-labelledby") == chosen.get_attribute("id")
    page.keyboard.press("End")
    assert page.url.endswith("#/worst")
    page.reload()
    assert page.get_by_role("tab", selected=True).text_content() == titles[-1]


def test_sorting_and_filtering(visit: Open, evaluation: Path) -> None:
    page = visit(evaluation).page
    page.get_by_role("tab", name="Clips").click()
    first = names(page)
    assert len(first) == 50
    score = page.locator("#clips th", has_text="Score")
    for direction, sign in (("descending", -1), ("ascending", 1)):
        score.get_by_role("button").click()
        assert score.get_attribute("aria-sort") == direction
        shown = [
            float(text.rstrip("%"))
            for text in page.locator("#clips tbody .score .number").all_text_contents()
        ]
        assert shown == sorted(shown, key=lambda one: sign * one)
    score.get_by_role("button").click()
    assert score.get_attribute("aria-sort") is None
    assert names(page) == first
    page.get_by_label("True label").select_option("3")
    status = page.locator("#clips").get_by_role("status")
    assert status.text_content() == "32 of 120 clips"
    page.get_by_label("Result").select_option("wrong")
    assert status.text_content() == "2 of 120 clips"
    assert names(page) == ["clip 0.webm", "00004.mp4"]
    page.get_by_label("Search").fill("nothing like it")
    assert page.get_by_text("No clip matches these filters.").is_visible()
    page.get_by_label("Result").select_option("")
    page.get_by_label("True label").select_option("")
    page.get_by_label("Search").fill("CLIPS 0011")
    assert names(page) == ["00011.mp4", *(f"{number:05d}.mp4" for number in range(110, 120))]


def test_pages_of_rows(visit: Open, evaluation: Path) -> None:
    page = visit(evaluation).page
    page.get_by_role("tab", name="Clips").click()
    pager = page.get_by_role("navigation", name="Pages of clips")
    assert pager.locator("span").text_content() == "1–50 of 120"
    assert pager.get_by_role("button", name="Previous").is_disabled()
    pager.get_by_role("button", name="Next").press("Enter")
    assert page.evaluate("document.activeElement.textContent") == "Next"
    page.keyboard.press("Enter")
    assert pager.locator("span").text_content() == "101–120 of 120"
    assert names(page)[-1] == "00119.mp4"
    assert page.evaluate("document.activeElement.textContent") == "First"  # Next leads nowhere any more
    page.keyboard.press("Enter")
    assert names(page)[0] == "clip 0.webm"


def test_a_clip_opens_by_keyboard_and_gives_the_focus_back(visit: Open, evaluation: Path) -> None:
    page = visit(evaluation).page
    page.get_by_role("tab", name="Clips").click()
    page.get_by_role("button", name="clip 1.webm").press("Enter")
    dialog = page.get_by_role("dialog")
    assert dialog.get_by_role("heading").first.text_content() == "clip 1.webm"
    assert page.evaluate("document.activeElement.closest('dialog') !== null")
    assert dialog.get_by_role("img").count() == 12  # the model is not known, and so its views are not
    assert dialog.get_by_role("img").first.get_attribute("aria-label") == "Frame at 0.00 seconds"
    widths = page.evaluate("[...document.querySelectorAll('dialog .frame img')].map(one => one.naturalWidth)")
    assert widths == [12 * 108] * 12
    assert dialog.locator(".bars li").count() == 4
    dialog.get_by_role("button", name="Next").focus()
    page.keyboard.press("ArrowRight")
    assert dialog.get_by_role("heading").first.text_content() == "clip 2.webm"
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert page.evaluate("document.activeElement.textContent") == "clip 1.webm"
    page.locator("#clips tbody tr").nth(4).click()  # a row anywhere
    assert dialog.get_by_role("heading").first.text_content() == "00004.mp4"
    dialog.get_by_text("true label walk").wait_for()


def test_a_video_beside_the_page_plays(visit: Open, evaluation: Path) -> None:
    found = visit(evaluation)
    found.page.get_by_role("tab", name="Clips").click()
    found.page.get_by_role("button", name="clip 0.webm").click()
    eventually(found.page, "document.querySelector('dialog video').readyState >= 2")
    assert found.page.evaluate("document.querySelector('dialog video').duration") == pytest.approx(
        0.8, abs=0.1
    )
    found.page.evaluate("document.querySelector('dialog video').play()")
    eventually(found.page, "document.querySelector('dialog video').currentTime > 0.1")
    assert {address.rpartition("/")[2] for address in found.answered} == {"clip%200.webm"}


def test_a_video_that_went_away_is_said(visit: Open, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.webm", 5, codec="libvpx-vp9")
    source = write_rows(tmp_path / "a.jsonl", [row_of(str(clip), [0.9, 0.1])])
    make_page(source, tmp_path / "page.html")
    clip.unlink()
    found = visit(tmp_path / "page.html")
    found.page.get_by_role("tab", name="Clips").click()
    found.page.get_by_role("button", name="a.webm").click()
    found.page.get_by_text("This browser cannot play the video").wait_for()
    found.wrong = [text for text in found.wrong if "ERR_FILE_NOT_FOUND" not in text]


def test_cells_of_the_confusion_matrix_lead_to_their_clips(visit: Open, evaluation: Path) -> None:
    page = visit(evaluation).page
    page.get_by_role("tab", name="Confusion matrix").click()
    cell = page.get_by_role("button", name="jump predicted as jump: 28 clips")
    cell.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowUp", "ArrowDown"):
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement.ariaLabel") == "walk predicted as jump: 2 clips"
    page.keyboard.press("ArrowDown")  # the last row
    page.keyboard.press("Enter")
    assert page.get_by_role("tab", selected=True).text_content() == "Clips120"
    assert names(page) == ["clip 0.webm", "00004.mp4"]
    page.get_by_role("tab", name="Confusion matrix").click()
    page.get_by_role("button", name="run", exact=True)
    page.locator(".pairs tbody tr").first.click()
    assert names(page) == ["clip 0.webm", "00004.mp4"]


def test_classes_and_their_means(visit: Open, evaluation: Path) -> None:
    page = visit(evaluation).page
    page.get_by_role("tab", name="Classes").click()
    panel = page.locator("#classes")
    assert panel.locator("thead button").all_text_contents() == [
        "Label",
        "Support",
        "Recall",
        "Precision",
        "F1",
    ]
    rows = [row.locator("td").all_text_contents() for row in panel.locator("tbody tr").all()]
    assert [row for row in rows if row[0] == "jump"] == [["jump", "28", "100.0%", "93.3%", "96.6%"]]
    assert [row[0] for row in rows[:2]] == ["jump", "walk"]  # the lowest F1 first
    assert panel.locator("tfoot").text_content().startswith("Macro mean98.4%98.3%98.3%Weighted mean98.3%")
    panel.get_by_role("button", name="walk").click()
    assert page.locator("#clips").get_by_role("status").text_content() == "32 of 120 clips"


def test_confident_errors_come_by_their_score(visit: Open, evaluation: Path) -> None:
    page = visit(evaluation).page
    page.get_by_role("tab", name="Confident errors").click()
    sheets = page.locator(".sheet")
    scores = [float(text.split()[-1].rstrip("%")) for text in sheets.locator(".bad").all_text_contents()]
    assert len(scores) == 2
    assert scores == sorted(scores, reverse=True)
    assert sheets.filter(has_text="clip 0.webm").locator(".frame").count() == 8
    sheets.filter(has_text="clip 0.webm").get_by_role("button").click()
    assert page.get_by_role("dialog").get_by_text("true label walk").is_visible()


def test_bars_of_the_summary_lead_to_their_clips(visit: Open, evaluation: Path) -> None:
    page = visit(evaluation).page
    page.locator("#summary").get_by_role("button", name="swim").click()
    assert page.locator("#clips").get_by_role("status").text_content() == "30 of 120 clips"
    page.get_by_role("tab", name="Summary").click()
    page.locator("#summary").get_by_role("button", name="not_found").click()
    assert page.locator("#errors").get_by_role("status").text_content() == "1 clip"
    assert page.locator("#errors tbody").text_content() == "gone.mp4not_foundno such file"


def test_hostile_names_are_text(visit: Open, tmp_path: Path) -> None:
    rows = [row_of(text, [0.6, 0.4], (text, "other"), warnings=[text]) for text in HOSTILE]
    rows += [failed_row(text, text, text) for text in (f"x{text}" for text in HOSTILE)]
    name = "<img src=x onerror=alert(2)>.jsonl" if os.name == "posix" else "a.jsonl"
    make_page(write_rows(tmp_path / name, rows), tmp_path / "page.html")
    found = visit(tmp_path / "page.html")
    page = found.page
    page.get_by_role("tab", name="Clips").click()
    shown = page.locator("#clips tbody td:first-child").all_text_contents()
    assert len(shown) == len(HOSTILE)
    assert any("alert(1)" in text for text in shown)
    assert any("\\u202e" in text for text in shown)
    for number in range(len(HOSTILE)):
        page.locator("#clips tbody tr").nth(number).locator("button").click()
        page.keyboard.press("Escape")
    page.get_by_role("tab", name="Errors").click()
    assert page.locator("#errors tbody tr").count() == len(HOSTILE)
    assert page.locator("img, iframe, object, embed, a:not(.skip)").count() == 0
    assert page.evaluate("typeof hacked") == "undefined"
    assert found.answered == []


def test_a_clip_or_film_without_a_name_leaves_the_page_whole(visit: Open, tmp_path: Path) -> None:
    rows = [row_of("", [0.9, 0.1, 0, 0]), row_of("__proto__", [0.9, 0.1, 0, 0])]
    make_page(write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "page.html")
    page = visit(tmp_path / "page.html").page
    page.get_by_role("tab", name="Clips").click()
    assert page.locator("#clips tbody tr").count() == 2
    film = {"path": "", "duration": 2.0, "segments": [{"start": 0, "end": 2, "label": "a", "score": 1}]}
    (tmp_path / "film.json").write_text(json.dumps([film]))
    make_page(tmp_path / "film.json", tmp_path / "film.html")
    assert visit(tmp_path / "film.html").page.locator(".film.card").count() == 1


def test_the_policy_stops_what_is_not_ours(visit: Open, evaluation: Path) -> None:
    found = visit(evaluation)
    stopped = found.page.evaluate(
        """async () => {
            const seen = new Set();
            document.addEventListener("securitypolicyviolation", (event) => seen.add(event.effectiveDirective));
            const tried = [];
            const attempt = (work) => { try { work(); } catch (error) { tried.push(error.name); } };
            const script = document.createElement("script");
            attempt(() => document.body.append(Object.assign(script, { text: "hacked = 1" })));
            attempt(() => (document.createElement("div").innerHTML = "<b>x</b>"));
            const image = document.createElement("img");
            image.src = "https://example.org/x.png";
            document.body.append(image);
            const frame = document.createElement("iframe");
            frame.src = "https://example.org/";
            document.body.append(frame);
            await fetch("https://example.org/").catch(() => tried.push("fetch"));
            await new Promise((done) => setTimeout(done, 200));
            return { seen: [...seen], tried, hacked: typeof hacked };
        }"""
    )
    assert stopped["hacked"] == "undefined"
    assert {"img-src", "frame-src", "connect-src"} <= set(stopped["seen"])
    assert stopped["tried"].count("TypeError") == 2
    assert not [address for address in found.answered if address.startswith("http")]
    found.wrong.clear()  # the console speaks of each


def test_timelines_are_scrubbed(visit: Open, timelines: Path) -> None:
    page = visit(timelines).page
    films = page.locator(".film")
    assert films.count() == 2
    assert "no such file" in str(films.nth(1).text_content())
    slider = films.first.get_by_role("slider")
    assert slider.get_attribute("aria-valuetext") == "0:00.0: run, 80.0%"
    slider.focus()
    page.keyboard.press("End")
    assert slider.get_attribute("aria-valuetext") == "0:04.0: no label"
    box = films.first.locator(".segments").bounding_box()
    page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 20)
    assert slider.get_attribute("aria-valuetext") == "0:02.0: walk, 80.0%"
    assert "walk" in str(films.first.locator(".readout").text_content())
    eventually(page, "Math.abs(document.querySelector('video').currentTime - 2) < 0.1")
    films.first.locator("summary").click()
    films.first.get_by_role("button", name="0:03.2 – 0:04.0").click()
    assert slider.get_attribute("aria-valuetext") == "0:03.2: run, 80.0%"
    widths = films.first.locator(".segment").evaluate_all(
        "all => all.map(one => one.offsetWidth / one.parentElement.offsetWidth)"
    )
    assert widths == pytest.approx([1.5 / 4, 1.5 / 4, 0.8 / 4], abs=0.01)
    assert page.evaluate("document.querySelector('.filmstrip img').naturalWidth") > 900


CONTRAST = """() => {
  const rgba = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return [n[0], n[1], n[2], n[3] ?? 1]; };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
  const back = (element) => {
    if (!element) return [255, 255, 255];
    const color = rgba(getComputedStyle(element).backgroundColor);
    return color[3] === 1 ? color.slice(0, 3) : over(color, back(element.parentElement));
  };
  const light = (color) => {
    const [r, g, b] = color.map((c) => ((c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    const passed = "option, svg, .zero, :disabled, .hidden, .skip, script";
    if (!node.textContent.trim() || !element.checkVisibility() || element.closest(passed)) continue;
    const style = getComputedStyle(element);
    const below = back(element);
    const pair = [light(over(rgba(style.color), below)), light(below)].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    const large = parseFloat(style.fontSize) >= 24;
    if (ratio < (large ? 3 : 4.5)) bad.push(`${node.textContent.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return bad;
}"""


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_tab_can_be_read_and_fits(
    visit: Open, evaluation: Path, timelines: Path, scheme: Any, width: int
) -> None:
    for path in (evaluation, timelines):
        page = visit(path, color_scheme=scheme, viewport={"width": width, "height": 800}).page
        for tab in page.get_by_role("tab").all():
            tab.click()
            assert page.evaluate(CONTRAST) == [], tab.text_content()
            wide = page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            assert wide == 0, tab.text_content()
            unnamed = page.evaluate(
                "[...document.querySelectorAll('button, input, select, video')].filter(one => one.checkVisibility() && "
                "!(one.ariaLabel || one.textContent.trim() || one.labels?.length)).length"
            )
            assert unnamed == 0
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (np.mean([int(part) for part in background[4:-1].split(",")]) > 128) == (scheme == "light")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_cells_of_every_shade_can_be_read(visit: Open, tmp_path: Path, scheme: Any) -> None:
    rows, truths = [], []
    for number in range(400):
        truth = number // 100
        right = number % 100 < (20, 45, 55, 80)[truth]
        rows.append(row_of(f"{number}.mp4", np.eye(4)[truth if right else (truth + 1) % 4].tolist()))
        truths.append(LABELS[truth])
    make_page(write_evaluation(tmp_path / "set", rows, truths), tmp_path / "page.html", thumbnails=0)
    page = visit(tmp_path / "page.html", color_scheme=scheme).page
    assert page.evaluate("scrollY") == 0
    page.get_by_role("tab", name="Confusion matrix").click()
    assert page.locator(".cell:not(.zero)").all_text_contents() == [
        "20",
        "80",
        "45",
        "55",
        "55",
        "45",
        "20",
        "80",
    ]
    assert page.evaluate(CONTRAST) == []


def test_without_scripts_the_summary_stays(visit: Open, evaluation: Path) -> None:
    page = visit(evaluation, java_script_enabled=False).page
    assert page.get_by_role("heading", name="Predicted labels").is_visible()


def test_ten_thousand_clips(visit: Open, tmp_path: Path) -> None:
    rows = []
    for number in range(10_000):
        scores = [0.9 - number / 20_000, 0.1, 0.05, 0.02, 0.01]
        labels = [f"label {(number + rank) % 400}" for rank in range(5)]
        rows.append(row_of(f"folder/{number % 100:02d}/{number:05d}.mp4", scores, labels))
    make_page(write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "page.html", thumbnails=0)
    assert (tmp_path / "page.html").stat().st_size < 3_000_000
    page = visit(tmp_path / "page.html").page
    page.get_by_role("tab", name="Clips").click()
    assert page.locator("#clips tbody tr").count() == 50
    assert page.evaluate("document.querySelectorAll('*').length") < 5000
    page.locator("#clips th", has_text="Score").get_by_role("button").click()
    page.locator("#clips th", has_text="Score").get_by_role("button").click()
    assert names(page)[0] == "09999.mp4"
    page.get_by_label("Search").fill("09998")
    assert names(page) == ["09998.mp4"]
