#!/usr/bin/env python3
"""Writes small images of every kind that people have, and what Pillow sees in them: reference.npz, with `NAME` as RGB
[height, width, 3], `NAME/grey` as [height, width] for those where it matters, and `crop/...` for resized parts of photo.png;
drafts.npz, with `NAME/2`, `NAME/4` and `NAME/8` for JPEGs decoded at a part of their size, and `crop/I/NAME` for resized parts
of such.

usage: make_reference.py [PHOTO]    with PHOTO, images are made from it; without, only the references are made again
       make_reference.py --folder DIR OUT    writes what Pillow sees in all JPEGs below DIR to OUT, for PIXELS=OUT

photo.jpg's scene is one of clothing-dataset-small (CC0). jpeg-440.jpg, jpeg-411.jpg and jpeg-ycck.jpg cannot be written by
Pillow; they were written by libjpeg-turbo's tj3Compress8 from the same pixels. The two files opencv-*.jpg are from OpenCV's
documentation (Debian package opencv-doc, Apache-2.0)."""
import io, pathlib, struct, sys, zlib
import numpy as np
from PIL import Image, ImageOps

HERE = pathlib.Path(__file__).parent
WIDTH, HEIGHT = 61, 45  # no multiple of any block


def exif(orientation):
    tags = Image.Exif()
    tags[274] = orientation
    return tags.tobytes()


def png16(path, pixels):
    """A PNG of 16 bits a channel, which Pillow does not write."""
    height, width = pixels.shape[:2]
    rows = pixels.astype(">u2").reshape(height, -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    head = struct.pack(">IIBBBBB", width, height, 16, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b""))


def make(photo):
    image = ImageOps.fit(Image.open(photo).convert("RGB"), (WIDTH, HEIGHT), Image.BICUBIC)
    alpha = Image.fromarray(np.add.outer(np.arange(HEIGHT) * 4, np.arange(WIDTH)).astype(np.uint8) )
    with_alpha = image.copy()
    with_alpha.putalpha(alpha)
    grey = image.convert("L")
    save = lambda name, picture, **options: picture.save(HERE / name, **options)
    for name, subsampling in [("444", 0), ("422", 1), ("420", 2)]:
        save(f"jpeg-{name}.jpg", image, quality=92, subsampling=subsampling)
        save(f"jpeg-progressive-{name}.jpg", image, quality=92, subsampling=subsampling, progressive=True)
    save("jpeg-grey.jpg", grey, quality=92)
    save("jpeg-grey-progressive.jpg", grey, quality=92, progressive=True)
    save("jpeg-restarts.jpg", image, quality=92, restart_marker_blocks=2, optimize=True)
    save("jpeg-cmyk.jpg", image.convert("CMYK"), quality=92)
    save("jpeg-rgb.jpg", image, quality=92, keep_rgb=True)
    for orientation in range(1, 9):
        save(f"jpeg-exif-{orientation}.jpg", image, quality=92, exif=exif(orientation))
    save("png-rgb.png", image, optimize=True)
    save("png-rgba.png", with_alpha, optimize=True)
    save("png-grey.png", grey, optimize=True)
    save("png-grey-alpha.png", with_alpha.convert("LA"), optimize=True)
    save("png-palette.png", image.quantize(64), optimize=True)
    save("png-palette-transparent.png", image.quantize(64), optimize=True, transparency=3)
    save("png-bit.png", grey.convert("1"), optimize=True)
    save("png-exif-6.png", image, exif=exif(6), optimize=True)
    wide = np.asarray(image).astype(np.uint16) * 257
    noise = np.random.default_rng(1).integers(0, 256, wide.shape, dtype=np.uint16)
    png16(HERE / "png-rgb16.png", (wide & 0xFF00) | noise)
    png16(HERE / "png-grey16.png", ((wide & 0xFF00) | noise)[:, :, 1])
    save("webp-lossy.webp", image, quality=90)
    save("webp-lossless.webp", image, lossless=True)
    save("webp-alpha.webp", with_alpha, lossless=True, exact=True)
    save("webp-exif-8.webp", image, quality=90, exif=exif(8))
    save("gif.gif", image.quantize(64))
    save("gif-moving.gif", image.quantize(64), save_all=True, append_images=[ImageOps.mirror(image).quantize(64)])
    save("bmp-24.bmp", image)
    save("bmp-8.bmp", image.quantize(64))
    save("bmp-1.bmp", grey.convert("1"))


def see(path):
    image = Image.open(path)
    if image.mode.startswith("I;16"):
        # Pillow would clip these to 255; the upper byte is what a picture of 16 bits shows.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return ImageOps.exif_transpose(image)


