"""Connectors: segments leave for destinations with hashed identifiers, and only where consent allows it."""
