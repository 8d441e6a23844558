"""The version of the distribution: the one place it is written. Imports nothing."""

__version__ = "0.1.0.dev0"
