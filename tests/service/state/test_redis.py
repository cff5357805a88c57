from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
import time
from uuid import uuid4

import pytest
import redis
from structlog.testing import capture_logs

from service.errors import StateError, StateVersionError
from service.state import open_state
from service.state.port import Change, Job
from service.state.redis import (
    FIRST_REST,
    LONGEST_REST,
    NAMES,
    SCHEMA_VERSION,
    Breaker,
    RedisState,
    split_prefix,
    without_password,
)
from tests.service.state.contract import StateContract, interaction, put
from tests.support.redis_server import ALWAYS, MISSING, RedisServer, server_path

pytestmark = [pytest.mark.redis, pytest.mark.skipif(server_path() is None, reason=MISSING)]


@pytest.fixture(scope="module")
def server():
    with RedisServer() as server:
        yield server


@pytest.fixture
def url(server):
    return server.url(uuid4().hex)


@pytest.fixture
def client(server):
    with redis.Redis.from_url(f"unix://{server.socket}?db=3", decode_responses=True) as client:
        yield client


class TestRedisState(StateContract):
    @pytest.fixture(autouse=True)
    def use(self, server):
        self.server = server

    def make(self, directory):
        directory.mkdir(exist_ok=True)
        return RedisState(self.server.url(uuid4().hex))


def test_two_processes_share_one_log(url):
    one, two = open_state(url), open_state(url)
    assert one.state_id == two.state_id
    assert one.append([interaction(event_id="a")]).sequence == 1
    assert two.append([interaction(event_id="a"), interaction(event_id="b")]).sequence == 2
    assert [entry.event_id for entry in one.read(0, 10)] == ["a", "b"]
    one.close()
    two.close()


def test_databases_and_prefixes_are_worlds_apart(server, client):
    prefix = uuid4().hex
    states = [RedisState(server.url(prefix, db)) for db in (0, 3, 15)] + [RedisState(server.url(uuid4().hex))]
    for n, state in enumerate(states):
        assert state.append([interaction()] * (n + 1)).sequence == n + 1
        state.close()
    assert len({state.state_id for state in states}) == 4
    assert {key.rpartition(":")[0] for key in client.scan_iter(f"*{prefix}*")} == {f"{{{prefix}}}"}


def test_only_documented_keys_are_used(url, client, server):
    state = RedisState(url)
    TestRedisState().fill(state)
    state.append([interaction("a", "x", "late"), Change("erasure", "a")])
    prefix = split_prefix(url)[1]
    assert {key.partition(":")[2] for key in client.scan_iter(f"{{{prefix}}}:*")} <= set(NAMES)
    assert client.hlen(f"{{{prefix}}}:erasing") == 0
    # Nothing of the erased users is left but the erasures.
    assert client.hgetall(f"{{{prefix}}}:users") == {}
    assert [e.kind for e in state.read(3, 100) if e.user_id in {"a", "gone"}] == ["erasure", "erasure"]
    state.close()


def test_an_erasure_that_a_crash_interrupted_is_finished_at_the_next_start(url, monkeypatch):
    state = RedisState(url)
    state.append([interaction("a", "x", "k"), interaction("b", "x")])
    monkeypatch.setattr(state, "_finish_erasures", lambda: None)
    state.append([Change("erasure", "a")])
    assert state.read(0, 1)[0].user_id == "a"
    state.close()
    again = RedisState(url)
    assert [(e.kind, e.user_id, e.item_id) for e in again.read(0, 10)] == [
        ("erased", "", "x"),
        ("interaction", "b", "x"),
        ("erasure", "a", ""),
    ]
    assert again.append([interaction(event_id="k")]).accepted == 1
    again.close()


def test_an_entry_that_is_missing_is_told(url, client):
    state = RedisState(url)
    state.append([interaction(), interaction(), interaction()])
    client.xdel(f"{{{split_prefix(url)[1]}}}:log", "2-0")
    with pytest.raises(StateError, match="entry 2 of the log is missing"):
        state.read(0, 10)
    state.close()


def test_a_server_that_was_emptied_is_told_and_takes_no_writes(url, client):
    state = RedisState(url)
    state.append([interaction()])
    for key in client.scan_iter(f"{{{split_prefix(url)[1]}}}:*"):
        client.delete(key)
    for attempt in (lambda: state.append([interaction()]), lambda: state.read(1, 1), state.last_sequence):
        with pytest.raises(StateError, match="emptied"):
            attempt()
    other = RedisState(url)
    with pytest.raises(StateError, match="restart"):
        state.append([interaction()])
    assert other.last_sequence() == 0
    other.close()
    state.close()


