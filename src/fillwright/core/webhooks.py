"""What webhooks may be told of, and how what they are told is signed.

Headers and signature are those of Standard Webhooks (https://www.standardwebhooks.com). A webhook's secret is made from
the engine's own and the webhook's id: no table holds it.
"""

from __future__ import annotations

import base64
import hmac
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

from fillwright.core.errors import InvalidWebhook, WebhooksOff

UNLESS: Final = ", unless FILLWRIGHT_WEBHOOK_PRIVATE is on"
SECRET_MIN: Final = 32
URL_MAX: Final = 500
# Networks whose addresses carry an IPv4 address within them that somebody on the way unpacks (NAT64, 6to4, the old
# compatible and translated forms), and what was site-local once.
REFUSED: Final = tuple(
    map(IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "::/96", "::ffff:0:0:0/96", "fec0::/10"))
)


def secret_of(engine_secret: str, webhook_id: str) -> bytes:
    """Return a webhook's secret. Raise WebhooksOff if the engine has none that it could be made of."""
    if len(engine_secret) < SECRET_MIN:
        raise WebhooksOff(
            f"set FILLWRIGHT_WEBHOOK_SECRET to {SECRET_MIN} random characters or more first: deliveries are signed"
        )
    return hmac.digest(engine_secret.encode(), webhook_id.encode(), "sha256")


def secret_text(secret: bytes) -> str:
    return "whsec_" + base64.b64encode(secret).decode()


def signature(secret: bytes, message_id: str, at_s: int, body: bytes) -> str:
    """Return the signature of a delivery, as Standard Webhooks has it."""
    signed = hmac.digest(secret, f"{message_id}.{at_s}.".encode() + body, "sha256")
    return "v1," + base64.b64encode(signed).decode()


def check_url(url: str, *, private: bool) -> str:
    """Return an address that may be posted to, as far as can be seen from it. Raise InvalidWebhook."""
    if len(url) > URL_MAX or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidWebhook(f"url must be at most {URL_MAX} visible ASCII characters", field="url")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidWebhook(f"url cannot be read: {error}", field="url") from error
    if parts.scheme != "https" and not (private and parts.scheme == "http"):
        raise InvalidWebhook(f"url must begin with https://{UNLESS}", field="url")
    if not host:
        raise InvalidWebhook("url names no host", field="url")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise InvalidWebhook("url must have no user, password or fragment: deliveries are signed", field="url")
    if not private and (_is_local_name(host) or (_is_address(host) and is_private(host))):
        raise InvalidWebhook(f"{host} is not an address that others can reach{UNLESS}", field="url")
    return url


def is_private(address: str) -> bool:
    """Return whether an address is of this machine or its network, or of nobody."""
    found: IPv4Address | IPv6Address = ip_address(address)
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if isinstance(found, IPv6Address) and any(found in network for network in REFUSED):
        return True
    return not found.is_global or found.is_multicast


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_local_name(host: str) -> bool:
    name = host.rstrip(".")
    return name == "localhost" or name.endswith((".localhost", ".local", ".internal"))
