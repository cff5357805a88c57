"""The state in Redis: a stream for the log, hashes for the rest. Plain Redis 6.2 or newer, any database number.

Every change is one script, so it is made whole or not at all. An acknowledgement is as durable as the server's
answers: with `appendfsync always` Redis answers after the flush to disk, and anything less is warned of at the start.

Keys, all under one prefix (in braces, so that a cluster keeps them in one slot):

    meta       hash      state_id, last, compacted, schema; restoring while a backup is put back
    log        stream    entry n has the id n-0
    erased     hash      sequence number of an entry that was erased → its item
    erasing    hash      user who is being erased → sequence number of the erasure
    keys       hash      idempotency key → sequence number
    users, items         hash      external id → "sequence content"
    types      hash      type → weight
    jobs       hash      job id → JSON;  job-order: list, the newest first;  open-jobs: list, those not ended
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import uuid4

import orjson
import redis
import structlog
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from service.errors import StateError, StateVersionError
from service.state.entries import (
    Row,
    check_compaction,
    check_empty,
    check_range,
    columns_of,
    entry_of,
    row_of,
    row_of_logged,
    taken_by,
    to_text,
)
from service.state.lines import chunks, entries_between, write_lines
from service.state.port import (
    Appended,
    Backup,
    Change,
    Interaction,
    Interactions,
    Job,
    LogEntry,
    Position,
    Record,
    RecordKind,
)
from service.state.writer import GroupWriter, Task

# Raised with every change of what the keys hold.
SCHEMA_VERSION = 2
DEFAULT_PREFIX = "kdiffe"
NAMES = (
    *("meta", "log", "erased", "erasing", "keys", "users", "items"),
    *("types", "documents", "jobs", "job-order", "job", "open-jobs"),
)
# Seconds to connect, and for one answer: nobody's request waits for longer.
CONNECT_TIMEOUT = 0.5
ANSWER_TIMEOUT = 2.0
# Seconds without an attempt after a failure, doubled with each further one.
FIRST_REST, LONGEST_REST = 0.05, 2.0
# Seconds that a start waits for a server that is starting, too.
PATIENCE = 10.0
# Entries or fields that are read at a time.
PAGE = 1000

log = structlog.get_logger(__name__)

OPEN = """
redis.call('HSETNX', KEYS[1], 'state_id', ARGV[1])
redis.call('HSETNX', KEYS[1], 'last', '0')
redis.call('HSETNX', KEYS[1], 'compacted', '0')
redis.call('HSETNX', KEYS[1], 'schema', ARGV[2])
-- 1 → 2: where one job that had not ended stood alone, there is a list.
if redis.call('HGET', KEYS[1], 'schema') == '1' then
  local job = redis.call('GET', KEYS[2])
  if job then redis.call('RPUSH', KEYS[3], job) end
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[1], 'schema', '2')
end
return redis.call('HMGET', KEYS[1], 'state_id', 'schema', 'restoring')
"""

# What begins every script that changes something: a server that was emptied or restored must not go on unnoticed.
GUARD = """
if redis.call('HGET', KEYS[1], 'state_id') ~= ARGV[1] then
  return redis.error_reply('KDIFFE-LOST')
end
"""

# KEYS: meta, log, erased, erasing, keys, users, items. ARGV: the state's name, then seven values for each entry.
APPEND = (
    GUARD
    + """
local last = tonumber(redis.call('HGET', KEYS[1], 'last'))
local accepted = 0
local function older(hash, id, seq)
  local found = redis.call('HGET', hash, id)
  return not found or tonumber(string.match(found, '^%d+')) < seq
end
for i = 2, #ARGV, 7 do
  local kind, user, item, event, content = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 5], ARGV[i + 6]
  local seq = string.format('%.0f', last + 1)
  if event == '' or redis.call('HSETNX', KEYS[5], event, seq) == 1 then
    last = last + 1
    accepted = accepted + 1
    if kind == 'erased' then
      redis.call('HSET', KEYS[3], seq, item)
    else
      redis.call('XADD', KEYS[2], seq .. '-0', 'k', kind, 'u', user, 'i', item, 'at', ARGV[i + 3],
        't', ARGV[i + 4], 'e', event, 'c', content)
    end
    if kind == 'user' and older(KEYS[6], user, last) then
      redis.call('HSET', KEYS[6], user, seq .. ' ' .. content)
    elseif kind == 'item' and older(KEYS[7], item, last) then
      redis.call('HSET', KEYS[7], item, seq .. ' ' .. content)
    elseif kind == 'withdrawal' and older(KEYS[7], item, last) then
      redis.call('HDEL', KEYS[7], item)
    elseif kind == 'erasure' then
      redis.call('HDEL', KEYS[6], user)
      redis.call('HSET', KEYS[4], user, seq)
    end
  end
