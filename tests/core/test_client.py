"""The client: what it sends, and what it makes of answers that are not as expected."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

pytest.importorskip("httpx", reason="httpx is missing; pip install 'abair[serve]'")

import httpx

from abair.client import Client
from abair.errors import ServingError, WeightsError

RECORD = {
    "deployment": "one", "weights": {"clean": 1.0}, "policy": "soft", "quality": "standard", "strength": 1.0,
    "seconds": 0.1, "megapixels": 0.1, "unchanged": True, "warnings": ["left out"], "confidence": None,
}  # fmt: skip


def client(*answers: Any) -> tuple[Client, list[Any]]:
    """A client that gets these answers in turn, and the requests that it makes."""
    asked: list[Any] = []

    def answer(request: Any) -> Any:
        asked.append(request)
        return answers[len(asked) - 1]

    return Client(transport=httpx.MockTransport(answer)), asked


def restored(**changes: Any) -> Any:
    headers = {"ABAIR-Result": json.dumps(RECORD | changes), "Content-Type": "image/png"}
    return httpx.Response(200, content=b"file", headers=headers)


@pytest.mark.parametrize(
    ("weights", "sent"),
    [({"noise": np.float32(0.5), "rain": 0}, "noise=0.5,rain=0.0"), ({}, "clean=1"), (None, None)],
)
def test_weights_are_sent_as_numbers_and_none_of_them_leaves_the_photo_alone(
    weights: dict[str, float] | None, sent: str | None
) -> None:
    one, asked = client(restored())
    one.restore(b"photo", weights=weights)
    assert asked[0].url.params.get("weights") == sent


@pytest.mark.parametrize("weights", ["noise=1", {"noise": "x"}, {"noise": None}])
def test_weights_that_are_no_numbers_by_label_are_refused_as_by_a_restorer(weights: Any) -> None:
    one, asked = client()
    with pytest.raises(WeightsError, match=r"weights: .*expected (a number|numbers)"):
        one.restore(b"photo", weights=weights)
    assert asked == []


def test_options_are_sent_only_where_they_differ_from_the_servers() -> None:
    one, asked = client(restored(), restored())
    one.restore(b"photo", strength=1.0, quality="standard")
    one.restore(b"photo", strength=0.5, quality="best")
    assert [dict(request.url.params) for request in asked] == [{}, {"strength": "0.5", "quality": "best"}]


def test_what_a_newer_server_tells_beside_is_passed_over() -> None:
    told = {"deployment": "one", "weights": {"clean": 1.0}, "megapixels": 1.0, "confidence": 0.5, "new": 1}
    one, _ = client(restored(new=1), httpx.Response(200, json=told))
    found = one.restore(b"photo")
    assert (found.data, found.media_type, found.warnings) == (b"file", "image/png", ("left out",))
    assert one.estimate(b"photo").confidence == 0.5


def test_the_deployment_is_told_with_all_its_details() -> None:
    told = {"deployment": "one", "labels": ["noise", "clean"], "device": "cpu"}
    one, _ = client(httpx.Response(200, json=told))
    found = one.deployment()
    assert (found.deployment, found.labels, found.details) == ("one", ("noise", "clean"), told)


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b"{}", b"null"])
def test_an_answer_of_another_program_is_one_line(answer: bytes) -> None:
    one, _ = client(*[httpx.Response(200, content=answer)] * 3)
    for ask in (lambda: one.restore(b"photo"), lambda: one.estimate(b"photo"), one.deployment):
        with pytest.raises(ServingError, match=r"found an answer without what abair serve tells") as raised:
            ask()
        assert "\n" not in str(raised.value)


def test_a_server_that_is_busy_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("abair.client.time.sleep", waited.append)
    busy = httpx.Response(429, json={"error": "ServingError", "detail": "full"}, headers={"Retry-After": "3"})
    one, asked = client(busy, busy, restored())
    assert one.restore(b"photo").deployment == "one"
    assert (waited, len(asked)) == ([3, 3], 3)
    one, _ = client(httpx.Response(429, json={"error": "ServingError", "detail": "full"}))
    with pytest.raises(ServingError, match="full"):  # it says nothing of when
        one.restore(b"photo")
