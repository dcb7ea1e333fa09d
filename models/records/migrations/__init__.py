"""Schema changes of the records database, applied by `Database.migrate`."""
