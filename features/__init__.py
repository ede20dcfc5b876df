"""Customer features: what each is, how it is computed, and how a slice of any past day is had."""
