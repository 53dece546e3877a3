"""The client for programs that run an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator
from datetime import datetime
from types import TracebackType
from typing import Final, Self

from fillwright.client import following
from fillwright.client.connection import ClientSettings, Connection, order_path
from fillwright.client.model import (
    Accepted,
    Amount,
    Explanation,
    Order,
    Route,
    Stats,
    Status,
    Update,
    amount_text,
)

URL: Final = "http://localhost:3000"
TIMEOUT_S: Final = 30.0
PATIENCE_S: Final = 60.0


class AsyncFillwright:
    """An engine.

    Without `api_key`, that in FILLWRIGHT_API_KEY is sent, if it is set. `timeout_s` bounds each request with all its
    repetitions; `patience_s` is how long the engine may be away from under somebody who follows.

    Every method raises Refused if the engine says no, and Unreachable if it does not answer.
    """

    def __init__(
        self,
        url: str = URL,
        api_key: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._connection = Connection(ClientSettings(url, api_key, timeout_s, patience_s))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._connection.close()

    async def submit(
        self,
        token_in: str,
        token_out: str,
        amount: Amount,
        *,
        slippage: Amount | None = None,
        client_order_id: str | None = None,
        expires_at: datetime | None = None,
    ) -> Accepted:
        """Submit an order: swap `amount` of `token_in` for `token_out`. Return once it is on disk.

        It is one order, however often the request had to be repeated: a client order id is drawn if none is given. To
        submit it again from another process, give one.
        """
        body = {
            **_swap(token_in, token_out, amount, slippage),
            "clientOrderId": client_order_id if client_order_id is not None else f"py-{uuid.uuid4().hex}",
            **({} if expires_at is None else {"expiresAt": _time(expires_at)}),
        }
        status, answer = await self._connection.ask("POST", "/api/orders/execute", body=body)
        return Accepted.read(answer, is_new=status == 201)

    async def quote(self, token_in: str, token_out: str, amount: Amount, *, slippage: Amount | None = None) -> Route:
        """Return the route that an order would take now. Nothing is executed."""
        body = _swap(token_in, token_out, amount, slippage)
        return Route.read((await self._connection.ask("POST", "/api/quotes", body=body))[1])

    async def get(self, order_id: str) -> Order:
        """Return an order with its fill, quotes and attempts."""
        return Order.read((await self._connection.ask("GET", order_path(order_id)))[1])

    async def events(self, order_id: str, after: int = 0) -> tuple[Update, ...]:
        """Return an order's log so far, from behind the event `after`."""
        return await self._connection.events(order_id, after)

    async def explain(self, order_id: str) -> Explanation:
        """Return every quote for an order, why its venue was selected, and how the fill compares."""
        return Explanation.read((await self._connection.ask("GET", f"{order_path(order_id)}/explain"))[1])

    async def cancel(self, order_id: str) -> Order:
        """Cancel an order, as long as nothing is signed for it; after that, raise Refused `not_cancellable`."""
        return Order.read((await self._connection.ask("DELETE", order_path(order_id)))[1])

    async def stats(self) -> Stats:
        """Return how many orders wait, run and are done."""
        return Stats.read((await self._connection.ask("GET", "/api/orders/stats"))[1])

    async def list(
        self,
        *,
        status: Status | None = None,
        token: str | None = None,
        client_order_id: str | None = None,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
    ) -> AsyncGenerator[Order, None]:
        """Yield all orders that fit, newest first; pages are fetched as they are needed."""
        query = {
            "status": status,
            "token": token,
            "clientOrderId": client_order_id,
            "from": None if created_from is None else _time(created_from),
            "to": None if created_to is None else _time(created_to),
        }
        orders = self._connection.orders({name: value for name, value in query.items() if value is not None})
        async with contextlib.aclosing(orders):
            async for order in orders:
                yield order

    async def wait(self, order_id: str, timeout_s: float | None = None) -> Order:
        """Return an order once it is over, however it ended. Raise TimeoutError if that takes longer."""
        async with asyncio.timeout(timeout_s), contextlib.aclosing(self.follow(order_id)) as updates:
            async for _ in updates:
                pass
        return await self.get(order_id)

    def follow(self, order_id: str, after: int = 0) -> AsyncGenerator[Update, None]:
        """Yield an order's updates from behind the event `after`, old and new, each once, and end with its last.

        Cuts and restarts of the engine are waited out.
        """
        return following.follow_order(self._connection, order_id, after)

    def follow_all(self) -> AsyncGenerator[Update, None]:
        """Yield the updates of all orders of the account from now on, each once, each order's in turn, without an end.

        Cuts and restarts of the engine are waited out; what happened meanwhile is told afterwards.
        """
        return following.follow_all(self._connection)


def _swap(token_in: str, token_out: str, amount: Amount, slippage: Amount | None) -> dict[str, str]:
    body = {"tokenIn": token_in, "tokenOut": token_out, "amount": amount_text(amount, "amount")}
    return body if slippage is None else {**body, "slippage": amount_text(slippage, "slippage")}


def _time(time: datetime) -> str:
    if time.tzinfo is None:
        raise ValueError(f"{time} has no time zone")
    return time.isoformat()
