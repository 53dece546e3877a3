"""Raydium's pools, one module per type."""
