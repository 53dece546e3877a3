"""Keys and limits of a campaign: every client has a key, and one account's limit is for less than what it asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fillwright.clock import SystemClock
from fillwright.core.control import LimitsSet, Scope, new_key
from fillwright.core.lifecycle import Accepted, Confirmed, Recorded
from fillwright.core.limits import EVERYBODY, of_account, of_key
from fillwright.core.limits_document import from_document
from fillwright.core.ports import Store
from fillwright.core.tokens import TokenRegistry
from fillwright.core.units import OrderId
from fillwright.execution.gate import Gate

TOKENS: Final = TokenRegistry()
SOL: Final = TOKENS.resolve("SOL", "token")
CAPPED_SHARE: Final = 0.05  # of the clients, how many are of the account with too low a limit
GENEROUS: Final = {
    "orderUsd": "1000000", "dayUsd": "1000000000", "orderAmount": {"SOL": "10000"}, "tokens": ["SOL", "USDC", "BONK"],
    "slippage": "0.1", "priceImpact": "0.5", "priceDeviation": "0.5", "openOrders": 100_000,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Guards:
    """The keys by account, as headers, and how much SOL the account `capped` may sell in a day."""

    headers: Mapping[str, Mapping[str, str]]
    cap: int


async def set_up(store: Store, orders: int) -> Guards:
    """Make keys and limits. Of what the account `capped` asks for, some two fifths fit its limit."""
    gate = Gate(store, SystemClock())
    cap = max(1, round(orders * CAPPED_SHARE * 20)) * 10**SOL.decimals
    headers: dict[str, dict[str, str]] = {}
    for number, account in enumerate(("desk", "capped")):
        created, text = new_key(account, account, frozenset(Scope), bytes([number + 1]) * 40)
        await gate.change("campaign", created)
        headers[account] = {"Authorization": f"Bearer {text}"}
        limits: dict[str, Any] = {**GENEROUS}
        if account == "capped":
            limits["dayAmount"] = {"SOL": str(cap // 10**SOL.decimals)}
        await gate.change("campaign", LimitsSet(of_account(account), from_document(limits, TOKENS)))
        await gate.change("campaign", LimitsSet(of_key(created.key_id), from_document(GENEROUS, TOKENS)))
    await gate.change("campaign", LimitsSet(EVERYBODY, from_document(GENEROUS, TOKENS)))
    return Guards(headers, cap)


async def judge_sums(guards: Guards, store: Store, logs: Mapping[OrderId, list[Recorded]]) -> list[str]:
    """Return what is wrong with the sums: they are those of the orders that were filled, and within the limit."""
    filled: dict[tuple[int, str], int] = {}
    for account, day, amount in _filled(logs):
        for of in (EVERYBODY, of_account(account)):
            filled[day, of] = filled.get((day, of), 0) + amount
    found = []
    for (day, of), amount in sorted(filled.items()):
        used = (await store.usage(day, [of])).get((of, SOL.mint), 0)
        if used != amount:
            found.append(f"the sum of {of} on day {day} is {used}, and its orders were filled for {amount}")
        if of == of_account("capped") and amount > guards.cap:
            found.append(f"{of} was filled for {amount} on day {day}, over its limit of {guards.cap}")
    return found


def _filled(logs: Mapping[OrderId, list[Recorded]]) -> Iterator[tuple[str, int, int]]:
    for log in logs.values():
        first, last = log[0].event, log[-1].event
        if isinstance(first, Accepted) and isinstance(last, Confirmed) and first.charge is not None:
            yield first.account, first.charge.day, first.terms.in_amount