def test_a_newer_schema_and_half_a_restore_are_refused(url, client):
    RedisState(url).close()
    meta = f"{{{split_prefix(url)[1]}}}:meta"
    client.hset(meta, "restoring", "1")
    with pytest.raises(StateError, match="interrupted"):
        RedisState(url)
    client.hset(meta, "schema", str(SCHEMA_VERSION + 1))
    with pytest.raises(StateVersionError, match="update kdiffe"):
        RedisState(url)


def test_a_state_of_the_first_schema_is_migrated(url, client):
    state = RedisState(url)
    running = Job("j1", "running", 1.0, "v0001", 2, owner="somebody")
    state.add_job(running)
    state.close()
    prefix = f"{{{split_prefix(url)[1]}}}"
    client.hset(f"{prefix}:meta", "schema", "1")
    client.delete(f"{prefix}:open-jobs")
    client.set(f"{prefix}:job", "j1")  # where the first schema kept the one that had not ended
    for _ in range(2):
        state = RedisState(url)
        assert state.add_job(Job("j2", "queued", 1.0, "", 0)).job_id == "j2"
        assert state.take_job("me", 2.0) is None  # j1 runs
        assert client.lrange(f"{prefix}:open-jobs", 0, -1) == ["j1", "j2"]
        state.close()


def test_a_batch_that_can_not_be_written_does_not_spoil_the_others(url):
    state = RedisState(url)
    futures = [state.submit([interaction("ok", str(n))]) for n in range(5)]
    futures.insert(2, state.submit([interaction("ok"), interaction("half a pair: \ud800")]))
    with pytest.raises(StateError, match="can't be written"):
        futures[2].result()
    assert all(future.result().accepted == 1 for n, future in enumerate(futures) if n != 2)
    assert state.last_sequence() == 5
    with pytest.raises(StateError, match="surrogates"):
        state.record("item", "\ud800")
    state.close()


def test_a_closed_state_refuses_writes(url):
    state = RedisState(url)
    state.close()
    state.close()
    with pytest.raises(StateError, match="closed"):
        state.append([interaction()])


# ---- a server that goes and comes ------------------------------------------------------------------------------------


