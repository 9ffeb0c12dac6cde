"""What tasks have in common: the run's record, points, samples, conditions and progress."""
