"""What operators call: garbage collection, lineage, status, evaluation of a bundle."""
