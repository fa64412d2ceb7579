"""The HTTP API: what it answers, and what it refuses."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient
from tests.core.serving.conftest import photo_bytes

from abair import images
from abair.batch.photo import Choices, restore_photo
from abair.serving.app import create_app
from abair.serving.live import LiveRestorer
from abair.serving.options import Limits

RESULT, DEPLOYMENT = "ABAIR-Result", "ABAIR-Deployment"


def problem(answer: Any, status: int) -> str:
    """The detail of an answer that must be a problem with this status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers[DEPLOYMENT] == "tiny-bundle"
    found = answer.json()
    assert set(found) == {"type", "title", "status", "detail", "error"}
    assert found["status"] == status
    assert "\n" not in found["detail"]
    return found["detail"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
def test_an_answer_is_byte_for_byte_the_command_s(
    server: TestClient, live: LiveRestorer, tmp_path: Path, kind: str
) -> None:
    data = photo_bytes(kind=kind)
    answer = server.post("/v1/restore", content=data)
    assert answer.status_code == 200, answer.text
    (tmp_path / "photo").write_bytes(data)
    photo = images.read(tmp_path / "photo")
    target = tmp_path / f"out{images.output_suffix(photo.format)}"
    restored = live.restorer(photo.visible)
    images.write(target, images.finish(photo, restored.image), source=tmp_path / "photo")
    assert answer.content == target.read_bytes()
    assert answer.headers["content-type"] == f"image/{kind.lower()}"
    record = json.loads(answer.headers[RESULT])
    assert record["weights"] == {label: round(weight, 6) for label, weight in restored.weights.items()}
    assert record["deployment"] == answer.headers[DEPLOYMENT] == "tiny-bundle"


def test_an_answer_says_all_that_the_command_s_json_line_says(
    server: TestClient, live: LiveRestorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(live.restorer._estimator._buffers, "confidence_temperature", torch.ones(()))
    (tmp_path / "photo.png").write_bytes(photo_bytes())
    expected = restore_photo(
        live.restorer, tmp_path / "photo.png", tmp_path / "out.png", Choices(), keep_format=True, overwrite=False
    )
    told = json.loads(server.post("/v1/restore", content=photo_bytes()).headers[RESULT])
    assert 0 < told["confidence"] <= 1
    assert told | {"seconds": 0} == {k: v for k, v in expected.items() if k not in {"input", "output"}} | {"seconds": 0}
    estimated = server.post("/v1/estimate", content=photo_bytes()).json()
    assert {name: estimated[name] for name in ("deployment", "weights", "confidence", "unknown", "megapixels")} == {
        name: told[name] for name in ("deployment", "weights", "confidence", "unknown", "megapixels")
    }


def test_a_form_and_a_body_give_the_same_and_options_come_either_way(server: TestClient) -> None:
    data = photo_bytes()
    by_query = server.post("/v1/restore?weights=noise=0.5&strength=0.5&format=jpeg&jpeg_quality=60", content=data)
    fields = {"weights": "noise=0.5", "strength": "0.5", "format": "jpeg", "jpeg_quality": "60"}
    by_form = server.post("/v1/restore", files={"file": ("a.png", data)}, data=fields)
    assert by_query.content == by_form.content
    assert Image.open(io.BytesIO(by_query.content)).format == "JPEG"
    record = json.loads(by_form.headers[RESULT])
    assert (record["policy"], record["weights"]["noise"], record["weights"]["clean"]) == ("given", 0.25, 0.75)


def test_deep_transparent_photos_keep_their_depth_and_metadata(server: TestClient) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a cat"
    file = io.BytesIO()
    Image.fromarray(np.full((9, 12), 40_000, np.uint16)).save(file, "PNG", exif=exif.tobytes())
    found = Image.open(io.BytesIO(server.post("/v1/restore", content=file.getvalue()).content))
    assert found.mode.startswith("I")
    assert found.getexif()[0x010E] == "a cat"


def test_the_estimate_and_the_deployment_are_told(server: TestClient, live: LiveRestorer) -> None:
    found = server.post("/v1/estimate", files={"file": ("a.png", photo_bytes())}).json()
    assert sum(found["weights"].values()) == pytest.approx(1, abs=1e-4)
    assert list(found["weights"]) == list(live.restorer.labels)
    assert found["megapixels"] == 64 * 48 / 1e6
    told = server.get("/v1/deployment").json()
    assert (told["deployment"], told["labels"]) == ("tiny-bundle", list(live.restorer.labels))
    assert server.get("/healthz").json() == {"status": "ok", "deployment": "tiny-bundle"}
    assert server.get("/readyz").json()["status"] == "ready"


def test_metrics_count_requests_stages_labels_and_the_queue(server: TestClient) -> None:
    server.post("/v1/restore", content=photo_bytes())
    server.get("/nowhere")
    text = server.get("/metrics").text
    for line in (
        'abair_requests_total{route="/v1/restore",status="200"} 1.0',
        'abair_requests_total{route="other",status="404"} 1.0',
        'abair_stage_seconds_count{stage="restore"} 1.0',
        "abair_megapixels_total 0.003072",
        'abair_deployment_info{name="tiny-bundle"} 1.0',
        "abair_queue_waiting 0.0",
    ):
        assert line in text.splitlines(), text
    assert "abair_label_total{" in text


def test_what_is_wrong_is_said_in_the_command_s_words(server: TestClient) -> None:
    def said(query: str = "", content: bytes = b"no photo", name: str = "a.png", status: int = 422) -> str:
        return problem(server.post(f"/v1/restore{query}", files={"file": (name, content)}), status)

    expected = "expected a JPEG, PNG, WebP, TIFF or BMP photo"
    assert said() == f"a.png: found text, {expected}; convert it first"
    assert said(content=b"") == f"a.png: found an empty file, {expected}; copy it again from its source"
    assert said(name="../../etc/passwd.png").startswith("passwd.png: ")
    assert said(name="C:\\dir\\b.png").startswith("b.png: ")
    good = photo_bytes()
    assert said("?weights=fog=1", good).startswith("weights: unknown label fog; expected some of noise")
    assert "expected label=number" in said("?weights=noise", good)
    assert "found a sum of 1.5" in said("?weights=noise=1,rain=0.5", good)
    assert "policy cannot be used with weights" in said("?weights=noise=1&policy=soft", good)
    assert "looks by estimates" in said("?looks=2&weights=noise=1", good)
    assert said("?looks=9", good) == "looks: found '9', expected less than or equal to 3"
    assert said("?strength=2", good) == "strength: found '2', expected less than or equal to 1"
    assert "there is no such setting" in said("?stregth=1", good)
    assert problem(server.get("/v1/nowhere"), 404).startswith("/v1/nowhere: found nothing there")
    assert "found the method GET" in problem(server.get("/v1/restore"), 405)
    assert "no file named file" in problem(server.post("/v1/restore", files={"photo": ("a.png", good)}), 422)
    broken = server.post("/v1/restore", content=b"x", headers={"content-type": "multipart/form-data"})
    assert "cannot be read" in problem(broken, 400)
    small = TestClient(create_app(server.app.state.context.live, Limits(max_megapixels=0.001)))
    with small:
        assert "expected at most 0.001 megapixels" in problem(small.post("/v1/restore", content=good), 422)


PART = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\nphoto\r\n'
FIELD = b'--x\r\nContent-Disposition: form-data; name="strength"\r\n\r\n1\r\n'
END = b"--x--\r\n"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 422, "no file named file"),
        (b"no form at all", 400, "cannot be read"),
        (PART + PART + END, 400, "Too many files"),
        (FIELD * 17 + PART + END, 400, "Too many fields"),
        (FIELD.replace(b"1\r\n", b"1" * 5000 + b"\r\n") + PART + END, 400, "maximum size"),
        (PART.replace(b'form-data; name="file"; ', b"form-data; ") + END, 400, "cannot be read"),
        (PART.replace(b"Content-Disposition", b"Content-Something") + END, 400, "cannot be read"),
        (PART.replace(b'; filename="a.png"', b"") + END, 422, "no file named file"),
        (FIELD.replace(b"strength", b"strenght") + PART + END, 422, "strenght: found '1'; there is no such setting"),
        (FIELD.replace(b"1\r\n", b"much\r\n") + PART + END, 422, "strength: found 'much', expected a valid number"),
        (PART.replace(b"photo", b"") + END, 422, "a.png: found an empty file"),
        (PART.replace(b"a.png", b"\xff\x00\xfe.png") + END, 422, ".png: found text"),
    ],
)
def test_a_form_that_is_wrong_is_said_and_is_nothing_unexpected(
    live: LiveRestorer, body: bytes, status: int, words: str
) -> None:
    logged: list[Exception] = []
    with TestClient(create_app(live, Limits(), log_error=logged.append), raise_server_exceptions=False) as server:
        kind = {"content-type": "multipart/form-data; boundary=x"}
        assert words in problem(server.post("/v1/restore", content=body, headers=kind), status)
        assert list(server.app.state.context.folder.iterdir()) == []
    assert logged == []


