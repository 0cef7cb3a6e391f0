"""How one run goes: put together from its config, trained, brought to an end."""
