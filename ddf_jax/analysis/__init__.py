"""Parameters, multiply-accumulates and the tables of the papers, counted on the networks themselves."""
