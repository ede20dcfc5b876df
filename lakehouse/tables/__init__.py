"""Declarations of every table, one module per schema and subject. Importing one registers its tables."""
