"""Numbered schema changes; run by `store.engine.migrate`."""
