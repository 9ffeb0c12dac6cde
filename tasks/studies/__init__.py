"""Experiments: tasks that compare networks, samplers or models, look along a training, or are for bits or classifiers.

Four modules hold no task: ``recipes`` and ``trainers`` check the networks that a task compares, ``ruler`` and
``settings`` are parts of ``work_precision``.
"""
