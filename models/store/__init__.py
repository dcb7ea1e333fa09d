"""The artifact store: content-addressed folders, code versions, durable files."""
