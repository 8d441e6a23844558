"""A storm over real processes: thousands of jobs through the public API while everything that can be killed, stopped or doubled is.

`plan.py` draws a schedule of faults from a seed, `engine.py` carries it out, `submitter.py` is the client process, `tally.py` the handler,
`ledger.py` decides at the end what was lost or doubled. `python -m tests.storm --help` runs it.
"""
