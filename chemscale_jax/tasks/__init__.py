"""Learning problems: each file has one public function, ``make_task(config)``."""

from chemscale_jax.tasks import force_field

TASKS = {"force_field": force_field.make_task}
