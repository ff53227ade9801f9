"""Makes the pictures that tests/transforms.rs compares with: what torchvision makes of two small pictures.

    python tests/pixels/make_transform_reference.py        (torch, torchvision, numpy, pillow)

Writes into tests/pixels/transforms/: colour.png and grey.png, which the operations start from, and cases.json and
results.png: each case with its operation and numbers, and where its bytes lie ([channel][row][column]) in the pixels of
results.png, which is no picture but a compressed list.
"""

import json
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

OUT = Path(__file__).parent / "transforms"


def pictures():
    """Soft gradients, flat areas with hard edges, pure colours, grey, and noise: an odd and an even side."""
    rng = np.random.default_rng(4)
    height, width = 38, 45
    y, x = np.mgrid[0:height, 0:width]
    colour = np.stack([4 * x + y, 250 - 3 * y - x, 60 + 2 * x + 2 * y], axis=-1).clip(0, 255)
    colour[4:12, 5:20] = [255, 0, 0]
    colour[8:18, 14:24] = [30, 200, 255]
    colour[20:30, 3:13] = [128, 128, 128]
    colour[22:34, 16:30] = rng.integers(0, 256, (12, 14, 3))
    colour[2:9, 30:43] = [255, 255, 255]
    colour[12:17, 30:43] = [0, 0, 0]
    grey = (40 + 2 * x + 3 * y)[:33, :28].clip(0, 255)
    grey[5:14, 6:17] = 240
    grey[18:30, 10:24] = rng.integers(20, 200, (12, 14))
    return {"colour": colour.astype(np.uint8), "grey": grey.astype(np.uint8)}


def affine(image, angle=0.0, translate=(0, 0), shear=(0.0, 0.0), center=None, interpolation="nearest", fill=None):
    return F.affine(image, angle, list(translate), 1.0, list(shear), interpolation=interpolation, fill=fill, center=center)


def rotate(image, angle, interpolation, fill):
    return F.rotate(image, angle, interpolation=interpolation, fill=fill)


def pad_crop(image, padding, mode, fill, top, left):
    height, width = image.shape[-2:]
    padded = F.pad(image, [padding] * 4, fill=fill, padding_mode=mode)
    return F.crop(padded, top, left, height, width)


def erase(image, top, left, height, width, fill):
    value = torch.tensor(fill, dtype=torch.uint8).reshape(-1, 1, 1)
    return F.erase(image, top, left, height, width, value)


AUGMENT = v2.RandAugment()


def rand_augment(image, name, magnitude, negative):
    """One operation as RandAugment.forward applies it once it is drawn."""
    magnitudes, signed = AUGMENT._AUGMENTATION_SPACE[name]
    values = magnitudes(31, *image.shape[-2:])
    value = 0.0 if values is None else float(values[magnitude])
    value = -value if signed and negative else value
    return AUGMENT._apply_image_or_video_transform(image, name, value, interpolation="nearest", fill=AUGMENT._fill)


