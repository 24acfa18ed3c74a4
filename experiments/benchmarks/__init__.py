"""Timings on a CPU or a GPU: one timer (`timing`), one form of row (`rows`), peers, and the programs that time them."""
