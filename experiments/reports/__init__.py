"""Rows and tables that experiments write."""
