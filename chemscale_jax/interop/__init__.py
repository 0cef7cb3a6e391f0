"""Other people's checkpoint layouts, to and from ours."""
