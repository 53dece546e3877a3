"""The venues by name, one line each: name -> what makes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from fillwright.core.ports import Clock, Venue
from fillwright.venues.simulated import Market, SimulatedVenue

VENUES: Final[Mapping[str, Callable[[str, Market, Clock], Venue]]] = {
    "raydium": SimulatedVenue,
    "meteora": SimulatedVenue,
}
