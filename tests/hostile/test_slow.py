"""No client holds a connection, memory or the event loop for longer than it is entitled to."""

from __future__ import annotations

import pytest

from tests.hostile.slow import KINDS, be_slow
from tests.world import a_world


@pytest.mark.parametrize("lane", ["on", "off"])
async def test_clients_that_never_finish_are_ended_in_time_while_others_are_served(lane: str) -> None:
    async with a_world(working=False, fast_lane=lane) as world:
        patience = await be_slow(world.port, each=4)
        assert patience.failures == []
        assert patience.clients == 4 * len(KINDS)