def cases():
    fill = {"colour": [[10, 200, 90], [0]], "grey": [[77], [0]]}
    for picture in ["colour", "grey"]:
        yield picture, F.horizontal_flip, {}
        yield picture, F.vertical_flip, {}
        for size in [[20, 20], [19, 24], [13, 44], [50, 61]]:
            yield picture, F.center_crop, {"output_size": size}
        for size in [[16], [60], [21, 17], [38, 20]]:
            yield picture, F.resize, {"size": size}
        for mode in ["constant", "edge", "reflect", "symmetric"]:
            for top, left in [(0, 0), (5, 9), (18, 3)]:
                each = fill[picture][0] if mode == "constant" else 0
                yield picture, pad_crop, {"padding": 9, "mode": mode, "fill": each, "top": top, "left": left}
        for each in fill[picture]:
            yield picture, erase, {"top": 3, "left": 7, "height": 12, "width": 5, "fill": each}
        for interpolation in ["nearest", "bilinear"]:
            for angle in [30.0, -7.5, 90.0, 180.0, 133.3]:
                yield picture, rotate, {"angle": angle, "interpolation": interpolation, "fill": fill[picture][0]}
            yield picture, rotate, {"angle": 12.0, "interpolation": interpolation, "fill": [0]}
            numbers = {"angle": -20.0, "translate": [3, -5], "shear": [10.0, -4.0], "center": [11.0, 8.0]}
            yield picture, affine, {**numbers, "interpolation": interpolation, "fill": fill[picture][0]}
        for kernel, sigma in [(3, 0.5), (5, 1.3), (9, 0.1), (23, 2.0), (31, 6.0)]:
            yield picture, F.gaussian_blur, {"kernel_size": kernel, "sigma": sigma}
        for factor in [0.0, 0.37, 1.0, 1.9]:
            yield picture, F.adjust_brightness, {"factor": factor}
            yield picture, F.adjust_contrast, {"factor": factor}
            yield picture, F.adjust_saturation, {"factor": factor}
            yield picture, F.adjust_sharpness, {"factor": factor}
        for factor in [-0.5, -0.13, 0.05, 0.31]:
            yield picture, F.adjust_hue, {"factor": factor}
        yield picture, F.rgb_to_grayscale, {"num_output_channels": 3 if picture == "colour" else 1}
        for bits in [1, 4, 7, 8]:
            yield picture, F.posterize, {"bits": bits}
        for threshold in [0.0, 128.0, 191.25, 255.0]:
            yield picture, F.solarize, {"threshold": threshold}
        yield picture, F.autocontrast, {}
        yield picture, F.equalize, {}
    for place, name in enumerate(AUGMENT._AUGMENTATION_SPACE):
        for magnitude, negative in [(9, False), (17, True), (30, False)]:
            yield "colour", rand_augment, {"name": name, "place": place, "magnitude": magnitude, "negative": negative}


def result(image, function, numbers):
    arguments = dict(numbers)
    if "factor" in arguments:
        arguments[function.__name__.removeprefix("adjust_") + "_factor"] = arguments.pop("factor")
    if function is rand_augment:
        arguments.pop("place")
    return function(image, **arguments)


def main():
    OUT.mkdir(exist_ok=True)
    images = {}
    for name, pixels in pictures().items():
        Image.fromarray(pixels).save(OUT / f"{name}.png", optimize=True)
        planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        images[name] = torch.from_numpy(planes.copy())
    found, bytes_ = [], bytearray()
    for picture, function, numbers in cases():
        made = result(images[picture], function, numbers).contiguous()
        assert made.dtype == torch.uint8
        operation = function.__name__
        found.append({"operation": operation, "picture": picture, "numbers": numbers, "shape": list(made.shape), "offset": len(bytes_)})
        bytes_ += made.numpy().tobytes()
    width = 1024
    bytes_ += bytes(-len(bytes_) % width)
    Image.fromarray(np.frombuffer(bytes_, np.uint8).reshape(-1, width)).save(OUT / "results.png", optimize=True)
    # The shifts of RandAugment in whole pixels are cut from `linspace`, whose last bit decides.
    shifts = {}
    for side in [28, 32, 45, 96, 224, 331, 384, 662]:
        values = AUGMENT._AUGMENTATION_SPACE["TranslateX"][0](31, side, side)
        shifts[side] = [int(float(v)) for v in values]
    posterize = AUGMENT._AUGMENTATION_SPACE["Posterize"][0](31, 1, 1).tolist()
    solarize = AUGMENT._AUGMENTATION_SPACE["Solarize"][0](31, 1, 1).tolist()
    made_with = f"torch {torch.__version__}, torchvision {torchvision.__version__}, pillow {PIL.__version__}"
    lines = ",\n".join(json.dumps(case) for case in found)
    tables = json.dumps({"shifts": shifts, "posterize": posterize, "solarize": solarize})
    text = f'{{"made_with": {json.dumps(made_with)},\n"tables": {tables},\n"cases": [\n{lines}\n]}}\n'
    (OUT / "cases.json").write_text(text)
    print(f"{len(found)} cases, {len(bytes_)} bytes, {made_with}")


main()
