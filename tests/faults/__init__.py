"""Faults planted in the installed Keras, and rewrites that change nothing but rounding; python -m tests.faults."""
