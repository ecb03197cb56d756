"""Small sound inputs of each kind, and some that try to do harm, from which a fuzzer starts."""

from __future__ import annotations

import functools
import io
import json
import os
import pickle
import tarfile
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hostile import write_kind
from numpy.typing import NDArray
from PIL import Image, features
from torch import Tensor

from fuzz.mutation import MOST_BYTES
from pcnn.networks.pcnn import FERPLUS_CLASSES, PCNN, ModelConfig
from pcnn.weights.files import write

_PIXELS = (np.indices((12, 9)).sum(0) * 7 % 256).astype(np.uint8)


class Harm:
    """An object whose unpickling would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch canary",)


@functools.cache
def pictures() -> list[bytes]:
    """Pictures of 9 × 12 pixels in every format and mode that is read, with EXIF and without."""
    grey, exif = Image.fromarray(_PIXELS), Image.Exif()
    exif[0x0112] = 6
    colour = Image.merge("RGB", (grey, grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT), grey))
    clear = colour.copy()
    clear.putalpha(grey)
    wide = Image.fromarray(_PIXELS.astype(np.uint16) * 200)
    few = colour.quantize(5)
    saved: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (colour, "JPEG", {"exif": exif, "quality": 50}),
        (colour, "JPEG", {"progressive": True, "subsampling": 0}),
        (colour.convert("CMYK"), "JPEG", {}),
        (grey, "JPEG", {"optimize": True}),
        *((each, "PNG", {"exif": exif}) for each in (grey, colour, clear, few, wide)),
        (few, "PNG", {"transparency": 1}),
        (grey.convert("1"), "PNG", {}),
        (grey.convert("LA"), "PNG", {}),
        (few, "GIF", {"transparency": 2}),
        (few, "GIF", {"save_all": True, "append_images": [grey.quantize(3)]}),
        (colour, "WEBP", {"exif": exif}),
        (clear, "WEBP", {"lossless": True}),
        *((colour, "TIFF", {"compression": each}) for each in ("tiff_lzw", "jpeg", "packbits")),
        *((each, "TIFF", {}) for each in (grey, wide, grey.convert("F"), colour.convert("CMYK"))),
        (grey.convert("1"), "TIFF", {"compression": "group4"}),
        (colour, "TIFF", {"compression": "tiff_adobe_deflate", "tiffinfo": {0x0112: 8}}),
        *((each, "BMP", {}) for each in (grey, colour, few, grey.convert("1"))),
        *((each, "PPM", {}) for each in (grey, colour, wide, grey.convert("1"))),
        *((each, "JPEG2000", {}) for each in (grey, clear)),
        (colour, "JPEG2000", {"no_jp2": True, "irreversible": True}),
    ]
    if features.check("avif"):
        saved += [(colour, "AVIF", {"exif": exif}), (clear, "AVIF", {"quality": 20})]
    found = []
    for picture, kind, options in saved:
        stream = io.BytesIO()
        picture.save(stream, kind, **options)
        found.append(stream.getvalue())
    return [
        *found,
        b"P1\n2 2\n1 0 0 1\n",
        b"P2\n# grey\n2 2\n255\n0 9 200 255\n",
        b"P3 1 1 65535 1 2 65535",
        b"Pf\n1 2\n-1.0\n" + np.float32([0.5, 1]).tobytes(),
        b"\0\0\0\x20ftypheic" + bytes(24),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    ]


def weights_of(*kinds: str) -> list[bytes]:
    """Weights files of some of hostile.KINDS, as small as there can be.

    Each comes a second time with its metadata and a single tensor, which is read in no time.
    """
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            path = Path(folder) / "x.safetensors"
            tensors, metadata = write_kind(kind, path, 1)
            whole = path.read_bytes()
            write(path, dict([next(iter(tensors.items()))]), metadata)
            found += [path.read_bytes(), *([whole] if len(whole) <= MOST_BYTES else [])]
    return found


def _saved(state: object, *, legacy: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(state, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def _pickled_harm() -> list[bytes]:
    """Checkpoints that would run a command when they are unpickled, and a TorchScript archive."""
    state = OrderedDict(w=torch.ones(1))
    script = io.BytesIO(_saved({"state_dict": state}))
    with zipfile.ZipFile(script, "a") as archive:
        archive.writestr("archive/constants.pkl", pickle.dumps(()))
        archive.writestr("archive/code/x.py", "import os; os.system('touch canary')")
    harm = {"state_dict": state, "recorder": Harm()}
    return [
        *(_saved(harm, legacy=legacy) for legacy in (False, True)),
        pickle.dumps(Harm()),
        script.getvalue(),
    ]


def upstream_checkpoints() -> list[bytes]:
    """Checkpoints with the names of the authors' tensors, each of one number, and harmful ones."""
    # Its own names, from the mapping that load_upstream inverts; values do not matter here.
    from pcnn.weights.upstream import _STAGES, _TRUNKS

    with torch.device("meta"):
        ours = PCNN(ModelConfig(classes=("a", "b"), size=224, width=4), initialised=False)
    one = torch.ones(1)
    state: dict[str, Tensor] = {}
    children = {stage: child for child, stage in _STAGES.items()}
    for name in ours.state_dict():
        parts = name.split(".")
        if parts[0] == "trunks" and parts[2] in children and "0.conv1" not in name[-8:]:
            features_, resnet, _ = _TRUNKS[parts[1]]
            rest = ".".join(parts[3:])
            if len(state) < 120 or parts[2] == "conv1":
                state[f"{features_}.{children[parts[2]]}.{rest}"] = one
                state[f"{resnet}.{parts[2]}.{rest}"] = one
    state["features8.0.0.conv1.weight"] = state["resnet.layer4.0.conv1.weight"] = one
    for layer in ("fc_loc.0", "fc_loc.2", "fc", *(head for _, _, head in _TRUNKS.values())):
        state |= {f"{layer}.weight": one, f"{layer}.bias": one}
    small = dict(list(state.items())[-24:])
    return [
        *(_saved({"state_dict": OrderedDict(small)}, legacy=legacy) for legacy in (False, True)),
        _saved({f"module.{name}": tensor for name, tensor in state.items()}),
        _saved({"state_dict": {"fc.bias": torch.tensor(1.0), "features1.conv1": one}}),
        *_pickled_harm(),
    ]


