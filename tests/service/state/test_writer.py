from __future__ import annotations

import pytest

from service.errors import StateError
from service.state.writer import GroupWriter


def test_a_group_that_can_not_even_be_undone_fails_its_callers_and_the_next_one_is_written():
    def commit(group):
        if group[0].work == "broken":
            raise OSError("rolling back failed, too")
        for task in group:
            task.future.set_result(task.work)

    writer = GroupWriter("a state", commit)
    with pytest.raises(StateError, match=r"a state: can't be written .*rolling back failed"):
        writer.submit("broken").result(30)
    assert writer.submit("sound").result(30) == "sound"
    assert writer.close()
