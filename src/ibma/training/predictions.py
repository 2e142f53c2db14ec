"""What a trained network says of its test rows: `seed_<k>.npz` beside the record.

Every metric of a record follows from it, so that a stranger can compute them without training.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ibma.errors import IbmaError
from ibma.files import read_arrays, regular, unpacked_limit, write_bytes


@dataclass(frozen=True, eq=False)
class Predictions:
    """Test rows with their truth and what a network says of them.

    Args:
        ids: of the samples, [n].
        labels: as the feature store holds them, [n, C].
        groups: speaker, video, patient or slice of each sample, [n].
        scores: what `Task.scores` keeps of the network's output, [n, S], in the type it returns.
    """

    ids: NDArray[np.str_]
    labels: NDArray[np.float64]
    groups: NDArray[np.str_]
    scores: NDArray[np.floating[Any]]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return name -> array, as a file holds them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        """Build what `arrays` gave.

        Raises:
            ValueError: an array is missing, of another type, or of another length.
        """
        names = [field.name for field in fields(cls)]
        if sorted(arrays) != sorted(names):
            raise ValueError(f"expected the arrays {', '.join(names)}")
        for name, kind in zip(names, "UfUf", strict=True):
            one = arrays[name]
            flat = one.ndim == (1 if kind == "U" else 2) and len(one) == len(arrays["ids"])
            if one.dtype.kind != kind or not flat:
                raise ValueError(f"{name}: {one.dtype} {list(one.shape)} does not fit")
        return cls(**arrays)

    @property
    def digest(self) -> str:
        """Return the sha256 of the content, whatever compressed it."""
        digest = sha256()
        for name, array in self.arrays().items():
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def write(self, path: Path) -> None:
        """Write the file whole or not at all."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **self.arrays())  # type: ignore[arg-type]
        write_bytes(path, buffer.getvalue())


def read(path: Path, digest: str) -> Predictions:
    """Read predictions and make sure that they are those of a record.

    Args:
        digest: what the record says of them.

    Raises:
        IbmaError: there are none, or others.
    """
    remedy = "delete it and its record, and run `dvc repro`"
    try:
        limit = unpacked_limit(regular(path, remedy).stat().st_size)
        one = Predictions.of(read_arrays(path, limit))
    except FileNotFoundError:
        raise IbmaError(f"{path}: missing, its record needs it: {remedy}") from None
    except ValueError as error:
        raise IbmaError(f"{path}: not predictions ({error}): {remedy}") from None
    if one.digest != digest:
        raise IbmaError(f"{path}: not the predictions that its record was made of: {remedy}")
    return one
