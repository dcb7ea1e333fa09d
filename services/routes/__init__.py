"""One module per group of routes, so that each can move into a process of its own."""
