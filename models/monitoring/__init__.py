"""Decision logs by day, drift, and what drift means for the gate."""
