"""Pipelines from delivered files to trusted facts: bronze, silver and gold."""