@pytest.mark.parametrize("kind", ["application/json", "text/plain; charset=nonsense", "multipart", ""])
def test_a_body_is_taken_as_the_photo_whatever_it_is_said_to_be(server: TestClient, kind: str) -> None:
    assert server.post("/v1/estimate", content=photo_bytes(), headers={"content-type": kind}).status_code == 200


def test_head_is_answered_as_get_and_what_a_route_lacks_is_said(server: TestClient) -> None:
    for route in ("/", "/static/page.css", "/healthz", "/readyz", "/v1/deployment", "/openapi.json"):
        got, head = server.get(route), server.head(route)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == got.headers["content-length"] == str(len(got.content))
    assert server.head("/metrics").status_code == 200
    assert server.head("/v1/restore").status_code == 405
    asked = server.options("/v1/restore")
    assert "found the method OPTIONS" in problem(asked, 405)
    assert asked.headers["allow"] == "POST"


def test_a_body_above_the_limit_is_refused_however_it_comes(live: LiveRestorer) -> None:
    with TestClient(create_app(live, Limits(max_body=10_000))) as server:
        for content in (b"x" * 10_001, iter([b"x" * 6000] * 2)):  # with a length, and in chunks
            assert "expected at most 0.0 MB" in problem(server.post("/v1/restore", content=content), 413)
        answer = server.post("/v1/restore", files={"file": ("a.png", b"x" * 10_001)})
        assert "expected at most" in problem(answer, 413)
        folder = server.app.state.context.folder
        assert list(folder.iterdir()) == []
    assert not folder.exists()


