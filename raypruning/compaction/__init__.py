"""Networks that get smaller: what masks made useless is taken out, and outputs stay equal."""
