"""``NAME@0.8`` and ``NAME@-0.2``: two parts of a dataset that complement each other, chosen by class and seed."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from hashlib import blake2b

from imgcls.data.dataset import RawDataset, StoredRecords, SubsetRecords, label_counts, labels_of
from imgcls.errors import UserError

_FORM = re.compile(r"(?P<whole>.+)@(?P<sign>-?)(?P<fraction>0?\.\d+)(,(?P<seed>\d+))?")


@dataclass(frozen=True)
class Part:
    """A part of a dataset.

    Which images are held out depends on the seed, the class and the image id only: not on the machine, the order of the
    images or, apart from rounding, other classes. Each class holds out the same share, rounded, and keeps at least one
    image. A multi-label image counts for the rarest of its classes.

    Attributes:
        whole: the name of the dataset.
        held_out: the share that is held out, between 0 and 1.
        complement: whether this part is what remains.
        seed: another seed gives another part.
    """

    whole: str
    held_out: Fraction
    complement: bool
    seed: int

    def take(self, name: str, raw: RawDataset) -> RawDataset:
        """The images of this part; ``name`` starts the error message.

        Raises:
            UserError: the part has no image.
        """
        held_out = self._held_out(raw)
        chosen = [index for index in range(len(raw.records)) if (index in held_out) != self.complement]
        if not chosen:
            raise UserError(
                f"{name}: has no image; each class keeps at least one of its images, and the {len(raw.records)} images "
                f"of {self.whole} have {len(raw.classes)} classes: hold out a larger share, or name a test set"
            )
        records: Sequence[dict] = raw.records
        if isinstance(records, StoredRecords):
            return replace(raw, records=SubsetRecords(records, chosen))
        return replace(raw, records=[dict(records[index]) for index in chosen])

    def _held_out(self, raw: RawDataset) -> set[int]:
        frequency = label_counts(raw.records)
        groups: defaultdict[int, list[tuple[bytes, int]]] = defaultdict(list)
        for index, record in enumerate(raw.records):
            rarest = min(labels_of(record), key=lambda label: (frequency[label], label), default=-1)
            digest = blake2b(f"{self.seed}:{record['image_id']}".encode(errors="surrogatepass")).digest()
            groups[rarest].append((digest, index))
        held_out: set[int] = set()
        for group in groups.values():
            count = min(int(len(group) * self.held_out + Fraction(1, 2)), len(group) - 1)
            held_out.update(index for _, index in sorted(group)[:count])
        return held_out


def parse_part(name: str) -> Part | None:
    """The part that a name asks for, or None if it is the name of a whole dataset.

    Args:
        name: ``NAME@-0.2`` is a held-out fifth of the images, and ``NAME@0.8`` is the rest; ``,SEED`` may follow, and
            is 0 by default.

    Raises:
        UserError: the share is 0.
    """
    match = _FORM.fullmatch(name)
    if match is None:
        return None
    share = Fraction(match["fraction"])
    if not share:
        raise UserError(f"{name}: the share after @ is {match['fraction']}; allowed: above 0 and below 1")
    complement = not match["sign"]
    return Part(match["whole"], 1 - share if complement else share, complement, int(match["seed"] or 0))


def part_names(name: str, held_out: float, seed: int) -> tuple[str, str]:
    """The names of the part that remains for training, and of the part that is held out."""
    share = Fraction(str(held_out))
    kept, held = (f"{float(value):.9f}".rstrip("0") for value in (1 - share, share))
    end = f",{seed}" if seed else ""
    return f"{name}@{kept}{end}", f"{name}@-{held}{end}"
