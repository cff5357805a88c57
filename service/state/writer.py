"""One thread that writes for many callers: what waits together is committed together."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, NamedTuple, TypeVar

from service.errors import StateError

Work = TypeVar("Work")

# Most tasks in one group.
GROUP = 256


class Task(NamedTuple, Generic[Work]):
    """Something to be written, and who waits for it."""

    work: Work
    future: Future[Any]


class GroupWriter(Generic[Work]):
    """Hands groups of waiting tasks to `commit`, from one thread."""

    def __init__(self, name: str, commit: Callable[[list[Task[Work]]], None]) -> None:
        """Start the thread.

        Args:
            name: of the state, for messages.
            commit: writes a group and ends every future of it. Where it raises, the futures that it has left fail.
        """
        self._name = name
        self._commit = commit
        self._tasks: queue.SimpleQueue[Task[Work] | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="kdiffe-state", daemon=True)
        self._thread.start()

    def submit(self, work: Work) -> Future[Any]:
        """Queue a task; its future fails where the writer is closed."""
        future: Future[Any] = Future()
        with self._closing:
            if self._closed:
                future.set_exception(StateError(f"{self._name}: the state is closed."))
            else:
                self._tasks.put(Task(work, future))
        return future

    def close(self) -> bool:
        """Write what waits and end the thread. Whether it was this call that closed it."""
        with self._closing:
            if self._closed:
                return False
            self._closed = True
            self._tasks.put(None)
        self._thread.join()
        return True

    def _run(self) -> None:
        ending = False
        while not ending:
            group = []
            task = self._tasks.get()
            while True:
                if task is None:
                    ending = True
                    break
                if task.future.set_running_or_notify_cancel():
                    group.append(task)
                if len(group) >= GROUP:
                    break
                try:
                    task = self._tasks.get_nowait()
                except queue.Empty:
                    break
            if not group:
                continue
            try:
                self._commit(group)
            except Exception as error:  # whatever it is: nobody waits for ever, and the next group gets its turn
                for waiting in group:
                    if not waiting.future.done():
                        waiting.future.set_exception(StateError(f"{self._name}: can't be written ({error!r})."))
