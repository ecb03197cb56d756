"""Weights files: where they lie, whether they are whole, what they say about themselves."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import math
import os
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from pcnn.errors import WeightsError
from pcnn.networks.mirror import Forward, read_both
from pcnn.networks.pcnn import PCNN, FaceNet, Learner, ModelConfig
from pcnn.networks.regions import REGIONS, RegionLayout
from pcnn.networks.saliency import find_model
from pcnn.weights.compression import widen
from pcnn.weights.upstream import load_upstream

__all__ = [
    "SPECS",
    "ExpressionWeights",
    "WeightSpec",
    "load_expression",
    "load_network",
    "load_upstream",
    "locate",
    "read",
    "sha256",
    "write",
]

_METADATA_KEY = "pcnn"
_PACKAGED = Path(__file__).parent / "_weights"
# In a checkout that was not installed the same folder is the repository's own.
_CHECKOUT = Path(__file__).parent.parent / "weights"


@dataclass(frozen=True)
class WeightSpec:
    """A weights file known by name.

    kind: "expression" or "detector". sha256: hexadecimal, of the whole file, or as much of its
    beginning as its publisher gives. url: where to fetch it from, None if it is packaged.
    """

    kind: str
    file: str
    sha256: str
    url: str | None = None


SPECS: Mapping[str, WeightSpec] = {
    "pcnn-ferplus": WeightSpec(
        "expression",
        "pcnn-ferplus.safetensors",
        "27e70bb4315df2162c905d2c41cbc52517a9be8f4e6f0360f9d7fde30cab28fb",
    ),
    # Without regions: a fifth of the bytes and of the time, 1.5 points less of accuracy on valid.
    "small": WeightSpec(
        "expression",
        "pcnn-small.safetensors",
        "c986deb40d67194a5ee4c84eaf4344991796ee634951b190849d7d2aae5dc555",
    ),
    "mobilenet": WeightSpec(
        "detector",
        "detector-mobilenet.safetensors",
        "8b9654549f2178150e2fb6e592953e80368db4bf72d968659578afe1bfe6584c",
    ),
    # Published by retinaface-pytorch (Iglovikov, MIT licence); the name carries the checksum.
    "resnet50": WeightSpec(
        "detector",
        "retinaface_resnet50_2020-07-20-f168fae3c.zip",
        "f168fae3c",
        "https://github.com/ternaus/retinaface/releases/download/0.01/"
        "retinaface_resnet50_2020-07-20-f168fae3c.zip",
    ),
}


def locate(weights: str | Path, *, kind: str | None = None) -> Path:
    """The file behind a name of SPECS or a path, whole as far as its checksum is known.

    An existing path is taken as it is. A name is looked for in the folder $PCNN_WEIGHTS, in the
    package, and in the cache ($XDG_CACHE_HOME/pcnn, ~/.cache/pcnn); only a file that is in none
    of them and has a URL is downloaded, into the cache. Its sha256 is checked every time.
    kind: as in WeightSpec; a name of the other kind is refused.
    Raises WeightsError: no such file or name, a wrong checksum, a download that failed.
    """
    spec = SPECS.get(str(weights))
    if spec is None:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise WeightsError(
                f"{weights}: no such weights file, and no known name ({', '.join(SPECS)})"
            )
        return path
    if kind not in (None, spec.kind):
        raise WeightsError(f"{weights}: names weights of the kind {spec.kind}, expected {kind}")
    for folder in _folders():
        path = folder / spec.file
        if path.is_file():
            _verify(path, spec, str(path))
            return path
    if spec.url is None:
        looked = ", ".join(str(folder) for folder in _folders())
        raise WeightsError(f"{weights}: {spec.file} is in none of {looked}; reinstall pcnn")
    return _download(spec, spec.url, cache_folder() / spec.file)


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of one of this project's safetensors files, on the CPU.

    Raises WeightsError: the file is missing, damaged, or has no metadata of ours.
    """
    path = Path(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such weights file") from error
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error})") from error
    try:
        described = json.loads(metadata[_METADATA_KEY])
    except (KeyError, json.JSONDecodeError):
        described = None
    if not isinstance(described, dict):
        raise WeightsError(f"{path}: a safetensors file, but not one written by pcnn")
    return tensors, described


