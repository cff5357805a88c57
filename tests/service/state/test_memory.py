from __future__ import annotations

from service.state.memory import MemoryState
from tests.service.state.contract import StateContract


class TestMemoryState(StateContract):
    def make(self, directory):
        directory.mkdir(exist_ok=True)
        return MemoryState()
