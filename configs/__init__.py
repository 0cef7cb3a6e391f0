"""One experiment per file; every file has ``get_config(arg)``."""