def test_a_token_is_needed_where_one_is_set_and_health_is_open(live: LiveRestorer) -> None:
    with TestClient(create_app(live, Limits(), token="correct-horse-battery")) as server:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic correct-horse-battery"}):
            answer = server.post("/v1/restore", content=photo_bytes(), headers=headers)
            assert "Authorization: Bearer TOKEN" in problem(answer, 401)
            assert answer.headers["www-authenticate"] == "Bearer"
        assert server.get("/metrics").status_code == server.get("/v1/deployment").status_code == 401
        assert server.get("/healthz").status_code == server.get("/").status_code == 200
        right = {"Authorization": "Bearer correct-horse-battery"}
        assert server.post("/v1/estimate", content=photo_bytes(), headers=right).status_code == 200


def test_an_estimate_takes_no_options_in_the_query_or_in_the_form(server: TestClient) -> None:
    assert "strength" in problem(server.post("/v1/estimate?strength=3", content=photo_bytes()), 422)
    files, fields = {"file": ("a.png", photo_bytes())}, {"weights": "noise=1"}
    assert "weights" in problem(server.post("/v1/estimate", files=files, data=fields), 422)
    assert server.post("/v1/estimate", files=files).status_code == 200


def test_other_hosts_and_pages_of_other_sites_are_refused(live: LiveRestorer) -> None:
    with TestClient(create_app(live, Limits(), names={"localhost"}), base_url="http://localhost") as server:
        assert server.get("/healthz", headers={"Host": "localhost:8000"}).status_code == 200
        assert "--allow-host" in problem(server.get("/healthz", headers={"Host": "evil.example"}), 421)
        foreign = server.post("/v1/restore", content=photo_bytes(), headers={"Origin": "https://evil.example"})
        assert "expected one from this server's page" in problem(foreign, 403)
        own = server.post("/v1/restore", content=photo_bytes(), headers={"Origin": "http://localhost"})
        assert own.status_code == 200
        without_origin = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
        problem(server.get("/v1/deployment", headers=without_origin), 403)
        assert server.get("/", headers=without_origin | {"Sec-Fetch-Mode": "navigate"}).status_code == 200


