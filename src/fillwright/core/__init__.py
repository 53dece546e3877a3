"""The rules of the engine: no I/O, no clock, nothing but the standard library. Start with `lifecycle`."""
