"""The command ``imgcls VERB ...``, also available as ``python -m imgcls VERB ...``."""

import difflib
import importlib
import sys
from collections.abc import Sequence
from types import MappingProxyType

# Each verb with its module in imgcls.cli, which is imported only when the verb is used, and its line of the help.
VERBS = MappingProxyType(
    {
        "train": ("train", "train or evaluate a classifier or detector with detectron2's trainer"),
        "train-plain": ("train_plain", "train or evaluate a classifier in a plain PyTorch loop"),
        "predict": ("predict", "predict the classes of images with a checkpoint or an exported file"),
        "eval": ("evaluate_model", "evaluate a checkpoint or an exported file on a dataset"),
        "export": ("export", "write a checkpoint as ONNX, torch.export, OpenVINO or TorchScript, and verify it"),
        "serve": ("serve", "show a classifier on a web page, with a JSON API"),
        "detect-classify": ("detect_classify", "find boxes with a detector and predict the class of each"),
        "convert": ("convert_weights", "convert weights of timm, torchvision and other projects"),
        "export-backbone": ("export_backbone", "write a trained backbone as a file for detectors, and verify it"),
        "pack": ("pack_dataset", "pack a dataset into tar shards"),
        "report": ("report_run", "print the metrics of a run and write a page about it, or compare runs"),
        "make-imagenet-json": ("make_imagenet_json", "list ImageNet in JSON files, or index JSON files"),
        "complexity": ("model_complexity", "count parameters and multiply-accumulates of configs"),
    }
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the verb named by the first argument.

    Returns:
        The exit code; 2 for an unknown verb.

    Raises:
        SystemExit: raised by the verb, with 2 after a mistake of the user.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0
    verb = arguments[0]
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        advice = f"did you mean {near[0]}?" if near else f"allowed: {', '.join(VERBS)}"
        print(f"error: imgcls has no verb {verb!r}; {advice}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"imgcls.cli.{VERBS[verb][0]}")
    return module.main(arguments[1:], prog=f"imgcls {verb}") or 0


def _help() -> str:
    width = max(map(len, VERBS))
    return "\n".join(
        [
            "usage: imgcls VERB [arguments]",
            "",
            "Image classification for detectron2.",
            "",
            "verbs:",
            *(f"  {verb:{width}}  {line}" for verb, (_, line) in VERBS.items()),
            "",
            "`imgcls VERB --help` lists the arguments of a verb.",
            "",
            "example:",
            "  imgcls train --config-file quickstart/digits_mnetv1_025.yaml --num-gpus 0",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
