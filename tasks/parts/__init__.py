"""The parts that tasks share: the run's record and a sweep's summary; points, conditions, batches and progress;
samples, log-likelihoods and codes, with their errors and pictures.
"""
