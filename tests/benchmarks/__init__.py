"""The numbers that the kit promises, each measured against a rival in one run: `make bench`."""
