"""Silver: typed, conformed, deduplicated subjects; one module per subject."""
