"""What every Bus keeps."""

from __future__ import annotations

from collections.abc import Sequence

from fillwright.backends.memory import MemoryBus
from fillwright.core.lifecycle import Recorded, RoutingStarted, Update
from tests.builders import some_order


def some_news() -> list[Update]:
    order = some_order()
    return [Update(Recorded(order.id, 2, 1_000, RoutingStarted(1)), order)]


async def test_every_listener_hears_each_commit_once() -> None:
    bus, heard = MemoryBus(), list[Sequence[Update]]()
    bus.subscribe(heard.append)
    bus.subscribe(heard.append)
    news = some_news()
    bus.publish(news)
    assert heard == [news, news]


async def test_a_listener_that_left_hears_nothing_more() -> None:
    bus, heard = MemoryBus(), list[Sequence[Update]]()
    leave = bus.subscribe(heard.append)
    leave()
    bus.publish(some_news())
    assert heard == []


async def test_a_listener_s_fault_does_not_keep_the_news_from_the_others() -> None:
    bus, heard = MemoryBus(), list[Sequence[Update]]()

    def broken(_: Sequence[Update]) -> None:
        raise ValueError("a fault")

    bus.subscribe(broken)
    bus.subscribe(heard.append)
    bus.publish(some_news())
    assert len(heard) == 1
