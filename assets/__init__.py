"""What is made: one module per stage of the lifecycle. Thin: read inputs, call one function of models, report
metadata."""
