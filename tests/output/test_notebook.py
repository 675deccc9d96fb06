"""What a notebook shows of a prediction."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vidcls
from tests.clips import make_clip, number_frame, read_number
from vidcls.errors import VideoError
from vidcls.inference.prediction import Prediction
from vidcls.output.notebook import picture_html
from vidcls.output.pictures import png_of
from vidcls.output.row import RankedLabel, Row


def pictures(html: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in found]


def prediction(path: str, label: str = "run", **fields: object) -> Prediction:
    ranked = [
        RankedLabel(rank=1, index=0, label=label, score=0.75),
        RankedLabel(rank=2, index=1, label="walk", score=0.25),
    ]
    known = {"model": "toy", "weights": "toy", "views": 2, "crops": 1, "frames": 8, "stride": 2}
    return Prediction(Row(path=path, **{**known, "predictions": ranked, **fields}).to_dict())  # type: ignore[arg-type]


def test_a_prediction_shows_frames_of_its_file_and_bars(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", 40)
    html = prediction(str(clip))._repr_html_()
    (picture,) = pictures(html)
    assert picture.shape == (72, 6 * 108, 3)
    numbers = [read_number(part) for part in np.split(picture, 6, axis=1)]
    assert numbers == [0, 8, 16, 23, 31, 39]
    assert re.findall(r"width:([\d.]+)%;?\"></div>", html) == ["75.0", "25.0"]
    assert html.index("run") < html.index("75.0%") < html.index("walk")


@pytest.mark.parametrize("path", ["gone.mp4", "https://example.org/a.mp4", r"\\host\share\a.mp4", "-"])
def test_without_a_file_it_does_with_bars(path: str) -> None:
    html = prediction(path)._repr_html_()
    assert pictures(html) == []
    assert "75.0%" in html


def test_what_is_not_a_video_shows_no_frames(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("text")
    assert pictures(prediction(str(tmp_path / "text.mp4"))._repr_html_()) == []


def test_a_failed_clip_says_why(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", 4)
    failed = prediction(str(clip), predictions=[], error="clip.mp4: is <broken>")
    html = failed._repr_html_()
    assert "is &lt;broken&gt;" in html
    assert pictures(html) == []


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", '" onload="x', "a\u202eb", "x\x1b[31m", "\udcff"]
)
def test_text_of_strangers_is_text(text: str) -> None:
    class Tags(HTMLParser):
        found: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.found += [tag, *(name for name, _ in attrs if name != "style")]

    html = prediction(text, text, model=text, warnings=[text])._repr_html_()
    tags = Tags()
    tags.found = []
    tags.feed(html)
    assert set(tags.found) == {"div", "span", "aria-hidden"}
    assert not re.search("[\u202a-\u202e\x1b\udc00-\udfff]", html)


def test_a_picture_with_hostile_texts() -> None:
    picture = Image.new("RGB", (2, 2))
    html = picture_html('"><script>', picture, '" onerror="alert(1)')
    assert "<script" not in html
    assert 'alt="&quot; onerror=&quot;alert(1)"' in html
    assert base64.b64encode(png_of(picture)).decode() in html


def test_an_explanation_shows_its_contact_sheet() -> None:
    from vidcls.explain.explanation import Explanation

    frames = np.stack([number_frame(number, 64, 64) for number in range(4)])[None]
    heat = np.full((1, 2, 4, 4), 1 / 32, np.float32)
    found = Explanation(
        "a<b.mp4", "toy", "rollout", "run & jump", 0, 0.75, heat, frames, np.arange(4.0)[None]
    )
    html = found._repr_html_()
    assert "a&lt;b.mp4" in html
    assert "run &amp; jump, 75.0%" in html
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    shown, drawn = (
        np.asarray(one.convert("RGB"))
        for one in (Image.open(io.BytesIO(base64.b64decode(data))), found.plot())
    )
    np.testing.assert_array_equal(shown, drawn)


def test_frames_in_memory_are_shown_as_they_were() -> None:
    frames = np.stack([number_frame(number, 96, 144) for number in range(32)])
    with vidcls.load() as model:
        found = model.predict(frames)
        (picture,) = pictures(found._repr_html_())
        assert found.preview is not None
        width = picture.shape[1] // len(found.preview)
        numbers = [read_number(picture[:, at : at + width]) for at in range(0, picture.shape[1], width)]
        assert len(numbers) == 6
        assert numbers == sorted(numbers)
        assert next(iter(model.predict_many([frames]))).preview is None


def test_a_failed_prediction_of_a_model(tmp_path: Path) -> None:
    with vidcls.load() as model:
        found = model.failed("a.mp4", VideoError("a.mp4", "no such file", "check the path"))
    assert "no such file; check the path" in found._repr_html_()
