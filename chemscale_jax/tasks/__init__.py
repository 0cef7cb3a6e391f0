"""Learning problems: each file has one public function, ``make_task(config)``."""

from chemscale_jax.tasks import causal_lm, force_field

TASKS = {"causal_lm": causal_lm.make_task, "force_field": force_field.make_task}
