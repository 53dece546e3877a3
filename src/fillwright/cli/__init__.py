"""The commands, one module each, and what they share: how they end, how they reach an engine, what they show."""
