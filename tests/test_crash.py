"""kill -9 and resume, at reduced length; `python -m benchmarks.crash` is the full one."""

from benchmarks.crash import main


def test_killed_trainings_resume_and_end_in_the_same_weights(capsys):
    main(["--kills", "1", "--steps", "100"])
    text = capsys.readouterr().out
    assert (
        "kill  1: at step " in text and "1 kills, 100 updates: the weights, their average and the optimiser's" in text
    )
