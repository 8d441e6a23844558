"""Mistakes that people make, each with what they are told: run by a test, and shown in docs/mistakes.md."""
