"""kill -9 and flipped bits, at reduced length; `python -m benchmarks.crash` is the full one."""

import re

import pytest
import torch

from benchmarks import crash


def table(text: str) -> dict[str, list[int]]:
    """Returns the numbers of each kind: tried, resumed, detected, harmless, silent."""
    rows = re.findall(r"^\| ((?:kill|flip): [^|]+) \| ([\d |]+) \|$", text, re.MULTILINE)
    return {kind: list(map(int, numbers.split(" | "))) for kind, numbers in rows}


def test_whatever_is_killed_resumes_and_no_flipped_bit_is_silent(capsys):
    try:
        crash.main(["--kills", "4", "--flips", "60", "--steps", "60"])
    except SystemExit:
        pass  # the rows say what was silent
    text = capsys.readouterr().out
    rows = table(text)
    kills = {kind: row for kind, row in rows.items() if kind.startswith("kill")}
    assert list(kills.values()) == [[1, 1, 0, 0, 0]] * 4, text
    flips = {kind: row for kind, row in rows.items() if kind not in kills}
    kinds = ("pixels", "config.yaml", "kept-*", "log.jsonl", "power-*", "samples-*", "step-*", "config.yaml, renamed")
    assert list(flips) == [f"flip: {kind}" for kind in kinds]
    assert sum(row[0] for row in flips.values()) == 60
    assert not any(row[-1] for row in flips.values()), text


def test_a_silent_flip_and_a_job_that_does_not_resume_are_told(capsys, monkeypatch):
    """Where nothing verifies checkpoints, and a resumed training ends in other weights."""

    class Careless(crash.Flips):
        def __post_init__(self):
            self.files = [("step-*", "step-1/ema.safetensors")]

        def trial(self, kind, path, bit):
            return f"{kind}: {path}, bit {bit:.0f}"

    class Forgetful:
        def __init__(self, root, steps, rng):
            self.calm = root

        def trial(self, kind):
            return "resumed" if kind == "training" else f"{kind}: other tensors"

    monkeypatch.setattr(crash, "Kills", Forgetful)
    monkeypatch.setattr(crash, "Flips", Careless)
    with pytest.raises(SystemExit) as ended:
        crash.main(["--kills", "2", "--flips", "1"])
    text = capsys.readouterr().out
    assert ended.value.code == 1 and "mid-save: other tensors" in text and "step-1/ema.safetensors, bit" in text
    assert table(text)["kill: mid-save"] == [1, 0, 0, 0, 1] and table(text)["kill: training"] == [1, 1, 0, 0, 0]


def test_trees_are_compared_bit_for_bit():
    one = {"a": [torch.zeros(2), 1.0], "b": (None, "x")}
    assert crash.same(one, {"a": [torch.zeros(2), 1.0], "b": (None, "x")})
    others = [torch.zeros(2).double(), torch.tensor([0.0, 1e-45]), torch.zeros(3), -torch.zeros(2), 1.0]
    assert not any(crash.same(one, {"a": [other, 1.0], "b": (None, "x")}) for other in others)
    assert not crash.same(one, {"a": [torch.zeros(2), 1], "b": (None, "x")})
    assert not crash.same(one, {"a": [torch.zeros(2), 1.0]})
