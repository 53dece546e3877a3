"""The tokens that the engine knows by symbol. The mint is the identity; a symbol is only a convenience."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fillwright.core.errors import UnknownToken
from fillwright.core.units import Mint, Token, parse_mint

WELL_KNOWN: Final = (
    Token("SOL", Mint("So11111111111111111111111111111111111111112"), 9),
    Token("USDC", Mint("EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"), 6),
    Token("USDT", Mint("Es9vMFrzaCERmJfrF4H2FYD4KCoNkY11McCe8BenwNYB"), 6),
    Token("RAY", Mint("4k3Dyjzvzp8eMZWUXbBCjEvwSkkk59S5iCNLY3QrkX6R"), 6),
    Token("JUP", Mint("JUPyiwrYJFskUPiHa7hkeR8VUtAeFoSYbKedZNsDvCN"), 6),
    Token("BONK", Mint("DezXAZ8z7PnrnRJjz3wXBoRgixCa6xjnB7YaB1pPB263"), 5),
    Token("mSOL", Mint("mSoLzYCxHdYgdzU16g5QSh3i5K3z3KZK7ytfqcJm7So"), 9),
    Token("JitoSOL", Mint("J1toso1uCk3RLmjorhTtrVwY9HJ7X8V9yYac6Y7kGCPn"), 9),
    Token("PYTH", Mint("HZ1JovNiVvGrGNiiYvEozEVgZ58xaU3RKwX8eACQBCt3"), 6),
    Token("ORCA", Mint("orcaEKTdK7LKz57vaAYr9QeNsVEPfiu6QeMU1kektZE"), 6),
    Token("WIF", Mint("EKpQGSJtjMFqKZ9KQanSqYXRcF8fBopzLHYxdM65zcjm"), 6),
    Token("ETH", Mint("7vfCXTUXx5WJV5JADk17DUJ4ksgau7utNKj4b963voxs"), 8),
)


class TokenRegistry:
    """Look tokens up by symbol (any case) or by mint."""

    def __init__(self, tokens: Iterable[Token] = WELL_KNOWN) -> None:
        tokens = tuple(tokens)
        self._symbols = [token.symbol for token in tokens]
        self._by_name: dict[str, Token] = {}
        for token in tokens:
            self._by_name[token.symbol] = self._by_name[token.symbol.upper()] = self._by_name[token.mint] = token

    def resolve(self, text: str, field: str) -> Token:
        """Return the token. Raise UnknownToken, naming `field`, if there is none."""
        token = self._by_name.get(text) or self._by_name.get(text.upper())
        if token is not None:
            return token
        try:
            parse_mint(text)
        except UnknownToken as error:
            raise UnknownToken(f"{field}: {error}; known: {', '.join(self._symbols)}", field=field) from None
        raise UnknownToken(f"{field}: no token is registered for the mint {text}", field=field)
