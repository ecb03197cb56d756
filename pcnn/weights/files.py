"""Weights files: their places, checksums, tensors and metadata."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from pcnn.disk import as_path, cache_folder, whole_file
from pcnn.errors import InputError, WeightsError
from pcnn.weights.compression import SCALE, widen
from pcnn.weights.known import SPECS, WeightSpec
from pcnn.weights.schema import Rule, keep_to, parse_metadata

_TRIES = 20  # to open a file that is replaced meanwhile
_METADATA_KEY = "pcnn"
# Names of number types in safetensors.
_FLOATING, _INT8 = frozenset(("F16", "BF16", "F32", "F64")), frozenset(("I8",))
_WHOLE = frozenset(("I64", "I32", "I16", "I8", "U8"))
_PACKAGED = Path(__file__).resolve().parents[1] / "_weights"
# The same folder in a checkout that is not installed.
_CHECKOUT = Path(__file__).resolve().parents[2] / "weights"


def locate(weights: str | Path, *, kind: str | None = None) -> Path:
    """The path of a weights file, from a name of SPECS or a path.

    An existing path is returned unchanged. A name is searched in the folder $PCNN_WEIGHTS, in the
    package, and in the cache ($XDG_CACHE_HOME/pcnn or ~/.cache/pcnn). If it is in none of them and
    has a URL, it is downloaded to the cache. Its sha256 is checked every time.
    kind: as in WeightSpec; a name of the other kind is refused.
    Raises WeightsError: no such file or name, a wrong checksum, or a failed download.
    Raises InputError: `weights` is no text and no path.

    >>> locate("small").name
    'pcnn-small.safetensors'
    """
    if not isinstance(weights, (str, os.PathLike)):
        raise InputError(f"weights must be a name or the path of a file, got {weights!r}")
    spec = SPECS.get(str(weights))
    if spec is None:
        path = Path(weights).expanduser()
        if not path.is_file():
            known = (name for name, each in SPECS.items() if kind in (None, each.kind))
            raise WeightsError(
                f"{weights}: no such weights file or known name ({', '.join(known)})"
            )
        return path
    if kind not in (None, spec.kind):
        raise WeightsError(f"{weights}: holds weights of kind {spec.kind}, expected {kind}")
    for folder in _folders():
        path = folder / spec.file
        if path.is_file():
            _verify(path, spec, str(path))
            return path
    if spec.url is None:
        looked = ", ".join(str(folder) for folder in _folders())
        raise WeightsError(f"{weights}: {spec.file} not found in {looked}; reinstall pcnn")
    return _download(spec, spec.url, cache_folder() / spec.file)


def _open(path: Path) -> Any:
    """safe_open's file, whose header and tensors come from one version of the file.

    safe_open itself opens the path twice: first for the header, then for the tensors. A file that
    is replaced in between would give the header of one version and the tensors of another.
    """
    for _ in range(_TRIES):
        # The open file keeps its inode, so that no later version can have the same one.
        with path.open("rb") as current:
            file = safe_open(path, framework="pt", device="cpu")
            if os.path.samestat(os.fstat(current.fileno()), path.stat()):
                return file
    raise OSError("it is replaced again and again while it is opened")


class WeightsFile:
    """One of this project's safetensors files. Opening it reads only its header.

    metadata: the file's metadata. shapes: name → shape of each tensor.
    Raises WeightsError: the file is missing, damaged, or has no metadata of pcnn.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = as_path("weights", path)
        with self._named_errors():
            # Opened once: a file that is replaced meanwhile must not give the tensors of another.
            file = _open(self.path)
            self._file = file
            described = (file.metadata() or {}).get(_METADATA_KEY)
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            self.shapes = {name: tuple(own.get_shape()) for name, own in slices.items()}
            self._kinds = {name: str(own.get_dtype()) for name, own in slices.items()}
        if described is None:
            raise WeightsError(f"{path}: a safetensors file, but not one written by pcnn")
        metadata = parse_metadata(described, str(path))
        if not isinstance(metadata, dict):
            raise WeightsError(f"{path}: a safetensors file, but not one written by pcnn")
        self.metadata: dict[str, Any] = metadata

    def check(self, rule: Rule) -> None:
        """Raise WeightsError, naming the field, if the metadata break the rule."""
        keep_to(rule, self.metadata, str(self.path))

    def check_shapes(self, wanted: Mapping[str, Tensor]) -> None:
        """Raise WeightsError unless the file has exactly these tensors, by name, type and shape.

        wanted: a network's state; it may be on PyTorch's meta device.
        """
        for name, tensor in wanted.items():
            if name not in self.shapes:
                raise WeightsError(f"{self.path}: the tensor {name} is missing")
            shape = tuple(tensor.shape)
            if self.shapes[name] != shape:
                raise WeightsError(
                    f"{self.path}: by its metadata the tensor {name} must be {shape}, "
                    f"got {self.shapes[name]}"
                )
            scale = self.shapes.get(name + SCALE)
            kinds = (
                _WHOLE if not tensor.is_floating_point() else _FLOATING if scale is None else _INT8
            )
            if self._kinds[name] not in kinds:
                raise WeightsError(
                    f"{self.path}: the tensor {name} must be {' or '.join(sorted(kinds))}, "
                    f"got {self._kinds[name]}"
                )
            if scale is not None and scale != shape[:1]:
                raise WeightsError(
                    f"{self.path}: the tensor {name}{SCALE} must be {shape[:1]}, got {scale}"
                )
        unknown = [name for name in self.shapes if name.removesuffix(SCALE) not in wanted]
        if unknown:
            raise WeightsError(f"{self.path}: the tensor {unknown[0]} is unknown")

    def tensors(self) -> dict[str, Tensor]:
        """All tensors on the CPU; floating and scaled 8-bit ones as float32.

        Raises WeightsError: the file is missing, or a tensor is not finite.
        """
        with self._named_errors():
            mapped = {name: self._file.get_tensor(name) for name in self.shapes}
            widened = widen(mapped)
            # safetensors maps the file into memory, so overwriting it would change the network.
            found = {n: t.clone() if t is mapped.get(n) else t for n, t in widened.items()}
        check_finite(self.path, found)
        return found

    def stored(self) -> dict[str, Tensor]:
        """All tensors with their stored types, on the CPU. Raises WeightsError: as `tensors`."""
        with self._named_errors():
            found = {name: self._file.get_tensor(name).clone() for name in self.shapes}
        check_finite(self.path, found)
        return found

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise WeightsError(f"{self.path}: no such weights file") from error
        except (SafetensorError, OSError, ValueError) as error:
            raise WeightsError(f"{self.path}: not a readable safetensors file ({error})") from error


