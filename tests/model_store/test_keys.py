import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.keys import node_key, node_keys
from tests.model_store import reference


@pytest.mark.parametrize("external_id", ["", "7", "ada", "Ольга", "🎬" * 40, "x" * 128, "x" * 129, "x" * 256])
@pytest.mark.parametrize("kind", ["user", "item"])
def test_a_key_is_the_reference_s_blake2b_of_kind_and_id(kind: str, external_id: str) -> None:
    assert node_key(kind, external_id) == reference.key((kind, external_id))  # type: ignore[arg-type]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_user_and_an_item_of_one_name_have_two_keys(external_id: str) -> None:
    assert node_key("user", external_id) != node_key("item", external_id)


def test_many_keys_are_each_node_s_key_in_order() -> None:
    ids = np.array(["b", "a", "c"])
    keys = node_keys("item", ids)
    assert keys.dtype == np.uint64
    assert keys.tolist() == [node_key("item", i) for i in ("b", "a", "c")]
    assert node_keys("user", []).shape == (0,)
