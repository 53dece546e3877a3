"""The client for programs without an event loop: the same, on a loop of its own in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import CancelledError
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from fillwright.client.asynchronous import PATIENCE_S, TIMEOUT_S, URL, AsyncFillwright
from fillwright.client.model import Accepted, Amount, Explanation, Order, Route, Stats, Status, Update

T = TypeVar("T")


class Fillwright:
    """An engine, as AsyncFillwright describes it. May be used by several threads at once; close it when done."""

    def __init__(
        self,
        url: str = URL,
        api_key: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._client = AsyncFillwright(url, api_key, timeout_s=timeout_s, patience_s=patience_s)
        self._loop = asyncio.new_event_loop()
        self._closing = threading.Lock()
        self._is_closed = False
        self._thread = threading.Thread(target=self._loop.run_forever, name="fillwright-client", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection, and end the thread. Whoever still follows an order is stopped."""
        with self._closing:
            if self._is_closed:
                return
            self._is_closed = True
            ending = asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        ending.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def submit(
        self,
        token_in: str,
        token_out: str,
        amount: Amount,
        *,
        slippage: Amount | None = None,
        client_order_id: str | None = None,
        expires_at: datetime | None = None,
    ) -> Accepted:
        """Submit an order, as one however often the request is repeated. Return once it is on disk."""
        return self._run(
            self._client.submit(
                token_in,
                token_out,
                amount,
                slippage=slippage,
                client_order_id=client_order_id,
                expires_at=expires_at,
            )
        )

    def quote(self, token_in: str, token_out: str, amount: Amount, *, slippage: Amount | None = None) -> Route:
        """Return the route that an order would take now. Nothing is executed."""
        return self._run(self._client.quote(token_in, token_out, amount, slippage=slippage))

    def get(self, order_id: str) -> Order:
        """Return an order with its fill, quotes and attempts."""
        return self._run(self._client.get(order_id))

    def events(self, order_id: str, after: int = 0) -> tuple[Update, ...]:
        """Return an order's log so far, from behind the event `after`."""
        return self._run(self._client.events(order_id, after))

    def explain(self, order_id: str) -> Explanation:
        """Return every quote for an order, why its venue was selected, and how the fill compares."""
        return self._run(self._client.explain(order_id))

    def cancel(self, order_id: str) -> Order:
        """Cancel an order, as long as nothing is signed for it; after that, raise Refused `not_cancellable`."""
        return self._run(self._client.cancel(order_id))

    def stats(self) -> Stats:
        """Return how many orders wait, run and are done."""
        return self._run(self._client.stats())

    def list(
        self,
        *,
        status: Status | None = None,
        token: str | None = None,
        client_order_id: str | None = None,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
    ) -> Generator[Order, None, None]:
        """Yield all orders that fit, newest first; pages are fetched as they are needed."""
        return self._iterate(
            lambda: self._client.list(
                status=status,
                token=token,
                client_order_id=client_order_id,
                created_from=created_from,
                created_to=created_to,
            )
        )

    def wait(self, order_id: str, timeout_s: float | None = None) -> Order:
        """Return an order once it is over, however it ended. Raise TimeoutError if that takes longer."""
        return self._run(self._client.wait(order_id, timeout_s))

    def follow(self, order_id: str, after: int = 0) -> Generator[Update, None, None]:
        """Yield an order's updates from behind the event `after`, old and new, each once, and end with its last."""
        return self._iterate(lambda: self._client.follow(order_id, after))

    def follow_all(self) -> Generator[Update, None, None]:
        """Yield the updates of all orders of the account from now on, each once, without an end."""
        return self._iterate(self._client.follow_all)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run on the loop. Whatever ends the wait, Ctrl-C as well, ends the work."""
        with self._closing:
            if self._is_closed:
                coroutine.close()
                raise RuntimeError("the client is closed")
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise RuntimeError("the client was closed meanwhile") from None
        finally:
            future.cancel()

    def _iterate(self, make: Callable[[], AsyncGenerator[T, None]]) -> Generator[T, None, None]:
        items = make()
        while True:
            try:
                item = self._run(_next(items))
            except StopAsyncIteration:
                return
            try:
                yield item
            except GeneratorExit:
                if not self._is_closed:
                    self._run(items.aclose())
                raise

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.get_running_loop().shutdown_asyncgens()
        await self._client.close()


async def _next(items: AsyncGenerator[T, None]) -> T:
    return await anext(items)
