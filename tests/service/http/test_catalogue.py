from __future__ import annotations

import pytest

from service.http import schemas


def test_answers_fit_their_schemas(client):
    for path, schema in (
        ("/history/u1", schemas.History),
        ("/history/u1?limit=1&offset=1", schemas.History),
        ("/items?item_id=i1&item_id=i2&item_id=nothing", schemas.Items),
    ):
        answer = client.get(path)
        assert answer.status_code == 200, answer.text
        assert schema.model_validate_json(answer.content).model_dump(mode="json") == answer.json()


def test_an_acknowledged_interaction_is_in_the_history(client):
    client.post("/interactions", json={"user_id": "a/b", "item_id": "i1"})
    found = client.get("/history/a%2Fb").json()
    assert [(item["item_id"], item["source"]) for item in found["items"]] == [("i1", "log")]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/history/nobody", 404, "unknown_user"),
        ("/history/u1?limit=0", 422, "invalid_request"),
        ("/history/u1?offset=-1", 422, "invalid_request"),
        ("/items", 422, "invalid_request"),
        ("/items?item_id=", 422, "invalid_request"),
        (f"/items?item_id={'x' * 300}", 422, "invalid_request"),
        ("/items?" + "&".join(["item_id=a"] * 201), 422, "invalid_request"),
    ],
)
def test_what_can_not_be_answered_is_told(client, path, status, code):
    answer = client.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