def detector_checkpoints() -> list[bytes]:
    """Checkpoints of both published families, with few tensors, and harmful ones."""
    one = torch.ones(1)
    mobile = {"module.body.stage1.0.0.weight": one, "class_head.0.conv1x1.bias": one}
    resnet = {
        "body.layer1.0.conv1.weight": one,
        "body.conv1.weight": torch.ones(2, 3, 2, 2),
        "body.bn1.running_var": torch.ones(2),
    }
    wrapped = io.BytesIO()
    with zipfile.ZipFile(wrapped, "w") as archive:
        archive.writestr("x.pth", _saved(mobile))
    return [
        *(_saved(mobile, legacy=legacy) for legacy in (False, True)),
        _saved({"state_dict": resnet}),
        wrapped.getvalue(),
        *_pickled_harm(),
    ]


def published_files() -> list[bytes]:
    """Safetensors without pcnn's metadata, such as face networks have that others publish."""
    from safetensors.torch import save

    tensors = {"conv1.weight": torch.ones(2, 3, 3, 3), "bn1.weight": torch.ones(2)}
    return [save(tensors), save(tensors, metadata={"format": "pt"})]


def npz(**arrays: NDArray[Any]) -> bytes:
    """The bytes of an .npz file."""
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def npy(array: NDArray[Any]) -> bytes:
    """The bytes of an .npy file."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _embeddings() -> dict[str, NDArray[Any]]:
    return {
        "features": np.eye(2, 4, dtype=np.float32),
        "paths": np.array(["a.jpg", "b.jpg"]),
        "face_index": np.array([0, 1]),
        "boxes": np.ones((2, 4), np.float32),
        "weights_sha256": np.array("ab" * 32),
    }


def embeddings() -> list[bytes]:
    """Files of embeddings, and what else NumPy may find in such a file."""
    sound = _embeddings()
    harm = io.BytesIO()
    np.save(harm, np.array([Harm()], object), allow_pickle=True)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("features.npy", harm.getvalue())
    return [
        npz(**sound),
        npz(**sound | {"features": np.zeros((0, 4), np.float32)}),
        npz(**sound | {"features": np.array([["a", "b"]] * 2)}),
        npy(sound["features"]),
        packed.getvalue(),
        harm.getvalue(),
    ]


def embeddings_parquet() -> list[bytes]:
    """Files of embeddings as Parquet."""
    from pcnn.embeddings import Embeddings

    sound = _embeddings()
    made = Embeddings(**sound | {"paths": ("a.jpg", "b.jpg"), "weights_sha256": "ab" * 32})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.parquet"
        made.save(path)
        return [path.read_bytes()]


def landmarks() -> list[bytes]:
    """Cached landmarks of two faces, and arrays of other kinds."""
    sound = np.arange(20, dtype=np.float32).reshape(2, 5, 2)
    return [npy(sound), npy(sound.astype(np.float64)), npy(np.array(["a"])), npz(a=sound)]


@functools.cache
def photograph_archive() -> bytes:
    """An archive of two photographs."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in (("a.jpg", pictures()[0]), ("b.png", pictures()[5])):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def teacher_caches(fingerprint: str) -> list[bytes]:
    """Cached faces of the archive's two photographs."""
    sound: Mapping[str, NDArray[Any]] = {
        "fingerprint": np.array(fingerprint),
        "counts": np.float32([1, 1]),
        "boxes": np.ones((2, 4), np.float32),
        "landmarks": np.ones((2, 10), np.float32),
        "scores": np.float32([0.9, 0.8]),
    }
    odd = ({"counts": np.float32([2.5, np.nan])}, {"scores": np.array(["a", "b"])})
    return [npz(**sound), *(npz(**{**sound, **each}) for each in odd), npy(sound["boxes"])]


