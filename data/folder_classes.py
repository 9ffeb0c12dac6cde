"""The classes of picture files by their folders, and the removal of further links to one file."""

from scoresde.data.listing import counted, listed
from scoresde.data.splits import Parts


def classes_of_folders(parts: Parts) -> tuple[list[str] | None, list[str]]:
    """Returns the class of each file, training before held-out files, and notes.

    The class is the name of a folder: of the first one, below the split's, in which the files differ. There are no
    classes (None) where some file lies in no such folder, or no folders differ.
    """
    files = parts.training + parts.held_out
    inner = [file.folders for file in files]
    while all(inner) and len({folders[0] for folders in inner}) == 1:
        inner = [folders[1:] for folders in inner]
    names = sorted({folders[0] for folders in inner if folders})
    if not names:
        return None, []
    if not all(inner):
        beside = sum(not folders for folders in inner)
        verb = "lies" if beside == 1 else "lie"
        return None, [f"no classes: {counted(beside, 'file')} {verb} beside the folders {listed(names)}"]
    labels = [folders[0] for folders in inner]
    notes = [f"{len(names)} classes, the folders {listed(names, 10)}"]
    if parts.held_out:
        training = set(labels[: len(parts.training)])
        held_out = set(labels[len(parts.training) :])
        for where, classes in (("held out", held_out - training), ("trained on", training - held_out)):
            if classes:
                notes.append(f"only {where}: {listed(sorted(classes))}")
    return labels, notes


def without_links(parts: Parts, labels: list[str] | None) -> tuple[Parts, list[str] | None]:
    """Returns the parts and the labels with one entry for each file, without further links to the same file.

    Arguments:
        labels: the class of each file, training before held-out files; None without classes.

    Raises:
        ValueError: if a file is in two splits or two classes.
    """
    files, entries_of_file = parts.training + parts.held_out, {}
    for n, file in enumerate(files):
        stat = file.path.stat()
        entries_of_file.setdefault((stat.st_dev, stat.st_ino), []).append(n)
    border = len(parts.training)
    for entries in entries_of_file.values():
        first = entries[0]
        for n in entries[1:]:
            both_splits = (n < border) != (first < border)
            if both_splits or (labels is not None and labels[n] != labels[first]):
                raise ValueError(
                    f"{files[first].local} and {files[n].local} in {files[n].path} are one file through a link, in two "
                    f"{'splits' if both_splits else 'classes'}: remove one of them"
                )
    kept = sorted(entries[0] for entries in entries_of_file.values())
    if len(kept) == len(files):
        return parts, labels
    further = counted(len(files) - len(kept), "further link to the same file", "further links to the same files")
    chosen = Parts(
        [files[n] for n in kept if n < border],
        [files[n] for n in kept if n >= border],
        [*parts.notes, f"{further} left out"],
    )
    return chosen, None if labels is None else [labels[n] for n in kept]
