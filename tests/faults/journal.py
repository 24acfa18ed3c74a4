"""Records what a program does to a folder, and replays what a power cut leaves of it.

Durable is what the program syncs with `os.fsync`. Between two calls that matter the folder is looked at as a whole, so
files of C++ libraries are seen too, but nothing that these sync themselves counts.
"""

import dataclasses
import functools
import itertools
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from ddf_jax.training.checkpoint import Checkpoints

Tree = dict[str, int]
"""Path relative to the root -> node; the root itself is "."."""

_CHANGES = ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir")


@dataclasses.dataclass
class Journal:
    """What a program did to a folder: one state of it for each event."""

    trees: list[Tree] = dataclasses.field(default_factory=list)
    contents: list[dict[int, bytes]] = dataclasses.field(default_factory=list)  # of the files that changed
    synced: list[int | None] = dataclasses.field(default_factory=list)  # the node that the event synced
    completed: list[int] = dataclasses.field(default_factory=list)  # the newest step whose save has returned, or -1
    folders: set[int] = dataclasses.field(default_factory=set)  # nodes


class Recorder:
    """Records this process from now on.

    Args:
        root: the folder; it is there, and its own name is durable.
    """

    def __init__(self, root: Path) -> None:
        self.journal = Journal()
        self._root = root.absolute()
        self._nodes: dict[int, int] = {}  # inode -> node, of the last look
        self._versions: dict[int, tuple[int, int]] = {}  # node -> time of change and size
        self._numbers = itertools.count()
        self._step = -1
        self._one_look = threading.Lock()  # checkpoints are written by a thread
        self._originals = [(os, name, getattr(os, name)) for name in _CHANGES] + [
            (Checkpoints, "save", Checkpoints.save)
        ]
        for owner, name, function in self._originals:
            setattr(owner, name, self._noticed(name, function))
        self._look(None)

    def close(self) -> None:
        """Ends the recording."""
        for owner, name, function in self._originals:
            setattr(owner, name, function)

    def _noticed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def noticed(*arguments: Any, **options: Any) -> Any:
            result = function(*arguments, **options)
            with self._one_look:
                if name == "save":
                    self._step = arguments[1]
                self._look(os.fstat(arguments[0]).st_ino if name == "fsync" else None)
            return result

        return noticed

    def _look(self, synced: int | None) -> None:
        tree, nodes, contents = {}, {}, {}
        for path, status in _walk(self._root):
            inode = status.st_ino
            node = nodes[inode] = self._nodes[inode] if inode in self._nodes else next(self._numbers)
            tree[os.path.relpath(path, self._root)] = node
            version = status.st_mtime_ns, status.st_size
            if stat.S_ISDIR(status.st_mode):
                self.journal.folders.add(node)
            elif self._versions.get(node) != version:
                self._versions[node] = version
                contents[node] = Path(path).read_bytes()
        self._nodes = nodes
        self.journal.trees.append(tree)
        self.journal.contents.append(contents)
        self.journal.synced.append(nodes.get(synced) if synced is not None else None)
        self.journal.completed.append(self._step)


def replay_synced(journal: Journal, cut: int, target: Path) -> None:
    """Leaves what was synced up to an event: folders as at their last sync, files with the content at theirs."""
    names: dict[int, Tree] = {}
    for event in range(cut + 1):
        node = journal.synced[event]
        if node in journal.folders:
            [folder] = [path for path, other in journal.trees[event].items() if other == node]
            names[node] = _inside(journal.trees[event], folder)
    contents = _synced_contents(journal, cut)

    def write(node: int, path: Path) -> None:
        if node in journal.folders:
            path.mkdir()
            for name, inner in names.get(node, {}).items():
                write(inner, path / name)
        else:
            path.write_bytes(contents.get(node, b""))

    root = journal.trees[0]["."]
    names.setdefault(root, _inside(journal.trees[0], "."))
    write(root, target)


def replay_journalled(journal: Journal, cut: int, target: Path, random: Random) -> None:
    """Leaves the names of an event between the last sync and the cut; contents not synced are torn or garbage."""
    last = max((event for event in range(cut + 1) if journal.synced[event] is not None), default=0)
    tree = journal.trees[random.randint(last, cut)]
    synced, written = _synced_contents(journal, cut), _contents(journal, cut)
    for path, node in sorted(tree.items()):
        if node in journal.folders:
            (target / path).mkdir()
        else:
            (target / path).write_bytes(_torn(synced.get(node, b""), written[node], random))


def _torn(synced: bytes, written: bytes, random: Random) -> bytes:
    """What is left of a file: its synced content, where it was only appended to with something behind it."""
    if synced == written:
        return synced
    kept = synced if written.startswith(synced) else b""
    rest = written[len(kept) :]
    part = rest[: random.randint(0, len(rest))]
    return kept + random.choice(
        [b"", part, bytes(len(rest)), random.randbytes(len(rest)), part + bytes(len(rest) - len(part))]
    )


def _contents(journal: Journal, cut: int) -> dict[int, bytes]:
    """Every file's content as written by an event."""
    return functools.reduce(lambda all_, new: all_ | new, journal.contents[: cut + 1], {})


def _synced_contents(journal: Journal, cut: int) -> dict[int, bytes]:
    """Every synced file's content as of its last sync up to an event."""
    now: dict[int, bytes] = {}
    synced: dict[int, bytes] = {}
    for event in range(cut + 1):
        now.update(journal.contents[event])
        node = journal.synced[event]
        if node is not None and node in now:
            synced[node] = now[node]
    return synced


def _inside(tree: Tree, folder: str) -> Tree:
    """The names in a folder."""
    return {
        os.path.basename(path): node
        for path, node in tree.items()
        if path != "." and (os.path.dirname(path) or ".") == folder
    }


def _walk(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """A folder and everything in it. What goes away meanwhile is left out."""
    waiting = [str(folder)]
    while waiting:
        path = waiting.pop()
        try:
            status = os.lstat(path)
            if stat.S_ISDIR(status.st_mode):
                waiting += [entry.path for entry in os.scandir(path)]
        except FileNotFoundError:
            continue
        yield path, status
