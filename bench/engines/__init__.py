"""One module per engine; each is run as a process of its own and does all of the work."""
