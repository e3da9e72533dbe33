"""Many texts on many machines, by Ray Data: a pair in every worker, and one process that keeps the results."""
