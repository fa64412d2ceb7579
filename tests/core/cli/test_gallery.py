"""`abair restore --page`: photos before and after on one HTML page."""

from __future__ import annotations

import base64
import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.core.cli.conftest import Abair, FakeRestorer, files, photo


def test_a_page_shows_all_photos_before_and_after(abair: Abair, restorer: FakeRestorer) -> None:
    photo("a <b>.png", size=(1500, 30))
    Image.fromarray(np.full((9, 12), 40_000, np.uint16)).save("deep.png")
    Path("broken.png").write_bytes(b"no photo")
    done = abair("restore", "a <b>.png", "broken.png", "deep.png", "-o", "fixed", "--page", "seen/page.html")
    assert done.code == 1
    assert len(done.err) == 1
    text = Path("seen/page.html").read_text()
    assert files("seen") == ["page.html"]
    assert [name in text for name in ("a &lt;b&gt;.png", "deep.png", "broken.png")] == [True, True, False]
    assert text.count("noise 0.75, blur 0.25") == 2
    shown = [Image.open(io.BytesIO(base64.b64decode(part))) for part in re.findall(r"base64,([^\"]+)", text)]
    assert [picture.size for picture in shown] == [(1200, 24)] * 2 + [(12, 9)] * 2
    assert text.count("shown at 80% of its size") == 1
    # 40,000 of 65,535 is 155.6 of 255; the restorer inverts
    assert [np.asarray(picture).mean().round() for picture in shown[2:]] == pytest.approx([156, 99], abs=1)
    # nothing else is needed to see it, and a second page replaces it only when that was said
    assert re.findall(r"(?:src|href)=\"(?!data:)", text) == []
    assert abair("restore", "deep.png", "-o", "again", "--page", "seen/page.html").code == 2
    assert abair("restore", "deep.png", "-o", "again", "--page", "seen/page.html", "--overwrite").code == 0


def test_a_page_keeps_the_profile_and_goes_with_json_and_strange_names(abair: Abair, restorer: FakeRestorer) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    strange = os.fsdecode(b"caf\xe9.png")
    Image.fromarray(np.full((4, 5, 3), 90, np.uint8)).save("a.png", icc_profile=profile)
    Path("a.png").replace(strange)
    done = abair("restore", strange, "-o", "b.png", "--page", "p.html", "--json")
    assert (done.code, len(done.records), done.err) == (0, 1, [])
    text = Path("p.html").read_text(encoding="utf-8")
    assert "caf\\udce9.png" in text
    before = Image.open(io.BytesIO(base64.b64decode(re.findall(r"base64,([^\"]+)", text)[0])))
    assert before.info["icc_profile"] == profile
