"""Great Expectations suites over corpus tables, and what was accepted before."""
