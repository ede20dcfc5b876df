"""Bronze: files become rows, as delivered, exactly once."""
