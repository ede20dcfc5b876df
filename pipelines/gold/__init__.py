"""Gold: facts, dimensions, references and audits; one module per subject."""
