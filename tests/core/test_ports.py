"""What the seams say without an implementation."""

from __future__ import annotations

from fillwright.core.ports import anything
from tests.builders import some_id


def test_a_listener_that_names_no_orders_wants_the_news_of_all() -> None:
    assert anything(some_id())