def check_finite(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise WeightsError, naming file and tensor, for NaN, infinity or a negative variance."""
    for name, tensor in tensors.items():
        # All numbers are checked only if their sum is not finite, because that takes longer.
        if (
            tensor.is_floating_point()
            and not tensor.sum().isfinite()
            and not tensor.isfinite().all()
        ):
            raise WeightsError(f"{path}: the tensor {name} holds NaN or infinity")
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise WeightsError(f"{path}: the tensor {name} holds variances below 0")


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and metadata of one of this project's safetensors files, on the CPU.

    Raises WeightsError: the file is missing, damaged, has no metadata of pcnn, or has tensors
    that are not finite.

    >>> tensors, metadata = read(locate("small"))
    >>> metadata["licence"]
    'Apache-2.0'
    """
    file = WeightsFile(path)
    return file.stored(), file.metadata


def write(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write tensors and metadata (values for JSON) as safetensors, atomically.

    >>> write("two.safetensors", {"ones": torch.ones(2)}, {"made": "here"})
    >>> read("two.safetensors")
    ({'ones': tensor([1., 1.])}, {'made': 'here'})
    """
    path = as_path("write: path", path)
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # save_file makes a file that only its owner may read.
    content = save(contiguous, metadata={_METADATA_KEY: json.dumps(metadata)})
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def sha256(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes.

    >>> sha256(locate("small")) == SPECS["small"].sha256
    True
    """
    return hashlib.sha256(as_path("sha256: path", path).read_bytes()).hexdigest()


def name_of_sha256(sha256: str) -> str | None:
    """The name in SPECS of the file with this SHA-256; None without one."""
    return next((name for name, spec in SPECS.items() if spec.sha256 == sha256), None)


def is_published(path: str | Path) -> bool:
    """Whether a file holds a face network's published weights, not written by pcnn.

    False for names of weights and for missing files.
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
    """The tensors of a file for which `is_published` is true."""
    return load_file(path)


def _folders() -> Iterator[Path]:
    """The folders to search, in order; the cache is last, because some users have no home."""
    chosen = os.environ.get("PCNN_WEIGHTS")
    if chosen:
        yield Path(chosen)
    yield _PACKAGED
    yield _CHECKOUT
    yield cache_folder()


def _verify(path: Path, spec: WeightSpec, name: str) -> None:
    """Raise WeightsError, about `name`, if the file has another checksum."""
    found = sha256(path)
    if not found.startswith(spec.sha256):
        raise WeightsError(
            f"{name}: sha256 is {found}, expected {spec.sha256}; the file is damaged, incomplete "
            "or a different one: download it again, or pass its path to skip this check"
        )


def _download(spec: WeightSpec, url: str, path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            with temporary.open("wb") as file, urllib.request.urlopen(url, timeout=30) as reply:
                while block := reply.read(1 << 20):
                    file.write(block)
            _verify(temporary, spec, url)
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        raise WeightsError(
            f"{url}: download failed ({error}); fetch it by other means and put it at {path}"
        ) from error
    return path
