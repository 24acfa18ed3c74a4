"""Training: recipes, tasks, the training loop and the folder of a run.

The public functions are `ddf_jax.train`, `load_run`, `evaluate` and `predict`.

`recipe`, `schedules`, `optimizers`, `tasks` and `step` build a training step with the base install; the loop needs the
`train` extra.
"""
