"""The machine's clock."""

from __future__ import annotations

import asyncio
import time

from fillwright.core.units import Millis


class SystemClock:
    def now_ms(self) -> Millis:
        return time.time_ns() // 1_000_000

    async def sleep(self, span_ms: Millis) -> None:
        await asyncio.sleep(span_ms / 1000)
