"""The road of a run: which functions and files of ours are entered between the command line and the first update.

    python -m benchmarks.walk                                   the main command, python run.py sde=ve sampler=pc
    python -m benchmarks.walk data=moons task=likelihood        another one
    python -m benchmarks.walk --list                            the functions too, in the order of their first calls

The last function is the loss of the first update. Lambdas and comprehensions count with the function that holds them.
The last lines are the road itself: the calls, one inside the other, that are under way when the loss is entered.
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
    road: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, argument: Any) -> None:
        found = ours(frame.f_code) if event == "call" else None
        if found is None:
            return
        entered.setdefault(found)
        if found[0] == "training/loss.py" and frame.f_code.co_name == "__call__":
            holder: FrameType | None = frame
            while holder is not None:
                if (call := ours(holder.f_code)) is not None:
                    road.insert(0, call)
                holder = holder.f_back
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
        print()
    print(f"{len(entered)} functions in {len({file for file, _ in entered})} files: {' '.join(words)}")
    print(f"{len(road)} of them, in {len({file for file, _ in road})} files, hold each other:")
    for file, name in road:
        print(f"{file:<32} {name}")


def ours(code: CodeType) -> tuple[str, str] | None:
    """Returns the file and the name of a function of ours; None for other code, and for the body of a class."""
    is_function = code.co_flags & inspect.CO_OPTIMIZED and not code.co_name.startswith("<")
    if not is_function or not code.co_filename.startswith(str(ROOT)):
        return None
    file = str(Path(code.co_filename).relative_to(ROOT))
    if file.startswith(("benchmarks/", "tests/", ".")):
        return None
    return file, getattr(code, "co_qualname", code.co_name)


if __name__ == "__main__":
    main()
