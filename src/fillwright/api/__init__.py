"""How the world reaches the engine: HTTP, WebSocket and server-sent events."""
