"""`python -m minidl` is `minidl`."""

from minidl.cli import main

main()
