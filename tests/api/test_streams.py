"""The past, then the present: no gap, no double, whoever listens and whenever they come."""

from __future__ import annotations

import asyncio
import json
import socket

import aiohttp
import pytest

from tests.virtual import until
from tests.world import SWAP, Json, World, a_world, read_all

LIFE = ["pending", "routing", "building", "submitted", "confirmed"]


def updates(messages: list[Json]) -> list[Json]:
    return [message for message in messages if message["event"] == "order:update"]


async def read_events(response: aiohttp.ClientResponse) -> list[Json]:
    """Return every server-sent event, its id beside its data."""
    text = (await response.read()).decode()
    blocks = [
        dict(line.split(": ", 1) for line in block.split("\n")) for block in text.split("\n\n") if "data: " in block
    ]
    return [{"id": block["id"], **json.loads(block["data"])} for block in blocks]


@pytest.mark.parametrize("path", ["/api/orders/execute?orderId={id}", "/api/orders/{id}/stream"])
async def test_one_who_listens_from_the_start_sees_every_event_then_a_close(path: str) -> None:
    async with a_world() as world:
        order_id = await world.submit()
        async with world.http.ws_connect(path.replace("{id}", order_id)) as websocket:
            messages = await read_all(websocket)
        assert messages[0]["event"] == "connection:established"
        assert messages[0]["orderId"] == order_id
        assert [(m["seq"], m["status"]) for m in updates(messages)] == list(enumerate(LIFE, 1))
        assert all(set(m) == {"event", "orderId", "seq", "status", "timestamp", "data"} for m in updates(messages))
        assert websocket.close_code == 1000


async def test_one_who_comes_late_sees_the_same() -> None:
    async with a_world() as world:
        order_id = await world.submit()
        live = await world.follow(order_id)
        await world.clock.sleep(60_000)
        assert await world.follow(order_id) == live


async def test_two_listeners_who_come_at_different_moments_see_the_same() -> None:
    async with a_world() as world:
        order_id = await world.submit()

        async def listen(after_ms: int) -> list[Json]:
            await world.clock.sleep(after_ms)
            return await world.follow(order_id)

        heard = await asyncio.gather(*(listen(after_ms) for after_ms in range(0, 3_000, 150)))
        assert all(one == heard[0] for one in heard)
        assert [update["seq"] for update in heard[0]] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("after", range(7))
async def test_a_listener_resumes_after_the_last_event_it_saw(after: int) -> None:
    async with a_world() as world:
        order_id = await world.submit()
        assert [update["seq"] for update in await world.follow(order_id, after)] == [1, 2, 3, 4, 5][after:]
        assert [update["seq"] for update in await world.follow(order_id, after)] == [1, 2, 3, 4, 5][after:]


async def test_a_cut_connection_resumes_without_gap_or_double() -> None:
    async with a_world() as world:
        order_id, seen = await world.submit(), list[int]()
        while 5 not in seen:
            async with world.http.ws_connect(f"/api/orders/{order_id}/stream?after={len(seen)}") as websocket:
                async for message in websocket:
                    update = json.loads(message.data)
                    if update["event"] == "order:update":
                        seen.append(update["seq"])
                        break
        assert seen == [1, 2, 3, 4, 5]


async def test_news_that_is_lost_is_read_from_the_log_within_the_poll_interval() -> None:
    async with a_world() as world:
        world.engine.bus._listeners.remove(world.engine.streams._hear)  # type: ignore[attr-defined]
        order_id = await world.submit()
        started = world.clock.now_ms()
        assert [update["status"] for update in await world.follow(order_id)] == LIFE
        assert world.clock.now_ms() - started < 3_600 + 1_000


async def test_server_sent_events_carry_the_same_life_and_resume_by_last_event_id() -> None:
    async with a_world() as world:
        order_id = await world.submit()
        headers = {"Accept": "text/event-stream"}
        async with world.http.get(f"/api/orders/{order_id}/stream", headers=headers) as response:
            assert response.content_type == "text/event-stream"
            events = await read_events(response)
        assert [(int(event["id"]), event["status"]) for event in events] == list(enumerate(LIFE, 1))
        async with world.http.get(
            f"/api/orders/{order_id}/stream", headers={**headers, "Last-Event-ID": "3"}
        ) as response:
            assert await read_events(response) == events[3:]


async def test_a_post_that_accepts_events_is_answered_with_the_order_s_life() -> None:
    async with a_world() as world:
        headers = {"Accept": "text/event-stream"}
        async with world.http.post("/api/orders/execute", json=SWAP, headers=headers) as response:
            assert response.status == 200
            events = await read_events(response)
        assert [event["status"] for event in events] == LIFE
        async with world.http.post("/api/orders/execute", json={}, headers=headers) as response:
            assert response.status == 400


