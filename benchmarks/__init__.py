"""What the engine can do, measured from outside: its own process, a load client of its own, nothing patched."""
