"""``imgcls convert``: weights of another project as a checkpoint of imgcls."""

import argparse
from collections.abc import Sequence

from imgcls.cli import command, read_class_names
from imgcls.errors import UserError


@command(
    "Converts weights of another project into a checkpoint of imgcls and prints the config that fits them.",
    "imgcls convert mobilenetv1_100.safetensors mobilenetv1_100.pth\n"
    "  imgcls convert --format BGR --mean 104 117 123 --std 1 1 1 --activation leaky_relu "
    "mobilenet0.25_Final.pth face.pth",
)
def main(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
    """Converts one file, writes the checkpoint and prints its config."""
    from imgcls.checkpoint import write_checkpoint
    from imgcls.checkpoint.foreign import AUTO, SOURCES, ForeignWeightsError, Stated, plan_conversion, read_weights

    parser.add_argument(
        "--source",
        choices=SOURCES,
        default=AUTO,
        help="origin of FILE: timm (mobilenetv1_100, mobilenetv1_125), torchvision (mobilenet_v2), "
        "upstream (checkpoints of the 2020 project), biubug6, marvis, pytorchcv (their MobileNetV1), "
        "efficientnet_lite0 (of EfficientNet-PyTorch); auto, the default, tells by the names of the tensors",
    )
    parser.add_argument("file", metavar="FILE", help="a .pth or .safetensors file")
    parser.add_argument("out", metavar="OUT", help="checkpoint to write, for MODEL.WEIGHTS")
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="read FILE even if it holds Python objects; reading them can run code in the file",
    )
    parser.add_argument("--raw", action="store_true", help="use the raw weights if FILE also has averaged ones")
    parser.add_argument("--classes", metavar="TXT", help="the class names, one a line in the order of the outputs")
    stated = parser.add_argument_group(
        "what FILE cannot say", "needed for biubug6, marvis and pytorchcv; for timm and torchvision if they differ"
    )
    stated.add_argument("--format", help="channel order of the images that the network was trained on: RGB or BGR")
    for name in ("mean", "std"):
        stated.add_argument(
            f"--{name}",
            nargs=3,
            type=float,
            metavar=tuple("ABC"),
            help="of pixels from 0 to 255, in the order of --format",
        )
    stated.add_argument("--activation", help="relu6, relu or leaky_relu")
    args = parser.parse_args(argv)
    said = Stated(pixel_format=args.format, pixel_mean=args.mean, pixel_std=args.std, activation=args.activation)
    classes = read_class_names(args.classes) if args.classes else []
    checkpoint = read_weights(args.file, args.allow_pickle, args.raw)
    try:
        conversion = plan_conversion(args.source, checkpoint, said)
        converted = conversion.checkpoint(classes)
    except UserError as error:
        advice = "; give another FILE or --source" if isinstance(error, ForeignWeightsError) else ""
        raise UserError(f"{args.file} with --source {args.source}: {error}{advice}") from error
    write_checkpoint(args.out, converted)
    print(f"source: {conversion.source}")
    print(f"{args.out}: {conversion.summary()}")
    print("its config:\n")
    print(converted["imgcls"]["cfg"], end="")
