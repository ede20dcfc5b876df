"""Table declarations and everything derived from them; the only package that touches storage."""
