"""How loss scales with size and data: forms, fits, intervals, reports."""
