"""Tests on a GPU. A package, so that its test_kernels.py is not taken for the one above."""
