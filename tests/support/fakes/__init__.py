"""Fake destinations on loopback: they keep the audience's state, check what arrives, and fail as they are told."""
