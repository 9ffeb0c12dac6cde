"""Experiments: tasks that compare networks, samplers or models, or look along a training."""
