"""Training: `loop.train` runs a recipe, `run.evaluate` scores what it left, `run.load_run` reads its model back."""
