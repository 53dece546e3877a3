"""What every Bus keeps, and what the one between processes keeps besides."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import pytest

from fillwright.backends import open_bus
from fillwright.backends.memory import MemoryBus
from fillwright.core.errors import StoreUnavailable
from fillwright.core.lifecycle import Accepted, Recorded, RouteSelected, RoutingStarted, Update
from fillwright.core.order import Order
from fillwright.core.ports import Bus
from fillwright.core.units import OrderId
from tests.builders import a_route, some_order, some_terms
from tests.process import in_real_time
from tests.relay import a_relay

BUSES: Final = ("memory", "redis")


def some_news(number: int = 1) -> list[Update]:
    order = some_order(number)
    return [Update(Recorded(order.id, 2, 1_000, RoutingStarted(1)), order)]


class Buses:
    """Opens buses that belong together, each as in a process of its own where it joins processes."""

    def __init__(self, url: str) -> None:
        self.url = url

    def run_test(self, test: Coroutine[Any, Any, None]) -> None:
        in_real_time(test, within_s=30)

    @contextlib.asynccontextmanager
    async def bus(self, url: str | None = None, *, name: str = "here", start: bool = True) -> AsyncIterator[Bus]:
        bus = open_bus(self.url if url is None else url, MemoryBus(), name)
        if start:
            bus.start()
        try:
            yield bus
        finally:
            await bus.close()


@pytest.fixture(params=BUSES)
def buses(request: pytest.FixtureRequest) -> Buses:
    return Buses(request.getfixturevalue("redis_url") if request.param == "redis" else "")


@pytest.fixture
def redis_buses(redis_url: str) -> Buses:
    return Buses(redis_url)


async def until(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds: the other end of a network is looked at, as its users would."""
    while not condition():
        await asyncio.sleep(0.005)


async def test_every_listener_hears_each_commit_once(buses: Buses) -> None:
    async with buses.bus() as bus:
        heard = list[Sequence[Update]]()
        bus.subscribe(heard.append)
        bus.subscribe(heard.append)
        news = some_news()
        bus.publish(news)
        assert heard == [news, news]


async def test_a_listener_that_left_hears_nothing_more(buses: Buses) -> None:
    async with buses.bus() as bus:
        heard = list[Sequence[Update]]()
        leave = bus.subscribe(heard.append)
        leave()
        bus.publish(some_news())
        assert heard == []


async def test_a_listener_s_fault_does_not_keep_the_news_from_the_others(buses: Buses) -> None:
    async with buses.bus() as bus:
        heard = list[Sequence[Update]]()

        def broken(_: Sequence[Update]) -> None:
            raise ValueError("a fault")

        bus.subscribe(broken)
        bus.subscribe(heard.append)
        bus.publish(some_news())
        assert len(heard) == 1


async def test_only_what_may_make_an_order_due_wakes_a_worker(buses: Buses) -> None:
    async with buses.bus() as bus:
        wakes = list[None]()
        leave = bus.subscribe_wakes(lambda: wakes.append(None))
        bus.publish(some_news())
        assert wakes == []
        order = some_order()
        bus.publish([Update(Recorded(order.id, 1, 1_000, Accepted(some_terms())), order)])
        assert wakes == [None]
        leave()
        bus.publish([Update(Recorded(order.id, 1, 1_000, Accepted(some_terms())), order)])
        assert wakes == [None]


async def heard_elsewhere(bus: Bus, other: Bus) -> list[Update]:
    """Return the list of what `other` hears, once it hears what `bus` publishes."""
    heard = list[Update]()
    other.subscribe(heard.extend)
    other.start()
    await until(lambda: bus.fault is None and other.fault is None)
    while not heard:
        bus.publish(some_news(99))
        await asyncio.sleep(0.05)
    heard.clear()
    return heard


async def test_other_processes_hear_each_update_with_the_order_after_it(redis_buses: Buses) -> None:
    async with redis_buses.bus() as bus, redis_buses.bus(start=False) as other:
        heard = await heard_elsewhere(bus, other)
        order: Order = some_order()
        routed = Update(Recorded(order.id, 3, 1_234, RouteSelected(a_route(), 148_500_000)), order)
        bus.publish([*some_news(2), routed])
        await until(lambda: len(heard) == 2)
        assert heard == [*some_news(2), routed]


async def test_engines_that_share_a_redis_do_not_hear_each_other(redis_buses: Buses) -> None:
    async with (
        redis_buses.bus() as bus,
        redis_buses.bus(start=False) as other,
        redis_buses.bus(name="elsewhere", start=False) as stranger,
    ):
        strange = list[Update]()
        stranger.subscribe(strange.extend)
        stranger.start()
        heard = await heard_elsewhere(bus, other)
        bus.publish(some_news())
        await until(lambda: bool(heard))
        assert strange == []


async def test_news_that_a_listener_does_not_want_is_spared(redis_buses: Buses) -> None:
    async with redis_buses.bus() as bus, redis_buses.bus(start=False) as other:
        wanted: Mapping[OrderId, bool] = {some_order(2).id: True}
        picked = list[Update]()
        other.subscribe(picked.extend, lambda order_id: order_id in wanted)
        heard = await heard_elsewhere(bus, other)
        bus.publish([*some_news(1), *some_news(2), *some_news(3)])
        await until(lambda: len(heard) == 3)
        assert picked == some_news(2)


async def test_workers_of_other_processes_are_woken(redis_buses: Buses) -> None:
    async with redis_buses.bus() as bus, redis_buses.bus(start=False) as other:
        wakes = list[None]()
        other.subscribe_wakes(lambda: wakes.append(None))
        other.start()
        await until(lambda: bus.fault is None and other.fault is None)
        order = some_order()
        while not wakes:
            bus.publish([Update(Recorded(order.id, 1, 1_000, Accepted(some_terms())), order)])
            await asyncio.sleep(0.05)


async def test_a_bus_that_was_cut_off_says_so_and_comes_back_by_itself(redis_buses: Buses) -> None:
    async with (
        a_relay(redis_buses.url) as relay,
        redis_buses.bus() as bus,
        redis_buses.bus(relay.url, start=False) as other,
    ):
        heard = await heard_elsewhere(bus, other)
        relay.refuse()
        await until(lambda: other.fault is not None)
        bus.publish(some_news(1))
        other.publish(some_news(2))
        assert heard == some_news(2), "its own process goes on hearing"
        relay.refuse(refusing=False)
        await until(lambda: other.fault is None)
        heard.clear()
        while not heard:
            bus.publish(some_news(3))
            await asyncio.sleep(0.05)
        assert heard[:1] == some_news(3), "what was said meanwhile is in the log"


async def test_a_redis_that_stands_still_is_noticed(redis_buses: Buses) -> None:
    async with a_relay(redis_buses.url) as relay, redis_buses.bus(relay.url, start=False) as bus:
        bus.subscribe(lambda _: None)
        bus.start()
        await until(lambda: bus.fault is None)
        relay.stand_still()
        loop = asyncio.get_running_loop()
        since = loop.time()
        await until(lambda: bus.fault is not None)
        assert loop.time() - since < 5


def test_an_address_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(StoreUnavailable, match="REDIS_URL cannot be read"):
        open_bus("redis://localhost:port/0", MemoryBus(), "here")