async def test_an_order_can_be_the_first_message_of_a_websocket() -> None:
    async with a_world() as world, world.http.ws_connect("/api/orders/execute") as websocket:
        assert (await websocket.receive_json())["event"] == "connection:established"
        await websocket.send_json({**SWAP, "clientOrderId": "mine"})
        accepted = await websocket.receive_json()
        assert (accepted["event"], accepted["clientOrderId"]) == ("order:accepted", "mine")
        heard = [await websocket.receive_json() for _ in LIFE]
        assert [update["status"] for update in heard] == LIFE
        assert {update["orderId"] for update in heard} == {accepted["orderId"]}


async def test_one_websocket_takes_many_orders_and_refuses_bad_ones_by_themselves() -> None:
    async with a_world() as world, world.http.ws_connect("/api/orders/execute") as websocket:
        await websocket.receive_json()
        for body in ('{"tokenIn":"SOL"}', "nonsense", json.dumps(SWAP), json.dumps(SWAP)):
            await websocket.send_str(body)
        await websocket.send_bytes(b"\x00")
        messages = [await websocket.receive_json() for _ in range(3 + 2 * 6)]
        assert [m["code"] for m in messages if m["event"] == "error"] == ["invalid_request"] * 3
        seen = [(m["orderId"], m["seq"]) for m in updates(messages)]
        assert len(seen) == len(set(seen)) == 10


async def test_the_stream_of_everything_carries_every_order() -> None:
    async with a_world() as world, world.http.ws_connect("/api/stream") as websocket:
        assert (await websocket.receive_json())["event"] == "connection:established"
        ids = [await world.submit() for _ in range(3)]
        heard = [await websocket.receive_json() for _ in range(15)]
        for order_id in ids:
            assert [m["seq"] for m in heard if m["orderId"] == order_id] == [1, 2, 3, 4, 5]


