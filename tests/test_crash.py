"""kill -9 and resume, at reduced length; `python -m benchmarks.crash` is the full one."""

from benchmarks.crash import crash


def test_killed_trainings_resume_and_end_in_the_same_weights(tmp_path):
    crash(tmp_path, kills=1, steps=100, say=lambda *text, **keys: None)
