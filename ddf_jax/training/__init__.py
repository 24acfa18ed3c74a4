"""Training: recipes, tasks, the loop and what it leaves. `ddf_jax.train`, `load_run`, `evaluate` and `predict` lead in.

`recipe`, `schedules`, `tasks` and `step` build a training step with the base install; the loop needs the `train` extra.
"""
