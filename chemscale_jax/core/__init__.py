"""The contracts every other room stands on: types, tasks, batches, meshes, errors."""
