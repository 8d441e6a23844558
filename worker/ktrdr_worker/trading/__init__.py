"""The science: bars, indicators, fuzzy sets, labels, splits, networks, backtests. Pure functions over arrays.

Nothing here knows of sockets, processes or jobs; of this project it imports the strategy grammar, the typed results and the errors, and
nothing else. The handlers in `ktrdr_worker.jobs` connect it with the framework.
"""
