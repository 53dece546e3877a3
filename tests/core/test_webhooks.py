"""Which addresses may be told, and how what they are told is signed."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final

import pytest

from fillwright.core.errors import InvalidWebhook, WebhooksOff
from fillwright.core.webhooks import UNLESS, URL_MAX, check_url, is_private, secret_of, secret_text, signature

ENGINE: Final = "of thirty-two characters or more."

BEHIND: Final = [
    "127.0.0.1", "127.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1",
    "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fd00::1", "ff02::1", "ff0e::1",
    "::ffff:10.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::a00:1", "2002:a00:1::", "fec0::1", "::10.0.0.1",
    "::ffff:0:10.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("address", BEHIND)
def test_an_address_that_only_the_engine_can_reach_is_refused(address: str) -> None:
    assert is_private(address)
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(InvalidWebhook) as error:
        check_url(f"https://{host}/told", private=False)
    assert error.value.field == "url"
    assert check_url("http://10.0.0.1:8080/told?x=1", private=True) == "http://10.0.0.1:8080/told?x=1"


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1"])
def test_an_address_of_the_internet_is_not_refused(address: str) -> None:
    assert not is_private(address)
    host = f"[{address}]" if ":" in address else address
    assert check_url(f"https://{host}/", private=False) == f"https://{host}/"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://example.com/told", f"url must begin with https://{UNLESS}"),
        ("ftp://example.com", f"url must begin with https://{UNLESS}"),
        ("example.com", f"url must begin with https://{UNLESS}"),
        ("https://", "url names no host"),
        ("https://user@example.com", "url must have no user, password or fragment: deliveries are signed"),
        ("https://:word@example.com", "url must have no user, password or fragment: deliveries are signed"),
        ("https://example.com/#part", "url must have no user, password or fragment: deliveries are signed"),
        ("https://localhost/", f"localhost is not an address that others can reach{UNLESS}"),
        ("https://LOCALHOST./", f"localhost. is not an address that others can reach{UNLESS}"),
        ("https://a.localhost/", f"a.localhost is not an address that others can reach{UNLESS}"),
        ("https://printer.local/", f"printer.local is not an address that others can reach{UNLESS}"),
        (
            "https://metadata.google.internal/",
            f"metadata.google.internal is not an address that others can reach{UNLESS}",
        ),
        ("https://10.0.0.1/", f"10.0.0.1 is not an address that others can reach{UNLESS}"),
        ("https://exa mple.com", f"url must be at most {URL_MAX} visible ASCII characters"),
        ("https://example.com/\n", f"url must be at most {URL_MAX} visible ASCII characters"),
        ("https://exämple.com/", f"url must be at most {URL_MAX} visible ASCII characters"),
        ("https://x/" + "a" * (URL_MAX - 9), f"url must be at most {URL_MAX} visible ASCII characters"),
        ("https://example.com:99999/", "url cannot be read: Port out of range 0-65535"),
        ("https://[::1", "url cannot be read: Invalid IPv6 URL"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused_and_the_field_is_named(url: str, why: str) -> None:
    with pytest.raises(InvalidWebhook) as error:
        check_url(url, private=False)
    assert (str(error.value), error.value.field) == (why, "url")


@pytest.mark.parametrize("url", ["ftp://example.com", "https://user@example.com/", "https:///path"])
def test_next_door_too_an_address_must_be_one(url: str) -> None:
    with pytest.raises(InvalidWebhook):
        check_url(url, private=True)


def test_an_address_may_be_as_long_as_it_may() -> None:
    url = "https://x/" + "a" * (URL_MAX - 10)
    assert check_url(url, private=False) == url


def test_a_name_that_only_looks_like_this_machine_s_is_not_refused() -> None:
    for host in ("localhostx", "localhost.example.com", "xlocalhost", "localhostX"):
        assert check_url(f"https://{host}/", private=False)


def test_a_refusal_says_what_would_admit_the_address() -> None:
    assert UNLESS == ", unless FILLWRIGHT_WEBHOOK_PRIVATE is on"


def test_names_of_this_machine_may_be_told_next_door() -> None:
    assert check_url("https://localhost/", private=True) == "https://localhost/"


def test_each_webhook_has_a_secret_of_its_own_made_from_the_engine_s() -> None:
    assert secret_of(ENGINE, "wh_1") == hmac.new(ENGINE.encode(), b"wh_1", hashlib.sha256).digest()
    assert secret_of(ENGINE, "wh_1") != secret_of(ENGINE, "wh_2")
    assert secret_text(b"\0" * 32) == f"whsec_{base64.b64encode(bytes(32)).decode()}"


def test_without_a_secret_of_the_engine_s_none_can_be_made() -> None:
    assert len(secret_of("x" * 32, "")) == 32
    with pytest.raises(WebhooksOff) as error:
        secret_of("x" * 31, "")
    assert str(error.value) == (
        "set FILLWRIGHT_WEBHOOK_SECRET to 32 random characters or more first: deliveries are signed"
    )


def test_a_signature_is_that_of_standard_webhooks() -> None:
    """The example of the specification."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == expected
