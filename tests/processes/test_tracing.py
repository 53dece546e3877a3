"""Traces: one for each order, made from its log, whichever processes worked on it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.process import a_process, in_real_time
from tests.world import SWAP

Spans = dict[str, list[Any]]
"""By the name of the span."""


@asynccontextmanager
async def a_collector() -> AsyncIterator[tuple[str, dict[bytes, Spans]]]:
    """Collect what is sent by OTLP, by trace."""
    traces: dict[bytes, Spans] = defaultdict(lambda: defaultdict(list))

    async def take(request: web.Request) -> web.Response:
        sent = ExportTraceServiceRequest.FromString(await request.read())
        for resource in sent.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    traces[span.trace_id][span.name].append(span)
        return web.Response(body=b"", content_type="application/x-protobuf")

    application = web.Application()
    application.router.add_post("/v1/traces", take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces", traces
    finally:
        await runner.cleanup()


def told(span: Any) -> dict[str, str]:
    return {each.key: each.value.string_value or str(each.value.int_value) for each in span.attributes}


@pytest.mark.parametrize("fails", [False, True])
def test_an_order_is_one_trace_across_processes(tmp_path: Path, postgres_url: str, redis_url: str, fails: bool) -> None:
    async def trace() -> None:
        async with a_collector() as (url, traces):
            settings = {
                "database_url": postgres_url,
                "redis_url": redis_url,
                "fillwright_sim_speed": 0.05,
                "fillwright_retry_delay_ms": 10,
                "fillwright_attempts_max": 2,
                "fillwright_sim_reverted_rate": 1.0 if fails else 0.0,
                "fillwright_traces_url": url,
            }
            async with (
                a_process(tmp_path, "serve", "--api-only", **settings) as api,
                a_process(tmp_path, "worker", **settings),
            ):
                async with api.http.post("/api/orders/execute", json=SWAP) as response:
                    order_id = (await response.json())["orderId"]
                assert await api.outcome(order_id) == ("failed" if fails else "confirmed")
                async with api.http.get(f"/api/orders/{order_id}/events") as response:
                    log = (await response.json())["events"]
                while not traces:
                    await asyncio.sleep(0.05)
            ((trace_id, spans),) = traces.items()
        assert trace_id == sha256(order_id.encode()).digest()[:16]
        (order,) = spans["order"]
        assert told(order)["order.id"] == order_id
        assert order.status.code == (2 if fails else 1)
        attempts = [spans[f"attempt {number}"][0] for number in ((1, 2) if fails else (1,))]
        assert {span.parent_span_id for span in attempts} == {order.span_id}
        assert all(span.status.code == (2 if fails else 1) for span in attempts)
        assert told(attempts[0])["venue"] in ("raydium", "meteora")
        assert len(spans["pending"]) == len(spans["submitted"]) == len(attempts)
        assert {span.parent_span_id for span in spans["building"]} == {span.span_id for span in attempts}
        everything = [span for named in spans.values() for span in named]
        assert len({span.span_id for span in everything}) == len(everything)
        assert len(everything) == 1 + len(attempts) + len(log) - 1
        assert all(order.start_time_unix_nano <= span.start_time_unix_nano for span in everything)
        assert all(span.end_time_unix_nano <= order.end_time_unix_nano for span in everything)

    in_real_time(trace())


def test_an_engine_whose_collector_is_away_works_all_the_same(tmp_path: Path) -> None:
    async def work() -> None:
        settings = {"fillwright_sim_speed": 0, "fillwright_traces_url": "http://127.0.0.1:1/v1/traces"}
        async with a_process(tmp_path, "serve", **settings) as engine:
            async with engine.http.post("/api/orders/execute", json=SWAP) as response:
                order_id = (await response.json())["orderId"]
            assert await engine.outcome(order_id) == "confirmed"
            assert await engine.stop() == 0

    in_real_time(work())
