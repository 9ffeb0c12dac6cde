"""The parts that tasks share: the run's record, points, samples, log-likelihoods, conditions and progress."""