def recipes() -> list[bytes]:
    """Recipes of trainings."""
    return [
        b'network = "trunk"\nsize = 48\nlearning_rate = 1e-3\nteachers = ["a", "b"]\n'
        b"aligned = true\n"
        b"[augmentation]\nscale = 0.1\n",
        b'network = "pcnn"\nbackbone = "mobilenet"\nsaliency = "centre"\nepochs = 2\nbatch = 8\n'
        b'optimizer = "sgd"\nlabels = "majority"\nstorage = "int8"\nseed = 3\nbalance = 0.5\n',
        b'when = 1979-05-27\n"a.b" = {c = [1, 2.5, nan], d = 0x10}\n',
    ]


@functools.cache
def sheet() -> bytes:
    """A contact sheet of one row."""
    stream = io.BytesIO()
    Image.new("L", (40 * 48, 48), 90).save(stream, "PNG")
    return stream.getvalue()


def sheet_tables() -> list[bytes]:
    """Tables of contact sheets."""
    columns = ("image", *FERPLUS_CLASSES, "unknown", "NF", "fer2013", "duplicate")
    rows = ["a.png,4,6,0,0,0,0,0,0,0,0,Happy,0", "b.png,0,0,0,9,0,0,0,1,0,0,Sad,1"]
    return ["\n".join([",".join(columns), *rows, ""]).encode()]