async def test_an_unknown_order_has_no_stream() -> None:
    async with a_world() as world:
        for path in ("/api/orders/ord_01M829SA5JKJF0H5TA5WE28N6K/stream", "/api/orders/execute?orderId=x", "/nowhere"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await world.http.ws_connect(path)
            assert refused.value.status == 404
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await world.http.ws_connect(f"/api/orders/{await world.submit()}/stream?after=x")
        assert refused.value.status == 400


async def test_an_order_is_not_accepted_when_there_is_no_place_for_its_stream() -> None:
    async with a_world(stream_connections_max=1) as world, world.http.ws_connect("/api/stream"):
        await until(lambda: world.engine.streams.connections == 1)
        headers = {"Accept": "text/event-stream"}
        async with world.http.post("/api/orders/execute", json=SWAP, headers=headers) as response:
            assert response.status == 503
        assert (await world.get("/api/orders/stats"))[1]["queue"]["total"] == 0


async def test_a_repeated_order_on_one_socket_is_followed_once() -> None:
    async with a_world() as world, world.http.ws_connect("/api/orders/execute") as websocket:
        for _ in range(3):
            await websocket.send_json({**SWAP, "clientOrderId": "mine"})
        messages = [await websocket.receive_json() for _ in range(1 + 3 + 5)]
        assert sorted(m["seq"] for m in updates(messages)) == [1, 2, 3, 4, 5]


async def test_an_order_over_a_websocket_that_cannot_be_read_is_refused_not_ignored() -> None:
    async with a_world() as world, world.http.ws_connect("/api/orders/execute") as websocket:
        await websocket.receive_json()
        await websocket.send_str("[" * 10_000)
        assert (await websocket.receive_json())["code"] == "invalid_request"


async def test_a_resumed_stream_of_an_order_that_is_over_says_so() -> None:
    async with a_world() as world:
        order_id = await world.submit()
        await world.follow(order_id)
        path = f"/api/orders/{order_id}/stream"
        for after in (5, 7):
            async with world.http.ws_connect(f"{path}?after={after}") as websocket:
                assert updates(await read_all(websocket)) == []
                assert websocket.close_code == 1000
            headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
            async with world.http.get(path, headers=headers) as response:
                assert response.status == 204


async def test_streams_are_counted_and_bounded() -> None:
    async with a_world(working=False, stream_connections_max=2) as world:
        order_id = await world.submit()
        path = f"/api/orders/{order_id}/stream"
        async with world.http.ws_connect(path), world.http.ws_connect("/api/stream"):
            await until(lambda: world.engine.streams.connections == 2)
            assert (await world.get("/api/orders/stats"))[1]["websocket"]["connections"] == 2
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await world.http.ws_connect(path)
            assert refused.value.status == 503
        await until(lambda: world.engine.streams.connections == 0)


class RawClient:
    """A socket of our own, for what no client library does."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, world: World, receive_buffer: int | None = None) -> RawClient:
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", world.port))
        return cls(*await asyncio.open_connection(sock=connection))

    async def request(self, method: str, path: str, body: bytes = b"", *headers: str) -> tuple[int, bytes]:
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0] or 0)
        return int(head.split()[1]), await self.reader.readexactly(length)

    async def frame(self) -> tuple[int, bytes]:
        """Return the opcode and payload of the next WebSocket frame."""
        first, length = await self.reader.readexactly(2)
        if length == 126:
            length = int.from_bytes(await self.reader.readexactly(2))
        return first & 15, await self.reader.readexactly(length)


UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


async def test_a_client_posts_then_upgrades_the_same_connection_on_the_same_path() -> None:
    async with a_world() as world:
        client = await RawClient.connect(world)
        body = json.dumps(SWAP).encode()
        status, answer = await client.request("POST", "/api/orders/execute", body, "Content-Type: application/json")
        assert status == 201
        path = json.loads(answer)["websocket"].removeprefix("ws://localhost")
        status, _ = await client.request("GET", path, b"", *UPGRADE)
        assert status == 101
        heard = list[Json]()
        while (frame := await client.frame())[0] == 1:
            heard.append(json.loads(frame[1]))
        assert [update["status"] for update in updates(heard)] == LIFE
        client.writer.close()


async def test_a_post_that_asks_for_an_upgrade_is_answered_as_a_post() -> None:
    async with a_world() as world:
        client = await RawClient.connect(world)
        body = json.dumps(SWAP).encode()
        status, answer = await client.request(
            "POST", "/api/orders/execute", body, "Content-Type: application/json", *UPGRADE
        )
        assert status == 201
        assert [u["status"] for u in await world.follow(json.loads(answer)["orderId"])] == LIFE
        client.writer.close()


@pytest.mark.parametrize(
    "extra",
    [
        ("Connection: Upgrade", "Upgrade: h2c"),
        ("Connection: Upgrade", "Connection: keep-alive", "Upgrade: h2c"),
        ("Connection: Upgrade", "Upgrade:"),
        ("Connection: Upgrade", "Upgrade: h2c", "Upgrade: websocket"),
    ],
)
async def test_an_upgrade_that_cannot_be_had_is_not_asked_for(extra: tuple[str, ...]) -> None:
    async with a_world(working=False) as world:
        client = await RawClient.connect(world)
        body = json.dumps(SWAP).encode()
        for _ in range(2):
            status, _ = await client.request(
                "POST", "/api/orders/execute", body, "Content-Type: application/json", *extra
            )
            assert status == 201
        client.writer.close()


@pytest.mark.parametrize("extra", [(), UPGRADE], ids=["plain", "with an upgrade"])
async def test_a_connect_is_refused_and_the_engine_goes_on(extra: tuple[str, ...]) -> None:
    async with a_world() as world:
        client = await RawClient.connect(world)
        client.writer.write("\r\n".join(["CONNECT localhost:443 HTTP/1.1", "Host: localhost", *extra, "", ""]).encode())
        assert (await client.reader.readline()).startswith(b"HTTP/1.1 4")
        client.writer.close()
        assert (await world.get("/health"))[0] == 200


async def test_a_client_that_does_not_read_is_closed_with_the_reason_and_others_are_served() -> None:
    async with a_world(sim_speed=0.0, stream_backlog_max=50, queue_concurrency=100) as world:
        slow = await RawClient.connect(world, receive_buffer=4_096)
        status, _ = await slow.request("GET", "/api/stream", b"", *UPGRADE)
        assert status == 101
        async with world.http.ws_connect("/api/stream") as reader:
            await reader.receive_json()
            heard = list[Json]()

            async def read() -> None:
                while len(heard) < 2_000 * 5:
                    heard.append(await reader.receive_json())

            reading = asyncio.create_task(read())
            for _ in range(100):
                await asyncio.gather(*(world.submit() for _ in range(20)))
            await reading
        assert len({(m["orderId"], m["seq"]) for m in heard}) == 10_000
        await until(lambda: world.engine.streams.connections == 0)
        last = b""
        while (frame := await slow.frame())[0] == 1:
            last = frame[1]
        assert json.loads(last)["event"] == "order:update"
        assert frame[0] == 8
        assert int.from_bytes(frame[1][:2]) == 1013
        assert b"does not read" in frame[1]
        slow.writer.close()


async def test_a_stopping_engine_tells_its_listeners_to_come_back() -> None:
    async with a_world(working=False) as world:
        order_id = await world.submit()
        websocket = await world.http.ws_connect(f"/api/orders/{order_id}/stream")
        events = await world.http.get(f"/api/orders/{order_id}/stream", headers={"Accept": "text/event-stream"})
        world.engine.streams.close()
        assert updates(await read_all(websocket))
        assert websocket.close_code == 1012
        assert len(await read_events(events)) == 1


async def test_what_a_client_says_before_its_handshake_is_answered_is_not_heard() -> None:
    faults = list[Json]()
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
    async with a_world() as world:
        lines = ["GET /api/orders/ord_00000000000000000000000000/stream HTTP/1.1", "Host: localhost"]
        lines += ["Connection: Upgrade", "Upgrade: websocket"]
        lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + "A" * 22 + "=="]
        for turns in range(1, 10):  # of the loop; the engine looks for the order meanwhile
            reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
            writer.write("\r\n".join([*lines, "", ""]).encode())
            for _ in range(turns):
                await asyncio.sleep(0)
            writer.write(b"\xff\xff no frame")
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 404 ")
            assert json.loads(body)["code"] == "order_not_found"
            writer.close()
    assert faults == []
