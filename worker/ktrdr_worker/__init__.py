"""The worker: an agent that talks with the broker, and child processes that compute.

A handler of your own needs `ktrdr_worker.handler` and an entry point in the group ``ktrdr_zmq.handlers``; see docs/handlers.md.
"""
