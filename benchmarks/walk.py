"""The road of a run: which functions and files of ours are entered between the command line and the first update.

    python -m benchmarks.walk                                   the main command, python run.py sde=ve sampler=pc
    python -m benchmarks.walk data=moons task=likelihood        another one
    python -m benchmarks.walk --list                            the functions too, in the order of their first calls

The last function is the loss of the first update. Lambdas and comprehensions count with the function that holds them.
"""

import inspect
import sys
import tempfile
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


class Arrived(BaseException):
    """The first update has begun."""


def main(words: list[str] | None = None) -> None:
    from scoresde.cli import command

    words = list(sys.argv[1:] if words is None else words)
    listed = "--list" in words
    words = [word for word in words if word != "--list"] or ["sde=ve", "sampler=pc"]
    entered: dict[tuple[str, str], None] = {}

    def note(frame: FrameType, event: str, argument: Any) -> None:
        code: CodeType = frame.f_code
        is_function = code.co_flags & inspect.CO_OPTIMIZED and not code.co_name.startswith("<")  # and no class's body
        if event != "call" or not is_function or not code.co_filename.startswith(str(ROOT)):
            return
        file = str(Path(code.co_filename).relative_to(ROOT))
        if file.startswith(("benchmarks/", "tests/", ".")):
            return
        entered.setdefault((file, getattr(code, "co_qualname", code.co_name)))
        if file == "training/loss.py" and code.co_name == "__call__":
            raise Arrived

    argv = sys.argv
    with tempfile.TemporaryDirectory() as folder:
        sys.argv = ["run.py", f"store={folder}/store", f"hydra.run.dir={folder}/run", *words]
        sys.setprofile(note)
        try:
            command()
        except Arrived:
            pass
        finally:
            sys.setprofile(None)
            sys.argv = argv
    if listed:
        for file, name in entered:
            print(f"{file:<32} {name}")
    print(f"{len(entered)} functions in {len({file for file, _ in entered})} files: {' '.join(words)}")


if __name__ == "__main__":
    main()
