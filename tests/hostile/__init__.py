"""Hostile input: requests, frames and clients that no well-meaning program would send, against the real server.

`corpus` is data; `attacks`, `contract`, `frames` and `slow` each fire one kind at a `target`, an engine in a process of
its own; `campaign` runs them all.
"""
