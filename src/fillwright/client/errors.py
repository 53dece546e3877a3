"""What may go wrong between a program and an engine.

ClientError
├── Refused       the engine said no: `status`, `code` and `detail` say why
└── Unreachable   no engine answered in time
"""

from __future__ import annotations


class ClientError(Exception):
    """The base of what the client raises. `is_passing` tells whether the same request may succeed a little later."""

    is_passing: bool


class Refused(ClientError):
    """The engine's answer is a refusal.

    `code` is from the closed list of error codes, `status` the HTTP status, `detail` a sentence for people, `field`
    what of the request it is about. `retry_after_s` is how long the engine asks to be left alone.
    """

    def __init__(
        self, status: int, code: str, detail: str, field: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(status, code, detail, field, retry_after_s)
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field
        self.retry_after_s = retry_after_s
        self.is_passing = status in (429, 503)

    def __str__(self) -> str:
        return f"{self.detail} ({self.code})"


class Unreachable(ClientError):
    """No engine answered within the deadline. Whether it took the last request is not known."""

    def __init__(self, detail: str, *, is_passing: bool = True) -> None:
        super().__init__(detail)
        self.is_passing = is_passing
