"""Meteora's pools, one module per type."""
