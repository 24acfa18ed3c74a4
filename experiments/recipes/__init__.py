"""One file per training run, which defines `recipe`; `ddf train NAME` finds it by the name that its recipe has."""