def write(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write tensors and JSON-able metadata as safetensors, in one atomic step."""
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # save_file would make a file that its owner alone may read.
    temporary.write_bytes(save(contiguous, metadata={_METADATA_KEY: json.dumps(metadata)}))
    temporary.replace(path)


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


# What files call the networks.
_NETWORKS: Mapping[object, type[PCNN | FaceNet]] = {"pcnn": PCNN, "trunk": FaceNet}


@dataclass(frozen=True)
class ExpressionWeights:
    """An expression network and what its file says about using it.

    network: in float32 and eval mode, on the CPU; a FaceNet has no regions.
    template: the five landmarks' mean places in the face square, (x, y) fractions of its side.
    native_size: the side in pixels of the faces it was trained on, before any enlargement.
    temperature: divides the logits to make calibrated probabilities.
    region_temperatures: the same for each region's own logits.
    mirror: each face is to be read together with its mirror image (mirror.read_both): the
        temperatures and scores are those of the mean.
    aligned: the training faces were aligned by their landmarks, and pictures that already are
        faces are to be aligned, too, see alignment.
    """

    network: PCNN | FaceNet
    template: tuple[tuple[float, float], ...]
    native_size: int
    temperature: float
    region_temperatures: Mapping[str, float]
    mirror: bool
    aligned: bool
    path: Path
    metadata: Mapping[str, Any]

    @property
    def saliency(self) -> str | None:
        """The model by whose maps the views are multiplied, see saliency.weigh; None: by none."""
        return self.network.config.saliency

    def answer(
        self, forward: Forward, views: Sequence[Tensor]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """What `forward`, the network or its prepared form, makes of views, as the file asks.

        views: see PCNN.forward_views; already weighed, if `saliency` names a model.
        Returns logits (B, classes) and region name → its own.
        """
        return read_both(forward, views) if self.mirror else forward(views)


def load_expression(weights: str | Path) -> ExpressionWeights:
    """An expression network by name or path, ready to use.

    Raises WeightsError: see locate and read; a file of another kind, or one that does not fit.
    """
    path = locate(weights, kind="expression")
    tensors, metadata = read(path)
    network_type = _NETWORKS.get(metadata.get("architecture"))
    if network_type is None:
        raise WeightsError(f"{path}: holds {metadata.get('architecture')!r}, no expression network")
    with _fitting(path):
        network = network_type(_config(metadata), initialised=False)
        network.load_state_dict(_own(widen(tensors)))
        template = tuple((float(x), float(y)) for x, y in metadata["template"])
        regions = REGIONS if network_type is PCNN else ()
        own = {name: float(metadata["region_temperatures"][name]) for name in regions}
        loaded = ExpressionWeights(
            network=network.eval().requires_grad_(False),
            template=template,
            native_size=int(metadata["native_size"]),
            temperature=float(metadata["temperature"]),
            region_temperatures=own,
            mirror=bool(metadata.get("mirror", False)),
            aligned=bool(metadata.get("aligned", False)),
            path=path,
            metadata=metadata,
        )
        if len(template) != 5:
            raise ValueError(f"template must be 5 points, got {len(template)}")
        positive = (loaded.native_size, loaded.temperature, *own.values())
        if not all(math.isfinite(value) and value > 0 for value in positive):
            raise ValueError(f"sizes and temperatures must be above 0, got {positive}")
    return loaded


def load_network(weights: str | Path) -> PCNN | FaceNet:
    """The bare network of an expression or trunk file, in float32 and training mode.

    Raises WeightsError: no such file or name, or a file of another kind.
    """
    path = locate(weights)
    tensors, metadata = read(path)
    network_type = _NETWORKS.get(metadata.get("architecture"))
    if network_type is None:
        raise WeightsError(f"{path}: holds {metadata.get('architecture')!r}, no expression network")
    with _fitting(path):
        network = network_type(_config(metadata))
        network.load_state_dict(_own(widen(tensors)))
    return network


def is_published(path: str | Path) -> bool:
    """Whether a file holds a face network's published weights, which no pcnn wrote.

    Names of weights, and files that are not there, are none.
    """
    if not Path(path).is_file():
        return False
    try:
        with safe_open(path, "pt") as file:
            return _METADATA_KEY not in (file.metadata() or {}) and "conv1.weight" in set(
                file.keys()
            )
    except (OSError, SafetensorError):
        return False


def read_published(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file for which `is_published` holds."""
    return load_file(path)


# Before the names of the tensors of heads for second labels.
SECOND_PREFIX = "labels."


def load_learner(weights: str | Path) -> Learner:
    """The bare network of a file with its heads for second labels, where it has such.

    Raises WeightsError: as load_network.
    """
    network = load_network(weights)
    path = locate(weights)
    tensors, metadata = read(path)
    labels = metadata.get("labels")
    if not labels:
        return Learner(network)
    with _fitting(path):
        ((name, about),) = labels.items()
        learner = Learner(network, tuple(about["classes"]))
        prefix = f"{SECOND_PREFIX}{name}."
        found = {
            key.removeprefix(prefix): tensor
            for key, tensor in widen(tensors).items()
            if key.startswith(prefix)
        }
        if learner.second is not None:
            learner.second.load_state_dict(found)
    return learner


def _own(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the network itself, without those of heads for second labels."""
    return {name: t for name, t in tensors.items() if not name.startswith(SECOND_PREFIX)}


@contextlib.contextmanager
def _fitting(path: str | Path) -> Iterator[None]:
    """Turn what building a network out of a file's contents raises into WeightsError."""
    try:
        yield
    except (KeyError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path}: its contents do not fit together ({error})") from error


def _config(metadata: Mapping[str, Any]) -> ModelConfig:
    config: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in metadata["config"].items()
    }
    loaded = ModelConfig(**{**config, "layout": RegionLayout(**config["layout"])})
    if loaded.saliency is not None:
        find_model(loaded.saliency)
    return loaded


def _folders() -> Iterator[Path]:
    """Where names are looked for, in order; the cache last, since not everybody has a home."""
    chosen = os.environ.get("PCNN_WEIGHTS")
    if chosen:
        yield Path(chosen)
    yield _PACKAGED
    yield _CHECKOUT
    yield cache_folder()


def cache_folder() -> Path:
    """The folder for what is downloaded or made anew: $XDG_CACHE_HOME/pcnn or ~/.cache/pcnn."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pcnn"


def _verify(path: Path, spec: WeightSpec, name: str) -> None:
    """Raise WeightsError, about `name`, unless the file is the one that was published."""
    found = sha256(path)
    if not found.startswith(spec.sha256):
        raise WeightsError(
            f"{name}: sha256 is {found}, expected {spec.sha256}; the file is damaged, cut short or "
            "another one: fetch it again, or give its path to use it all the same"
        )


def _download(spec: WeightSpec, url: str, path: Path) -> Path:
    # A name of its own for each process: two may download at once, the later rename wins.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file, urllib.request.urlopen(url, timeout=30) as reply:
            while block := reply.read(1 << 20):
                file.write(block)
        _verify(temporary, spec, url)
        temporary.replace(path)
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        raise WeightsError(
            f"{url}: download failed ({error}); fetch it by other means and put it at {path}"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path