def test_the_page_and_its_files_are_served_and_nothing_else(server: TestClient) -> None:
    page = server.get("/")
    assert "default-src 'none'; script-src 'self'" in page.headers["content-security-policy"]
    for name in ("page.css", "page.js", "photo-card.js", "compare.js", "icon.svg"):
        assert f"static/{name}" in page.text
        assert server.get(f"/static/{name}").status_code == 200
    for name in ("index.html", "..%2f__init__.py", "../app.py", "%2fetc%2fhostname"):
        assert server.get(f"/static/{name}").status_code == 404
    assert "http://" not in page.text.replace("http://www.w3.org", "")
    assert "https://" not in page.text


def test_an_unexpected_error_is_an_answer_that_tells_no_secrets(
    live: LiveRestorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[Exception] = []
    monkeypatch.setattr("abair.serving.work.estimate", lambda *_: 1 / 0)
    with TestClient(create_app(live, Limits(), log_error=logged.append)) as server:
        answer = server.post("/v1/estimate", content=photo_bytes())
        assert problem(answer, 500) == "unexpected ZeroDivisionError; the server's log says more"
        assert [type(error) for error in logged] == [ZeroDivisionError]


def test_a_photo_that_takes_too_long_is_given_up(live: LiveRestorer, monkeypatch: pytest.MonkeyPatch) -> None:
    read = images.read
    monkeypatch.setattr(images, "read", lambda *a, **k: (time.sleep(0.1), read(*a, **k))[1])
    with TestClient(create_app(live, Limits(seconds=0.05))) as server:
        assert "longer than 0.05 seconds" in problem(server.post("/v1/restore", content=photo_bytes()), 504)


def test_openapi_describes_every_route(server: TestClient) -> None:
    document = server.get("/openapi.json").json()
    assert sorted(document["paths"]) == [
        *("/healthz", "/metrics", "/readyz", "/v1/deployment", "/v1/estimate", "/v1/restore"),
    ]
    restore = document["paths"]["/v1/restore"]["post"]
    assert {p["name"] for p in restore["parameters"]} == {
        *("weights", "policy", "strength", "quality", "looks", "format", "jpeg_quality"),
    }
    assert set(restore["requestBody"]["content"]) == {"application/octet-stream", "multipart/form-data"}
    assert "application/problem+json" in restore["responses"]["422"]["content"]


@pytest.mark.exhaustive
def test_schemathesis_finds_no_answer_that_the_document_does_not_describe(live: LiveRestorer) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is missing; pip install schemathesis")
    from hypothesis import HealthCheck, given, settings
    from schemathesis.specs.openapi.checks import positive_data_acceptance  # no schema can describe a photo

    torch.set_flush_denormal(False)  # a training in this process set it, and hypothesis draws such numbers
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(live, Limits()))
    seen: list[int] = []
    for operation in schema.get_all_operations():

        @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.ok().as_strategy())
        def hold(case: Any) -> None:
            seen.append(case.call_and_validate(excluded_checks=[positive_data_acceptance]).status_code)

        hold()
    assert len(seen) > 30
