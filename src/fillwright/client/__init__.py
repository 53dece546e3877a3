"""An engine as Python programs reach it: `Fillwright`, and `AsyncFillwright` for those that run an event loop.

Nothing of the engine is imported here: this could be a package of its own.
"""

from fillwright.client.asynchronous import AsyncFillwright
from fillwright.client.blocking import Fillwright
from fillwright.client.errors import ClientError, Refused, Unreachable
from fillwright.client.model import (
    Accepted,
    Amount,
    Attempt,
    Decision,
    Explanation,
    Failure,
    Fill,
    Order,
    Quote,
    Route,
    Stats,
    Status,
    Terms,
    Update,
)

__all__ = [
    "Accepted",
    "Amount",
    "AsyncFillwright",
    "Attempt",
    "ClientError",
    "Decision",
    "Explanation",
    "Failure",
    "Fill",
    "Fillwright",
    "Order",
    "Quote",
    "Refused",
    "Route",
    "Stats",
    "Status",
    "Terms",
    "Unreachable",
    "Update",
]