end
if accepted > 0 then
  redis.call('HSET', KEYS[1], 'last', string.format('%.0f', last))
end
return {accepted, string.format('%.0f', last)}
"""
)

# KEYS: meta, log, erased, keys. ARGV: the state's name, then sequence number, item and key of each entry.
ERASE = (
    GUARD
    + """
for i = 2, #ARGV, 3 do
  if redis.call('XDEL', KEYS[2], ARGV[i] .. '-0') == 1 then
    redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1])
    if ARGV[i + 2] ~= '' and redis.call('HGET', KEYS[4], ARGV[i + 2]) == ARGV[i] then
      redis.call('HDEL', KEYS[4], ARGV[i + 2])
    end
  end
end
return 1
"""
)

# KEYS: meta, log. ARGV: the state's name, the last sequence number to drop.
COMPACT = (
    GUARD
    + """
if tonumber(ARGV[2]) > tonumber(redis.call('HGET', KEYS[1], 'compacted')) then
  redis.call('HSET', KEYS[1], 'compacted', ARGV[2])
  redis.call('XTRIM', KEYS[2], 'MINID', '=', string.format('%.0f-0', tonumber(ARGV[2]) + 1))
end
return 1
"""
)

# KEYS: meta, hash. ARGV: the state's name, then field and value of those to drop where they still hold the value.
DROP = (
    GUARD
    + """
for i = 2, #ARGV, 2 do
  if redis.call('HGET', KEYS[2], ARGV[i]) == ARGV[i + 1] then redis.call('HDEL', KEYS[2], ARGV[i]) end
end
return 1
"""
)

# KEYS: meta, jobs, job-order, open-jobs. ARGV: the state's name, id, JSON, state. JSON is read here, never written: Lua
# would round the times.
ADD_JOB = (
    GUARD
    + """
local known = redis.call('HGET', KEYS[2], ARGV[2])
if known then return known end
if ARGV[4] == 'queued' then
  for _, id in ipairs(redis.call('LRANGE', KEYS[4], 0, -1)) do
    local other = redis.call('HGET', KEYS[2], id)
    if cjson.decode(other).state == 'queued' then return other end
  end
end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
redis.call('LPUSH', KEYS[3], ARGV[2])
if ARGV[4] == 'queued' or ARGV[4] == 'running' then redis.call('RPUSH', KEYS[4], ARGV[2]) end
return ARGV[3]
"""
)
# KEYS: the same. ARGV: the state's name, id, JSON, state, its owner's name after a "=", empty for any.
UPDATE_JOB = (
    GUARD
    + """
local known = redis.call('HGET', KEYS[2], ARGV[2])
if not known then return 0 end
known = cjson.decode(known)
if known.state ~= 'queued' and known.state ~= 'running' then return 0 end
if ARGV[5] ~= '' and ARGV[5] ~= '=' .. known.owner then return 0 end
if ARGV[6] ~= '' and ARGV[6] == known.phase then return 0 end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
if ARGV[4] ~= 'queued' and ARGV[4] ~= 'running' then redis.call('LREM', KEYS[4], 0, ARGV[2]) end
return 1
"""
)
# KEYS: the same. ARGV: the state's name, id, the job's JSON as it was read, and as it is to be.
TAKE_JOB = (
    GUARD
    + """
for _, id in ipairs(redis.call('LRANGE', KEYS[4], 0, -1)) do
  if cjson.decode(redis.call('HGET', KEYS[2], id)).state == 'running' then return 0 end
