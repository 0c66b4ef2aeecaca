"""Names of the modules of our classifiers, and the pairs of names that other projects have for them."""

from collections.abc import Sequence

STEM = "backbone.stages.stem"
HEAD_CONV = "head.conv"
LINEAR = "head.linear"


def _blocks(*counts: int) -> tuple[str, ...]:
    stages = zip(("mob2", "mob3", "mob4", "mob5"), counts, strict=True)
    return tuple(f"backbone.stages.{stage}.{index}" for stage, count in stages for index in range(count))


V1_BLOCKS = _blocks(3, 2, 6, 2)
V2_BLOCKS = _blocks(3, 3, 7, 4)


def conv_norm(conv: str, norm: str, ours: str) -> dict[str, str]:
    """A convolution and its norm, which here is inside the convolution."""
    return {conv: ours, norm: f"{ours}.norm"}


def block(source: str, pairs: Sequence[tuple[str, str]], ours: str) -> dict[str, str]:
    """A block of MobileNetV2: its convolutions with their norms in order, the first of three is the expansion."""
    parts = ("expand", "depthwise", "project")[-len(pairs) :]
    names: dict[str, str] = {}
    for (conv, norm), part in zip(pairs, parts, strict=True):
        names |= conv_norm(f"{source}.{conv}", f"{source}.{norm}", f"{ours}.{part}")
    return names
