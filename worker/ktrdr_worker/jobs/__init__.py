"""Built-in handlers: thin glue between the contract of `ktrdr_worker.handler` and the work itself."""