end
if redis.call('HGET', KEYS[2], ARGV[2]) ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[4])
return 1
"""
)
JOB_KEYS = ("meta", "jobs", "job-order", "open-jobs")


@dataclass(frozen=True)
class Batch:
    """A batch on its way to the server.

    Attributes:
        arguments: the script's, less the state's name.
        size: how many entries.
        erases: whether someone is erased.
    """

    arguments: list[bytes]
    size: int
    erases: bool


class Breaker:
    """Keeps from asking a server that does not answer: one attempt after each rest, the rests growing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._until = 0.0
        self._reason = ""
        self._lock = threading.Lock()

    def check(self) -> None:
        """Refuse to ask while resting.

        Raises:
            StateError: the last attempt has failed a moment ago.
        """
        with self._lock:
            if self._clock() < self._until:
                raise StateError(self._reason)

    def failed(self, reason: str) -> None:
        """Rest."""
        with self._lock:
            rest = min(FIRST_REST * 2.0 ** min(self._failures, 30), LONGEST_REST)
            self._failures += 1
            self._until = self._clock() + rest
            self._reason = reason

    def succeeded(self) -> None:
        """Go on."""
        if self._failures:
            with self._lock:
                self._failures = 0
                self._until = 0.0


class RedisState:
    """The state store on a Redis server, for several machines."""

    def __init__(self, url: str, password: str | None = None, *, patience: float = PATIENCE) -> None:
        """Connect, and make the state where there is none.

        Args:
            url: redis://, rediss:// (TLS; `?ssl_ca_certs=FILE`) or unix://; `?prefix=` names one of several states.
            password: goes before one in the URL.
            patience: seconds to wait for a server that does not answer yet.

        Raises:
            StateVersionError: a newer release has written it.
            StateError: it can't be reached, or a restore into it was interrupted.
        """
        try:
            address, prefix = split_prefix(url)
            self.name = without_password(url)
        except ValueError as error:  # told without the URL, which may hold a password
            raise StateError(f"The state's URL is no address of a Redis server ({error}).") from None
        self._prefix = prefix
        self._keys = {name: f"{{{prefix}}}:{name}" for name in NAMES}
        self._breaker = Breaker()
        self._seen = 0
        options: dict[str, Any] = {} if password is None else {"password": password}
        try:
            self._redis = redis.Redis.from_url(
                address,
                **options,
                decode_responses=True,
                socket_connect_timeout=CONNECT_TIMEOUT,
                socket_timeout=ANSWER_TIMEOUT,
                # The breaker decides when to ask again; a write must never be sent twice by itself.
                retry=Retry(NoBackoff(), 0),
            )
            pool = self._redis.connection_pool
            pool.connection_class(**pool.connection_kwargs)  # an unknown option shows here; nothing is connected yet
        except (ValueError, TypeError, RedisError) as error:
            raise StateError(f"{self.name} is no address of a Redis server ({error}).") from None
        try:
            self.state_id = self._open(patience)
            self._finish_erasures()
        except BaseException:
            self._redis.close()
            raise
        self._writer: GroupWriter[Batch] = GroupWriter(self.name, self._commit)

    @property
    def seen(self) -> int:
        """The highest sequence number that this process has met."""
        return self._seen

    # ---- the log -------------------------------------------------------------------------------------------------

    def submit(self, entries: Sequence[Interaction | Change]) -> Future[Appended]:
        """Append a batch; the future is done when the server has answered."""
        try:
            batch = _batch([row_of(entry) for entry in entries])
        except UnicodeEncodeError as error:
            future: Future[Appended] = Future()
            future.set_exception(StateError(f"{self.name}: the state can't be written ({error})."))
            return future
        return self._writer.submit(batch)

    def append(self, entries: Sequence[Interaction | Change]) -> Appended:
        """Append a batch; returns when the server has answered."""
        return self.submit(entries).result()

    def read(self, after: int, limit: int) -> list[LogEntry]:
        """A part of the log; what was erased is filled in."""
        return [entry_of(after + n, row) for n, row in enumerate(self._rows(after, limit), 1)]

    def interactions(self, after: int, limit: int) -> Interactions | None:
        """A part of the log as columns."""
        return columns_of(after, self._rows(after, limit))

    def _rows(self, after: int, limit: int) -> list[Row]:
        limit = max(limit, 0)
        with self._asking(), self._redis.pipeline(transaction=True) as pipe:
            pipe.hmget(self._keys["meta"], ["state_id", "last", "compacted"])
            pipe.xrange(self._keys["log"], min=f"{after + 1}-0", count=max(limit, 1))
            (state_id, last, compacted), found = pipe.execute()
        self._check_id(state_id)
        last = int(last)
        check_range(after, last, int(compacted))
        self._seen = max(self._seen, last)
        known = {int(identity.partition("-")[0]): fields for identity, fields in found}
        # Fewer entries than were asked for: they reach the log's end, else the last one that was found.
        end = last if len(found) < max(limit, 1) else max(known)
        wanted = range(after + 1, min(end, after + limit) + 1)
        missing = [sequence for sequence in wanted if sequence not in known]
        items = self._erased_items(missing) if missing else {}
        return [_row(known[n]) if n in known else Row("erased", "", items[n], 0.0, "", None, None) for n in wanted]

    def last_sequence(self) -> int:
        """The log's last sequence number."""
        return self.position().last

    def position(self) -> Position:
        """Where the log stands."""
        with self._asking():
            found = self._redis.hmget(self._keys["meta"], ["state_id", "last", "compacted"])
        state_id, last, compacted = cast(list[str | None], found)
        self._check_id(state_id)
        self._seen = max(self._seen, int(last or 0))
        return Position(self.state_id, int(last or 0), int(compacted or 0))

    def export(self, path: Path, upto: int) -> int:
        """Write the log as JSON lines."""
        return write_lines(self.read, path, self.position().compacted, upto, self.types())

    def compact(self, upto: int, forget_keys: int = 0) -> Position:
        """Drop the log's begin."""
        check_compaction(upto, forget_keys, self.position().last)
        self._script(COMPACT, ["meta", "log"], [str(upto)])
        self._drop("erased", lambda sequence, _: int(sequence) <= upto)
        if forget_keys:
            self._drop("keys", lambda _, sequence: int(sequence) <= forget_keys)
        return self.position()

    # ---- records and types ---------------------------------------------------------------------------------------

    def record(self, kind: RecordKind, external_id: str) -> Record | None:
        """One record."""
        with self._asking():
            value = self._redis.hget(self._keys[f"{kind}s"], external_id)
        return None if value is None else _record(external_id, cast(str, value))

    def records(self, kind: RecordKind) -> Iterator[Record]:
        """Every record of a kind."""
        for external_id, value in self._fields(f"{kind}s"):
            yield _record(external_id, value)

    def set_type(self, name: str, weight: float) -> None:
        """Give a type a weight."""
        with self._asking():
            self._redis.hset(self._keys["types"], name, repr(float(weight)))

    def types(self) -> dict[str, float]:
        """Weights of the types."""
        with self._asking():
            found = cast(dict[str, str], self._redis.hgetall(self._keys["types"]))
        return {name: float(found[name]) for name in sorted(found)}

    # ---- documents -----------------------------------------------------------------------------------------------

    def put_document(self, kind: str, name: str, content: Mapping[str, Any]) -> None:
        """Keep a document."""
        text = to_text(content)
        with self._asking():
            self._redis.hset(self._keys["documents"], f"{kind} {name}", text)

    def documents(self, kind: str) -> dict[str, Mapping[str, Any]]:
        """Documents of a kind."""
        return self._all_documents().get(kind, {})

    def drop_document(self, kind: str, name: str) -> bool:
        """Remove a document."""
        with self._asking():
            return bool(self._redis.hdel(self._keys["documents"], f"{kind} {name}"))

    def _all_documents(self) -> dict[str, dict[str, Mapping[str, Any]]]:
        with self._asking():
            found = cast(dict[str, str], self._redis.hgetall(self._keys["documents"]))
        documents: dict[str, dict[str, Mapping[str, Any]]] = {}
        for field in sorted(found):
            kind, _, name = field.partition(" ")
            documents.setdefault(kind, {})[name] = orjson.loads(found[field])
        return documents

    # ---- jobs ----------------------------------------------------------------------------------------------------

    def add_job(self, job: Job) -> Job:
        """Add a job unless it is known, or another one is queued, too."""
        arguments: list[str | bytes] = [job.job_id, orjson.dumps(asdict(job)), job.state]
        return Job(**orjson.loads(self._script(ADD_JOB, JOB_KEYS, arguments)))

    def take_job(self, owner: str, now: float) -> Job | None:
        """Take the queued job unless one is running."""
        with self._asking():
            names = cast(list[str], self._redis.lrange(self._keys["open-jobs"], 0, -1))
            found = cast(list[str], self._redis.hmget(self._keys["jobs"], names)) if names else []
        for text in found:
            job = Job(**orjson.loads(text))
            if job.state == "queued":
                taken = taken_by(job, owner, now)
                arguments: list[str | bytes] = [job.job_id, text, orjson.dumps(asdict(taken))]
                return taken if self._script(TAKE_JOB, JOB_KEYS, arguments) else None
        return None

    def update_job(self, job: Job, *, owned_by: str | None = None, unless_phase: str = "") -> bool:
        """Replace what is known of a job that has not ended."""
        owner = "" if owned_by is None else f"={owned_by}"
        arguments: list[str | bytes] = [job.job_id, orjson.dumps(asdict(job)), job.state, owner, unless_phase]
        return bool(self._script(UPDATE_JOB, JOB_KEYS, arguments))

    def job(self, job_id: str) -> Job | None:
        """One job."""
        with self._asking():
            found = self._redis.hget(self._keys["jobs"], job_id)
        return None if found is None else Job(**orjson.loads(cast(str, found)))

    def jobs(self, limit: int = 100) -> list[Job]:
        """Jobs, the newest first."""
        if limit < 1:
            return []
        with self._asking():
            names = cast(list[str], self._redis.lrange(self._keys["job-order"], 0, limit - 1))
            found = cast(list[str], self._redis.hmget(self._keys["jobs"], names)) if names else []
        return [Job(**orjson.loads(text)) for text in found]

    # ---- as a whole ----------------------------------------------------------------------------------------------

    def backup(self) -> Backup:
        """The whole state; the log is read last, up to where it ends then."""
        compacted = self.position().compacted

        def records() -> Iterator[tuple[RecordKind, Record]]:
            for kind in cast(tuple[RecordKind, ...], ("user", "item")):
                for record in self.records(kind):
                    yield kind, record

        def entries() -> Iterator[LogEntry]:
            yield from entries_between(self.read, compacted, self.last_sequence())

        keys = ((key, int(sequence)) for key, sequence in self._fields("keys"))
        jobs, documents = self.jobs(1_000_000), self._all_documents()
        return Backup(self.state_id, compacted, self.types(), documents, jobs, records(), keys, entries())

    def restore(self, backup: Backup) -> None:
        """Take a backup's place. What is interrupted is told at the next start."""
        with self._asking(), self._redis.pipeline(transaction=True) as pipe:
            for name in ("users", "items", "keys"):
                pipe.hlen(self._keys[name])
            sizes = pipe.execute()
        check_empty(self.position().last, [name for name in sizes if name])
        meta = {"state_id": backup.state_id, "last": str(backup.compacted), "compacted": str(backup.compacted)}
        meta["restoring"] = "1"
        with self._asking():
            self._redis.hset(self._keys["meta"], mapping=cast(Any, meta))
        self.state_id = backup.state_id
        for name, weight in backup.types.items():
            self.set_type(name, weight)
        for kind, named in backup.documents.items():
            for name, content in named.items():
                self.put_document(kind, name, content)
        for job in reversed(backup.jobs):
            self.add_job(job)
        for part in chunks(backup.records, PAGE):
            self._put({f"{kind}s": {r.external_id: _value(r) for of, r in part if of == kind} for kind, _ in part})
        for part in chunks(((key, n) for key, n in backup.keys if n <= backup.compacted), PAGE):
            self._put({"keys": {key: str(n) for key, n in part}})
        for part in chunks(backup.entries, PAGE):
            self._script(APPEND, NAMES[:7], _batch([row_of_logged(entry) for entry in part]).arguments)
        self._finish_erasures()
        with self._asking():
            self._redis.hdel(self._keys["meta"], "restoring")

    def close(self) -> None:
        """Finish what was submitted and let go of the server."""
        if self._writer.close():
            self._redis.close()

    # ---- inside --------------------------------------------------------------------------------------------------

    def _open(self, patience: float) -> str:
        deadline = time.monotonic() + patience
        while True:
            try:
                keys = [self._keys[name] for name in ("meta", "job", "open-jobs")]
                found = self._redis.eval(OPEN, len(keys), *keys, uuid4().hex, str(SCHEMA_VERSION))
                break
            except RedisError as error:  # not there, or still loading
                if time.monotonic() >= deadline or isinstance(error, redis.AuthenticationError):
                    raise StateError(f"{self.name}: the state can't be reached ({error}).") from None
                time.sleep(0.1)
        state_id, schema, restoring = cast(list[str], found)
        if int(schema) > SCHEMA_VERSION:
            raise StateVersionError(
                f"{self.name}: its keys are of version {schema}, this release knows {SCHEMA_VERSION}: update kdiffe."
            )
        if restoring:
            raise StateError(
                f"{self.name}: a restore into it was interrupted: remove the keys {{{self._prefix}}}:*, restore again."
            )
        self._warn()
        return state_id

    def _warn(self) -> None:
        """Tell what the server does not promise."""
        found: dict[Any, Any] = {}
        try:
            for name in ("appendonly", "appendfsync", "maxmemory-policy"):
                found.update(cast(Any, self._redis.config_get(name)))
        except RedisError:  # a managed server may refuse
            log.info("Redis does not tell how durable it is", state=self.name)
            return
        if found.get("appendonly") != "yes" or found.get("appendfsync") != "always":
            log.warning(
                "Redis acknowledges before the disk has it: set appendonly yes and appendfsync always",
                state=self.name,
                appendonly=found.get("appendonly"),
                appendfsync=found.get("appendfsync"),
            )
        if found.get("maxmemory-policy", "noeviction").startswith("allkeys"):
            log.warning("Redis may evict the state: set maxmemory-policy noeviction", state=self.name)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Around every command: the breaker, and errors as `StateError`."""
        self._breaker.check()
        try:
            yield
        except RedisError as error:
            raise self._failure(error) from error
        except UnicodeEncodeError as error:
            raise StateError(f"{self.name}: {error}.") from None
        self._breaker.succeeded()

    def _failure(self, error: RedisError) -> StateError:
        if isinstance(error, ResponseError) and "KDIFFE-LOST" in str(error):
            return self._lost()
        message = f"{self.name}: the state does not answer ({error})."
        if not isinstance(error, ResponseError) or isinstance(error, redis.BusyLoadingError | redis.ReadOnlyError):
            self._breaker.failed(message)
        return StateError(message)

    def _lost(self) -> StateError:
        return StateError(
            f"{self.name}: another state stands where {self.state_id} was, or it was emptied: restart the service."
        )

    def _check_id(self, state_id: str | None) -> None:
        if state_id != self.state_id:
            raise self._lost()

    def _script(self, script: str, names: Sequence[str], arguments: Sequence[str | bytes]) -> Any:
        keys = [self._keys[name] for name in names]
        with self._asking():
            return self._redis.eval(script, len(keys), *keys, self.state_id, *cast(list[str], arguments))

    def _commit(self, group: list[Task[Batch]]) -> None:
        """Send a group at once; one batch is one script."""
        keys = [self._keys[name] for name in NAMES[:7]]
        try:
            self._breaker.check()
            with self._redis.pipeline(transaction=False) as pipe:
                for task in group:
                    pipe.eval(APPEND, len(keys), *keys, self.state_id, *cast(list[str], task.work.arguments))
                results = pipe.execute(raise_on_error=False)
            self._breaker.succeeded()
        except Exception as error:
            told = error if isinstance(error, StateError) else self._unwritten(error)
            for task in group:
                task.future.set_exception(told)
            return
        for task, result in zip(group, results, strict=True):
            if isinstance(result, Exception):
                task.future.set_exception(self._unwritten(result))
                continue
            accepted, last = int(result[0]), int(result[1])
            self._seen = max(self._seen, last)
            if task.work.erases:
                try:
                    self._finish_erasures()
                except StateError as error:  # the next start goes on with it
                    task.future.set_exception(error)
                    continue
            task.future.set_result(Appended(accepted, task.work.size - accepted, last))

    def _unwritten(self, error: Exception) -> StateError:
        if not isinstance(error, RedisError):
            return StateError(f"{self.name}: the state can't be written ({error!r}).")
        failure = self._failure(error)
        if isinstance(error, ResponseError):
            return failure
        return StateError(
            f"{failure} Whether the interactions were taken is not known; sent again with the same ids they count once."
        )

    def _finish_erasures(self) -> None:
        """Erase the entries of users whose erasure is logged."""
        for user_id, upto in list(self._fields("erasing")):
            after = self.position().compacted
            while after < int(upto):
                with self._asking():
                    found = self._redis.xrange(self._keys["log"], min=f"{after + 1}-0", max=f"{upto}-0", count=PAGE)
                arguments: list[str] = []
                for identity, fields in cast(list[tuple[str, dict[str, str]]], found):
                    after = int(identity.partition("-")[0])
                    if fields["u"] == user_id and fields["k"] != "erasure":
                        item = fields["i"] if fields["k"] == "interaction" else ""
                        arguments += [str(after), item, fields["e"]]
                if arguments:
                    self._script(ERASE, ["meta", "log", "erased", "keys"], arguments)
                if not found:
                    break
            self._script(DROP, ["meta", "erasing"], [user_id, upto])

    def _erased_items(self, sequences: Sequence[int]) -> dict[int, str]:
        items: dict[int, str] = {}
        for part in chunks(sequences, PAGE):
            with self._asking():
                found = cast(list[str | None], self._redis.hmget(self._keys["erased"], [str(n) for n in part]))
            for sequence, item in zip(part, found, strict=True):
                if item is None:
                    raise StateError(f"{self.name}: entry {sequence} of the log is missing: restore a backup.")
                items[sequence] = item
        return items

    def _fields(self, name: str) -> Iterator[tuple[str, str]]:
        """Every field of a hash once, a page at a time."""
        cursor, told = 0, set()
        while True:
            with self._asking():
                cursor, page = cast(tuple[int, dict[str, str]], self._redis.hscan(self._keys[name], cursor, count=PAGE))
            for field, value in page.items():
                if field not in told:
                    told.add(field)
                    yield field, value
            if cursor == 0:
                return

    def _drop(self, name: str, which: Callable[[str, str], bool]) -> None:
        """Drop fields of a hash, a page at a time."""
        for part in chunks(((field, value) for field, value in self._fields(name) if which(field, value)), PAGE):
            self._script(DROP, ["meta", name], [text for pair in part for text in pair])

    def _put(self, values: dict[str, dict[str, str]]) -> None:
        with self._asking(), self._redis.pipeline(transaction=True) as pipe:
            for name, mapping in values.items():
                if mapping:
                    pipe.hset(self._keys[name], mapping=cast(Any, mapping))
            pipe.execute()


def split_prefix(url: str) -> tuple[str, str]:
    """A Redis URL less its `prefix` parameter, and the prefix."""
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    prefix = next((value for name, value in query if name == "prefix" and value), DEFAULT_PREFIX)
    rest = urlencode([(name, value) for name, value in query if name != "prefix"])
    return _url(parts.scheme, parts.netloc, parts.path, rest), prefix


def without_password(url: str) -> str:
    """A URL for messages and logs: without what stands before the host, and without a password among parameters."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    query = urlencode([(name, value) for name, value in parse_qsl(parts.query) if "password" not in name])
    return _url(parts.scheme, host, parts.path, query)


def _url(scheme: str, host: str, path: str, query: str) -> str:
    # `urlunsplit` would drop the slashes of unix:///path.
    return f"{scheme}://{host}{path}{'?' if query else ''}{query}"


def _batch(rows: Sequence[Row]) -> Batch:
    arguments = [
        value.encode()
        for row in rows
        for value in (
            row.kind,
            row.user_id,
            row.item_id,
            repr(float(row.timestamp)),
            row.type,
            row.event_id or "",
            row.content or "",
        )
    ]
    return Batch(arguments, len(rows), any(row.kind == "erasure" for row in rows))


def _row(fields: dict[str, str]) -> Row:
    return Row(
        cast(Any, fields["k"]),
        fields["u"],
        fields["i"],
        float(fields["at"]),
        fields["t"],
        fields["e"] or None,
        fields["c"] or None,
    )


def _record(external_id: str, value: str) -> Record:
    sequence, _, content = value.partition(" ")
    return Record(external_id, orjson.loads(content), int(sequence))


def _value(record: Record) -> str:
    return f"{record.sequence} {orjson.dumps(record.content, option=orjson.OPT_SORT_KEYS).decode()}"
