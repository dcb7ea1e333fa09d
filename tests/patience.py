"""How long a test waits for a thread, a process or a server: a bound on deadlocks, which no busy machine reaches."""

PATIENCE_S = 900.0
