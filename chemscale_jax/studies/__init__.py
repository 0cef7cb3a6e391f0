"""Many runs: which there are, where they are trained, and which of them go on.

A cell is one run of a sweep or a study, in a folder of its own. This room starts runs
as processes and reads their logs; the trainer does not know of it.
"""
