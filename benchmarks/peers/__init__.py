"""Fillwright beside a well-made Node engine of the usual kind, on the same PostgreSQL and Redis, in one run.

`reference/` is that engine: Fastify, BullMQ, ioredis, pg, zod. `client/` is the load client, the same for both.
"""