def fer2013_tables() -> list[bytes]:
    """FER2013's table, and FER+'s beside it after a line of two signs."""
    grey = " ".join(["7"] * 48 * 48)
    ours = f"emotion,pixels,Usage\n3,{grey},Training\n0,{grey},PublicTest\n"
    columns = ("Usage", "Image name", *FERPLUS_CLASSES, "unknown", "NF")
    votes = ["Training,a.png,4,6,0,0,0,0,0,0,0,0", "PublicTest,,0,0,0,9,0,0,0,1,0,0"]
    return [ours.encode(), "\n".join([f"{ours}==", ",".join(columns), *votes, ""]).encode()]


def face_lists() -> list[bytes]:
    """Lists of labelled files."""
    return [b"happiness/a.jpg\n1/fer0000001.jpg\n1_a.png 8 0\na.jpg sad\n", b"3/a.jpg\n"]


def rafdb_lists() -> list[bytes]:
    """RAF-DB's list."""
    return [b"train_00001.jpg 5\ntest_0001.jpg 7\n"]


def unit_tables() -> list[bytes]:
    """Tables of action units, for twenty faces."""
    rows = "".join(f"{n},{n % 2},{(n + 1) % 2}\n" for n in range(20))
    return [f"image,AU1,AU02\n{rows}".encode(), f"image,6,12\n\n{rows}".encode()]


def triplet_tables() -> list[bytes]:
    """Triplets of faces."""
    face = "http://x/a%20b.jpg, 0.1, 0.4, 0.2, 0.6"
    row = f"{face},{face},{face}, ONE_CLASS_TRIPLET, q1, 1, q2, 1, q3, 2, , "
    return [f"{row}\n{row}\n".encode()]


def resumed_lines() -> list[bytes]:
    """Rows of pictures and films as JSON lines and CSV, the first byte for the format."""
    face = {"label": "a", "frame": 3, "time": 0.1, "source": "f.mp4", "detection_score": 0.9}
    face |= dict.fromkeys(("x1", "y1", "x2", "y2", "raw_a", "raw_b", *_points()), 1.5)
    picture = {"source": "a.png", "faces": []}
    lines = [picture, picture | {"source": "b.png"}, face, face, face | {"frame": 4}]
    text = "".join(json.dumps(each) + "\n" for each in lines)
    from pcnn.commands.reports import Names, csv_columns

    tables = []
    for films in (False, True):
        columns = csv_columns(Names(("a", "b")), crops=False, pictures=True, films=films)
        row = {"source": "f.mp4", "frame": "3"}
        cells = [",".join(row.get(name, "1.5") for name in columns)] * 3
        tables.append(f"{int(films)}" + "\n".join([",".join(columns), *cells, ""]))
    return [text.encode(), *(table.encode() for table in tables)]


def _points() -> tuple[str, ...]:
    from pcnn.results.frames import FILM_COLUMNS

    return FILM_COLUMNS[-10:]


def hub_configs() -> list[bytes]:
    """What config.json of a repository says of its weights."""
    from hashlib import sha256

    own = sha256(weights_of("trunk")[1]).hexdigest()
    told = {"file": "x.safetensors", "sha256": own, "architecture": "trunk", "size": 32}
    return [json.dumps({"pcnn": told | {"classes": ["a", "b", "c"]}}).encode(), b'{"pcnn": []}']


def job_plans() -> list[bytes]:
    """The plan of a job without pictures, and another."""
    from pcnn.distributed import jobs

    with tempfile.TemporaryDirectory() as folder:
        jobs.prepare(Path(folder), [], jobs.JobOptions())
        own = (Path(folder) / "_job" / "plan.json").read_bytes()
    return [own, b'{"schema": 1, "partitions": 1, "sha256": "ab"}\n', b"[]"]


def onnx_models() -> list[bytes]:
    """A model of one addition."""
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in ("x", "y")]
    node = helper.make_node("Add", ["x", "x"], ["y"])
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    opset = [helper.make_opsetid("", 17)]
    return [helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()]
