from __future__ import annotations

from service.errors import StateError
from service.security.api_key import ApiKey
from service.security.keyring import BOOTSTRAP, Keyring

ADMIN_KEY = "correct-horse-battery-staple"


def test_the_settings_key_is_an_admin_s():
    ring = Keyring(ADMIN_KEY)
    found = ring.find(ADMIN_KEY)
    assert found is not None
    assert (found.key_id, found.may("admin")) == (BOOTSTRAP, True)
    assert ring.has_admin
    assert ring.find(ADMIN_KEY + "x") is None
    assert ring.find("") is None


def test_an_expired_admin_key_opens_nothing_to_those_without_one():
    ring = Keyring(clock=lambda: 10.0)
    assert not ring.has_admin
    reader, _ = ApiKey.make("r", ("read",), 0.0)
    expired, _ = ApiKey.make("e", ("admin",), 0.0, expires_at=10.0)
    ring.take(lambda: [reader])
    assert not ring.has_admin
    ring.take(lambda: [reader, expired])
    assert ring.has_admin
    admin, text = ApiKey.make("a", ("admin",), 0.0)
    ring.take(lambda: [reader, expired, admin])
    assert ring.has_admin
    assert ring.find(text) == admin


def test_a_known_id_with_another_secret_is_nobody():
    ring = Keyring()
    one, _ = ApiKey.make("a", ("read",), 0.0)
    _, other = ApiKey.make("b", ("read",), 0.0)
    ring.take(lambda: [one])
    secret = other.rpartition("_")[2]
    assert ring.knows(f"kdk_{one.key_id}_{secret}")
    assert ring.find(f"kdk_{one.key_id}_{secret}") is None
    assert not ring.knows(other)


def test_while_the_state_does_not_answer_the_keys_that_are_known_stay():
    ring = Keyring()
    key, text = ApiKey.make("a", ("read",), 0.0)
    ring.take(lambda: [key])

    def broken():
        raise StateError("away")

    assert not ring.take(broken)
    assert ring.find(text) == key
