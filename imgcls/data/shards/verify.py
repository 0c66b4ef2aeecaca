"""Checking packed shards for damage."""

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from imgcls.data.dataset import labels_of
from imgcls.data.image import EncodedImage, OpenShards, read_bytes
from imgcls.data.shards.layout import INDEX, read_index
from imgcls.data.shards.reader import ShardRecords
from imgcls.data.shards.workers import run_jobs
from imgcls.disk import file_digest
from imgcls.errors import UserError

_LISTED = 20


def verify_shards(folder: str, processes: int = 1) -> int:
    """Compares every file with its checksum, decodes every image, and checks the counts; returns the number of images.

    Raises:
        UserError: the message lists what is wrong.
    """
    index = read_index(folder)
    problems: list[str] = []
    labels: Counter[int] = Counter()
    jobs = ((folder, shard, index["multi_label"]) for shard in index["shards"])
    for found, counts in run_jobs(_verify_shard, jobs, processes, total=index["samples"]):
        problems += found
        labels += counts
    samples = sum(shard["samples"] for shard in index["shards"])
    # The labels of damaged shards are unknown.
    counted = {int(label): count for label, count in index["label_counts"].items()}
    if samples != index["samples"] or (not problems and labels != counted):
        problems.append(f"{INDEX}: its counts differ from those of its shards")
    if problems:
        listed = sorted(problems)[:_LISTED]
        more = f"; and {len(problems) - len(listed)} more" if len(problems) > len(listed) else ""
        raise UserError(f"{folder}: {len(problems)} problems: {'; '.join(listed)}{more}")
    return samples


def _verify_shard(
    folder: str, shard: dict[str, Any], multi_label: bool, step: Callable[[], None]
) -> tuple[list[str], Counter[int]]:
    path = os.path.join(folder, shard["name"])
    problems = []
    try:
        if file_digest(path) != shard["sha256"]:
            problems.append(f"{path}: its SHA-256 differs from that in {INDEX}")
    except OSError as error:
        problems.append(f"{path}: {error.strerror}")
    labels: Counter[int] = Counter()
    shards = OpenShards()
    records = ShardRecords(folder, [shard], {"multi_label": multi_label, "shards": [shard], "label_counts": {}})
    for i in range(len(records)):
        try:
            record = records[i]
        except UserError as error:  # the table is damaged
            return [*problems, str(error)], labels
        labels.update(labels_of(record))
        try:
            EncodedImage(read_bytes(record, shards), record["file_name"]).pixels()
        except UserError as error:
            problems.append(str(error))
        step()
    return problems, labels
