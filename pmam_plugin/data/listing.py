"""What a set without labels consists of, listed once: a later start asks its folders whether anything has changed.

Files are many where labels are few. A folder's time changes when a file comes, goes or gets another name, so that a
start looks at folders and at a sample of the files, as many for a million clips as for a thousand.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pmam_plugin.audio.names import find_audio, folders_below
from pmam_plugin.data.assembly import Place
from pmam_plugin.data.layout import Source
from pmam_plugin.data.recordings import UNSETTLED_NS, Stamp, load_stamps, save_stamps, stamp_files
from pmam_plugin.errors import InputError
from pmam_plugin.files import read_json, write_json

SAMPLE = 1000
"""Files of a set that every start looks at. In a larger one, another may be overwritten in its place unnoticed."""


@dataclass(frozen=True)
class Listing:
    """A set as it was listed.

    Attributes:
        content: whether files were told apart by their content, or by size and time.
        folders: when each folder last changed, ns, by its place below the data folder; 0 where that was just now.
        sample: stamps of up to :data:`SAMPLE` of its files, spread evenly, likewise.
        digest: of the names and the contents of all files.
    """

    content: bool
    folders: dict[str, int]
    sample: dict[str, Stamp]
    digest: str

    def holds(self, root: Path, content: bool) -> bool:
        """Whether the set is, as far as can be seen, what it was."""
        try:
            unchanged = all((root / name).stat().st_mtime_ns == changed for name, changed in self.folders.items())
        except OSError:
            return False
        if content != self.content or not unchanged:
            return False
        sample = {root / name: stamp for name, stamp in self.sample.items()}
        now = stamp_files(sample, content, sample)
        return all(now[path].content == stamp.content for path, stamp in sample.items())


class Sets:
    """The files of all sets as they are now; those without labels are listed only where that is needed.

    Args:
        root: data folder.
        save: where stamps and listings of the last time are, and where new ones go.
        sources: the sets.
        content: tell files apart by their content.

    Attributes:
        digests: of the names and contents of each set's files.
    """

    def __init__(self, root: Path, save: Path, sources: Mapping[Place, Source], content: bool) -> None:
        self._root, self._save, self._content = root, save, content
        self._plain = {place: source for place, source in sources.items() if source.kind == "none"}
        tabled = {place: source for place, source in sources.items() if place not in self._plain}
        self._files, self._stamps = self._look(tabled, "recordings.json")
        self.digests = {place: _digest_of(files, self._stamps) for place, files in self._files.items()}
        known = _load(save / "listings.json")
        listings = {place: known.get(self._name(source.folder)) for place, source in self._plain.items()}
        if all(listing is not None and listing.holds(root, content) for listing in listings.values()):
            self.digests |= {place: listing.digest for place, listing in listings.items() if listing is not None}
        else:
            self._list()

    def listed(self) -> tuple[dict[Place, dict[str, Path]], dict[Path, Stamp]]:
        """Files of every set by their names in it, and stamps of all."""
        if self._plain.keys() - self._files.keys():
            self._list()
        return self._files, self._stamps

    def _list(self) -> None:
        # Folders before their files: what comes in between is noticed at the next start.
        times = {place: _times(self._root, source.folder) for place, source in self._plain.items()}
        files, stamps = self._look(self._plain, "recordings.unlabelled.json")
        listings = {}
        for place, source in self._plain.items():
            sample = {self._name(path): stamps[path] for path in _spread(list(files[place].values()))}
            self.digests[place] = _digest_of(files[place], stamps)
            listing = Listing(self._content, times[place], sample, self.digests[place])
            listings[self._name(source.folder)] = asdict(listing)
        write_json(self._save / "listings.json", listings)
        self._files |= files
        self._stamps |= stamps

    def _name(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()

    def _look(
        self, sources: Mapping[Place, Source], name: str
    ) -> tuple[dict[Place, dict[str, Path]], dict[Path, Stamp]]:
        """List sets and stamp their files; what has a stamp that still holds is not read again."""
        files = {place: find_audio(source.folder, shards=True) for place, source in sources.items()}
        known = load_stamps(self._save / name, self._root)
        paths = list(dict.fromkeys(path for found in files.values() for path in found.values()))
        stamps = stamp_files(paths, self._content, known)
        if stamps != known:
            save_stamps(self._save / name, self._root, stamps)
        return files, stamps


def _times(root: Path, folder: Path) -> dict[str, int]:
    """When a folder and those below it last changed, as a :class:`Listing` has it."""
    latest = time.time_ns() - UNSETTLED_NS
    times = {path.relative_to(root).as_posix(): path.stat().st_mtime_ns for path in folders_below(folder)}
    return {name: changed if changed < latest else 0 for name, changed in times.items()}


def _spread(paths: list[Path]) -> list[Path]:
    """Up to :data:`SAMPLE` of some files, spread evenly."""
    places = np.linspace(0, len(paths) - 1, min(SAMPLE, len(paths))).round().astype(int)
    return [paths[place] for place in np.unique(places)]


def _digest_of(files: Mapping[str, Path], stamps: Mapping[Path, Stamp]) -> str:
    """Changes when a file's name or content does."""
    rows = json.dumps([(name, stamps[path].content) for name, path in files.items()])
    return hashlib.sha256(rows.encode()).hexdigest()


def _load(path: Path) -> dict[str, Listing]:
    """Listings of the last time, by the sets' folders; none where they are missing or damaged."""
    try:
        return {
            folder: Listing(
                bool(entry["content"]),
                {str(name): int(changed) for name, changed in entry["folders"].items()},
                {str(name): Stamp(*stamp) for name, stamp in entry["sample"].items()},
                str(entry["digest"]),
            )
            for folder, entry in read_json(path).items()
        }
    except (InputError, AttributeError, KeyError, TypeError, ValueError):
        return {}