def until(condition, seconds=5.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            return condition()
        except StateError:
            time.sleep(0.02)
    return condition()


def test_a_server_that_dies_is_told_at_once_and_found_again_with_everything_it_acknowledged():
    with RedisServer(*ALWAYS) as server:
        state = RedisState(server.url())
        assert state.append([interaction(event_id="a"), put("x", n=1)]).sequence == 2
        server.kill()
        with pytest.raises(StateError, match="does not answer"):
            state.append([interaction()])
        began = time.monotonic()
        for _ in range(50):
            with pytest.raises(StateError):
                state.append([interaction()])
            with pytest.raises(StateError):
                state.read(0, 1)
        assert time.monotonic() - began < 1.0
        server.start()
        assert until(lambda: state.append([interaction(event_id="a"), interaction(event_id="b")])).accepted == 1
        assert [entry.sequence for entry in state.read(0, 10)] == [1, 2, 3]
        assert state.record("item", "x").sequence == 2
        state.close()


def test_a_server_that_hangs_keeps_nobody_waiting_for_long(monkeypatch):
    monkeypatch.setattr("service.state.redis.ANSWER_TIMEOUT", 0.2)
    with RedisServer() as server:
        state = RedisState(server.url())
        server.freeze()
        began = time.monotonic()
        with pytest.raises(StateError, match="sent again with the same ids they count once"):
            state.append([interaction(event_id="a")])
        assert 0.1 < time.monotonic() - began < 1.0
        with pytest.raises(StateError):  # the breaker: nobody asks
            state.append([interaction(event_id="b")])
        server.thaw()
        # The server has taken the first one, though it was too late to say so.
        done = until(lambda: state.append([interaction(event_id="a"), interaction(event_id="c")]))
        assert (done.accepted, done.duplicates, done.sequence) == (1, 1, 2)
        state.close()


def test_a_start_waits_for_a_server_that_starts_too_but_not_for_ever():
    with RedisServer() as server:
        server.kill()
        began = time.monotonic()
        with pytest.raises(StateError, match="can't be reached"):
            RedisState(server.url(), patience=0.3)
        assert 0.3 <= time.monotonic() - began < 2
        starting = threading.Timer(0.2, server.start)
        starting.start()
        state = RedisState(server.url(), patience=10)
        starting.join()
        state.close()


def refuses(breaker):
    try:
        breaker.check()
    except StateError:
        return True
    return False


def test_the_breaker_rests_longer_with_each_failure():
    now = [0.0]
    breaker = Breaker(lambda: now[0])
    breaker.check()
    rests = []
    for _ in range(8):
        breaker.failed("down")
        before = now[0]
        while refuses(breaker):
            now[0] += FIRST_REST / 10
        rests.append(now[0] - before)
    assert rests == pytest.approx([min(FIRST_REST * 2**n, LONGEST_REST) for n in range(8)], abs=FIRST_REST / 5)
    breaker.succeeded()
    breaker.failed("again")
    with pytest.raises(StateError, match="again"):
        breaker.check()
    now[0] += FIRST_REST
    breaker.check()


# ---- how it is reached -----------------------------------------------------------------------------------------------


def test_a_password_is_asked_for_and_never_told():
    with RedisServer("--requirepass", "hunter2") as server:
        state = RedisState(server.url(), "hunter2")
        assert state.append([interaction()]).sequence == 1
        state.close()
        for url, password in ((server.url(), None), (server.url().replace("unix://", "unix://:hunter3@"), None)):
            with pytest.raises(StateError, match="can't be reached") as caught:
                RedisState(url, password, patience=0)
            assert "hunter" not in str(caught.value)
        state = RedisState(server.url().replace("unix://", "unix://:hunter2@"))
        assert "hunter2" not in state.name
        state.close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_tls_is_spoken_and_the_certificate_is_checked(server, tmp_path):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *make.split(), *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with TlsFront(context, str(server.socket)) as port:
        prefix = uuid4().hex
        state = RedisState(f"rediss://localhost:{port}/3?prefix={prefix}&ssl_ca_certs={certificate}")
        assert state.append([interaction()]).sequence == 1
        state.close()
        plain = RedisState(server.url(prefix))
        assert plain.last_sequence() == 1
        plain.close()
        with pytest.raises(StateError, match=r"certificate|CERTIFICATE"):
            RedisState(f"rediss://localhost:{port}/3", patience=0)


class TlsFront:
    """Speaks TLS on a port and passes everything on to a unix socket."""

    def __init__(self, context: ssl.SSLContext, target: str) -> None:
        self._context = context
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._listener]

    def __enter__(self) -> int:
        threading.Thread(target=self._accept, daemon=True).start()
        return self._listener.getsockname()[1]

    def __exit__(self, *_: object) -> None:
        for each in self._open:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        with raw, socket.socket(socket.AF_UNIX) as server:
            try:
                client = self._context.wrap_socket(raw, server_side=True)
            except (ssl.SSLError, OSError):
                return
            server.connect(self._target)
            self._open += [client, server]
            with client:
                # One question, one answer: as the client does it.
                try:
                    while data := client.recv(65536):
                        server.sendall(data)
                        client.sendall(server.recv(1 << 20))
                except OSError:
                    return


def test_what_the_server_does_not_promise_is_warned_of(server):
    with capture_logs() as logs:
        RedisState(server.url(uuid4().hex)).close()
    assert [entry["log_level"] for entry in logs] == ["warning"]
    assert "appendfsync always" in logs[0]["event"]
    with RedisServer(*ALWAYS) as durable, capture_logs() as logs:
        RedisState(durable.url()).close()
    assert logs == []


def test_a_prefix_is_taken_off_the_url_and_passwords_stay_out_of_names():
    assert split_prefix("redis://h:1/2?prefix=a&x=1") == ("redis://h:1/2?x=1", "a")
    assert split_prefix("redis://h:1/2") == ("redis://h:1/2", "kdiffe")
    assert without_password("rediss://me:secret@h:1/2?x=1&password=hush") == "rediss://h:1/2?x=1"
    assert without_password("unix://:secret@/run/r.sock?db=1") == "unix:///run/r.sock?db=1"


@pytest.mark.parametrize("address", ["host:port/0", "127.0.0.1:1/0?no_such_option=1", "[::1/0"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(StateError, match="no address") as caught:
        RedisState(f"redis://:hunter2@{address}")
    assert "hunter2" not in str(caught.value)
