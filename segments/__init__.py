"""Segments: the rule language, its evaluation in one scan, membership and its history."""
