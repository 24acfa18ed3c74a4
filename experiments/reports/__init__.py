"""Rows and tables of results that need no timer: counts, compiled resources, finished runs."""
