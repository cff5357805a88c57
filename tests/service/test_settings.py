from __future__ import annotations

import pytest
from pydantic import ValidationError

from service.errors import StartError
from service.settings import Settings, is_loopback, misspelt, read_settings

KEY = "correct-horse-battery"


def test_every_field_has_a_sentence():
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


def test_the_state_lies_in_the_store_unless_told_otherwise(tmp_path):
    assert read_settings(store=tmp_path).state_url == f"sqlite:///{tmp_path}/state.sqlite3"
    assert read_settings(store=tmp_path, state="sqlite:////x/y.sqlite3").state_url == "sqlite:////x/y.sqlite3"
    assert read_settings(store=tmp_path).jobs_directory == tmp_path / ".jobs"


def test_settings_are_read_from_the_environment_and_overrides_go_before_it(monkeypatch):
    monkeypatch.setenv("KDIFFE_PORT", "9000")
    monkeypatch.setenv("KDIFFE_ADMIN_KEY", KEY)
    assert read_settings().port == 9000
    assert read_settings(port=9001, host=None).port == 9001
    assert KEY not in repr(read_settings())


def test_a_password_of_the_state_is_not_shown():
    settings = read_settings(state="rediss://:hunter2@redis:6380/3", state_password="hunter3")
    assert settings.state_url == "rediss://:hunter2@redis:6380/3"
    assert settings.state_secret == "hunter3"
    assert "hunter" not in repr(settings)
    with pytest.raises(StartError) as caught:
        read_settings(state="rdis://:hunter2@redis")
    assert "hunter2" not in str(caught.value)


def test_settings_are_frozen():
    with pytest.raises(ValidationError):
        read_settings().port = 1


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"host": "0.0.0.0"}, "KDIFFE_ADMIN_KEY"),  # noqa: S104
        ({"admin_key": "short"}, "16 characters"),
        ({"workers": 0}, "workers: Input should be greater"),
        ({"state": "postgres://x"}, "sqlite:///PATH"),
        ({"refresh_every": 0}, "refresh_every"),
        ({"index": "annoy"}, "index"),
    ],
)
def test_what_can_not_be_used_is_refused_with_the_next_step(overrides, words):
    with pytest.raises(StartError, match=words):
        read_settings(**overrides)


def test_a_variable_that_should_be_json_and_is_not_is_named(monkeypatch):
    monkeypatch.setenv("KDIFFE_CORS_ORIGINS", "https://shop.example")
    with pytest.raises(StartError, match=r"cors_origins.*as JSON"):
        read_settings()


def test_a_misspelt_variable_is_told_from_those_of_others():
    names = ["KDIFFE_REQUIRE_KEY", "KDIFFE_REQUIRE_KEYS", "KDIFFE_SERVICE_HOST", "KDIFFE_DATA", "KDIFE_PORT", "PATH"]
    assert misspelt(names) == {"KDIFFE_REQUIRE_KEY": "KDIFFE_REQUIRE_KEYS"}


def test_a_refused_key_is_not_shown():
    with pytest.raises(StartError) as caught:
        read_settings(admin_key="hunter2")
    assert "hunter2" not in str(caught.value)


def test_other_machines_are_let_in_with_a_key():
    assert read_settings(host="0.0.0.0", admin_key=KEY).host == "0.0.0.0"  # noqa: S104


def test_loopback_is_told_from_other_hosts():
    assert all(is_loopback(host) for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "LOCALHOST."))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "example.org", "localhost.example.org", "", "10.0.0.1"))  # noqa: S104