CROPS = [  # top, left, height, width; then new height and width
    (0, 0, 45, 61, 24, 24), (3, 5, 30, 40, 20, 24), (10, 20, 33, 41, 64, 64), (7, 1, 8, 50, 16, 16), (20, 30, 25, 31, 12, 12),
    (44, 60, 1, 1, 5, 5), (2.5, 3.25, 39.375, 53.375, 22, 22), (2.8125, 10.8125, 39.375, 39.375, 45, 45),
]


DRAFT_CROPS = [  # of a picture as it is stored, HEIGHT x WIDTH
    (0, 0, 45, 61, 11, 15), (3, 5, 30, 40, 15, 20), (8, 16, 32, 40, 8, 10), (2.5, 3.25, 39.375, 53.375, 9, 9),
    (1, 2, 43, 58, 5, 6),
]  # fmt: skip


def draft(path, divisor):
    image = Image.open(path)
    size = image.size
    # Asking for as much as is left makes Pillow choose the divisor.
    image.draft(None, (size[0] // divisor, size[1] // divisor))
    assert image.size == tuple(-(-side // divisor) for side in size), (path, divisor, image.size)
    return image


def drafts(paths):
    arrays = {}
    for path in paths:
        for divisor in (2, 4, 8):
            image = ImageOps.exif_transpose(draft(path, divisor)).convert("RGB")
            arrays[f"{path.name}/{divisor}"] = np.asarray(image)
    crops = []
    for top, left, height, width, new_height, new_width in DRAFT_CROPS:
        divisor = next(d for d in (8, 4, 2) if height / d >= new_height and width / d >= new_width)
        for name in ("jpeg-420.jpg", "jpeg-progressive-444.jpg", "jpeg-exif-2.jpg", "jpeg-exif-6.jpg"):
            image = draft(HERE / name, divisor)
            box = [x / divisor for x in (left, top, left + width, top + height)]
            if all(float(x).is_integer() for x in box):
                image = image.crop([int(x) for x in box]).resize((new_width, new_height), Image.BILINEAR)
            else:
                image = image.resize((new_width, new_height), Image.BILINEAR, box=box)
            # The part as it lies in the picture as it is seen.
            seen = (top, left, height, width, new_height, new_width)
            if "exif-2" in name:
                image = image.transpose(Image.FLIP_LEFT_RIGHT)
                seen = (top, WIDTH - left - width, height, width, new_height, new_width)
            if "exif-6" in name:
                image = image.transpose(Image.ROTATE_270)
                seen = (left, HEIGHT - top - height, width, height, new_width, new_height)
            arrays[f"crop/{len(crops)}/{name}"] = np.asarray(image)
            crops.append(seen)
    arrays["crops"] = np.array(crops, dtype=np.float64)
    np.savez_compressed(HERE / "drafts.npz", **arrays)
    print(len(arrays), "drafts by Pillow", Image.__version__)


def whole_folder(folder, out):
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    paths = sorted(path for path in pathlib.Path(folder).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    (out / "list.txt").write_text("".join(f"{path}\n" for path in paths))
    for i, path in enumerate(paths):
        (out / f"{i}.rgb").write_bytes(see(path).convert("RGB").tobytes())
    print(len(paths), "images")


def main():
    if sys.argv[1:2] == ["--folder"]:
        return whole_folder(*sys.argv[2:])
    if len(sys.argv) > 1:
        make(sys.argv[1])
    arrays = {}
    for path in sorted(HERE.iterdir()):
        if path.is_dir() or path.suffix in (".py", ".npz", ".md"):
            continue
        image = see(path)
        arrays[path.name] = np.asarray(image.convert("RGB"))
        if path.name in ("jpeg-420.jpg", "jpeg-422.jpg", "jpeg-440.jpg", "jpeg-rgb.jpg", "jpeg-cmyk.jpg", "jpeg-grey.jpg", "png-rgb.png", "png-rgba.png"):
            arrays[path.name + "/grey"] = np.asarray(image.convert("RGB").convert("L"))
    photo = Image.open(HERE / "png-rgb.png")
    for i, (top, left, height, width, new_height, new_width) in enumerate(CROPS):
        box = (left, top, left + width, top + height)
        if all(float(x).is_integer() for x in box):
            part = photo.crop(box).resize((new_width, new_height), Image.BILINEAR)
        else:
            part = photo.resize((new_width, new_height), Image.BILINEAR, box=box)
        arrays[f"crop/{i}"] = np.asarray(part)
    arrays["crops"] = np.array(CROPS, dtype=np.float64)
    np.savez_compressed(HERE / "reference.npz", **arrays)
    print(len(arrays), "arrays by Pillow", Image.__version__)
    drafts(path for path in sorted(HERE.iterdir()) if path.suffix == ".jpg")


main()
