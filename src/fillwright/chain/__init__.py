"""Where transactions are signed and land."""
