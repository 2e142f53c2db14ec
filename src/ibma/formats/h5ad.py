"""Read Visium sections from h5ad files, and check what a file claims before native code uses it.

Layout: CELLxGENE's schema 7.1.0 for spatial data. An HDF5 file may name other files, by links, by
external storage or by virtual data sets; such a file is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ibma.errors import REMEDIES, IbmaError, one_line, tell
from ibma.formats import raw
from ibma.formats.expression import Counts

# what h5py and numpy make of a damaged file; SystemError is h5py's own slip while it visits one
DAMAGE = (
    *(OSError, KeyError, IndexError, ValueError, TypeError, AttributeError, RuntimeError),
    *(SystemError, OverflowError, MemoryError),
)
# Visium's spots are 100 um apart; Space Ranger writes 55 or 65 um as their diameter
APART = (1.2, 2.4)  # CHOICE: between how many diameters the distance must be
GRID = (0.5, 0.75**0.5)  # distances from column to column and from row to row of the array
SLACK = 0.2  # CHOICE: of a distance, how far from its place on the array a spot may be


@dataclass(frozen=True)
class Visium:
    """The spots on tissue of one section.

    Attributes:
        spots: Their names.
        counts: Their gene counts.
        picture: The reduced picture, uint8 [H, W, 3].
        centres: Places (x, y) of the spots in the picture, [n, 2].
        apart: Pixels of the picture from a spot to the next.
    """

    spots: list[str]
    counts: Counts
    picture: NDArray[np.uint8]
    centres: NDArray[np.float64]
    apart: float


def read(path: Path, advice: str) -> Visium:
    """Read the spots on tissue of a section.

    Args:
        path: An h5ad file.
        advice: How a user gets the file.

    Raises:
        IbmaError: The file is missing or damaged, names other files, unpacks to too much, holds
            other than whole counts, has no spot on tissue, or is not the h5ad of a Visium section.
    """
    with _opened(path, advice) as file:
        flags = _on_tissue(file)
        names = _column(file, "obs", str(file["obs"].attrs["_index"])).astype(str)
        centres, picture, apart = _picture(file)
        counts = _counts(file, path)
        if not (len(flags) == len(names) == len(centres) == counts.values.shape[0]):
            raise ValueError("obs, obsm/spatial and X differ in their number of spots")
        if len(set(names)) < len(names):
            raise ValueError("two spots have one name")
        kept = replace(counts, values=counts.values[flags])
        return Visium(names[flags].tolist(), kept, picture, centres[flags], apart)


def count_on_tissue(path: Path, advice: str) -> int:
    """Return how many spots of a section are on tissue.

    Args:
        path: An h5ad file.
        advice: How a user gets the file.

    Raises:
        IbmaError: As `read`.
    """
    with _opened(path, advice) as file:
        return int(_on_tissue(file).sum())


@contextmanager
def _opened(path: Path, advice: str) -> Iterator[h5py.File]:
    raw.present(path, advice)
    try:
        with h5py.File(path) as file:
            limit = raw.unpacked_limit(path)
            # what a visitor returns ends the visit; h5py does not let it raise
            wrong = file.visititems_links(_wrong_link)
            wrong = wrong or file.visititems(lambda name, item: _wrong_item(name, item, limit))
            if wrong:
                raise IbmaError(f"{wrong}: refused")
            yield file
    except IbmaError as error:
        raise IbmaError(f"{path}: {error}: {advice}") from None
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno in REMEDIES:
            raise
        cause = one_line(error)[:200]
        raise IbmaError(f"{path}: not the h5ad of a Visium section ({cause}): {advice}") from None


def _wrong_link(name: str, link: object) -> str | None:
    return None if isinstance(link, h5py.HardLink) else f"'{name}' is a link to somewhere else"


def _wrong_item(name: str, item: h5py.Group | h5py.Dataset, limit: int) -> str | None:
    if not isinstance(item, h5py.Dataset):
        return None
    if item.external or item.is_virtual:
        return f"'{name}' lies in another file"
    if item.size and item.size * item.dtype.itemsize > limit:
        return f"'{name}' unpacks to more than {limit:,} bytes"
    return None


def _on_tissue(file: h5py.File) -> NDArray[np.bool_]:
    flags = _column(file, "obs", "in_tissue")
    if not np.isin(flags, (0, 1)).all():
        raise ValueError("in_tissue is not 0 or 1")
    if not flags.any():
        raise IbmaError("no spot is on tissue, in_tissue is 0 everywhere")
    return flags.astype(bool)


def _column(file: h5py.File, table: str, name: str) -> NDArray[Any]:
    """Return a column of obs or var: plain, or categories and their codes."""
    column = file[table][name]
    if not isinstance(column, h5py.Group):
        return _values(column)
    categories, codes = _values(column["categories"]), column["codes"][()]
    if codes.dtype.kind not in "iu" or (codes < 0).any() or (codes >= len(categories)).any():
        raise ValueError(f"{table}/{name} has values outside its categories")
    return np.asarray(categories[codes])


def _values(stored: h5py.Dataset) -> NDArray[Any]:
    is_text = h5py.check_string_dtype(stored.dtype) is not None
    return np.asarray(stored.asstr()[()] if is_text else stored[()])


def _counts(file: h5py.File, path: Path) -> Counts:
    """Read counts, which are in raw.X where X is normalised, and the symbols of their genes."""
    root = "raw/" if "raw" in file else ""
    stored = file[f"{root}X"]
    genes = [str(gene) for gene in _column(file, f"{root}var", "feature_name")]
    values = _sparse(stored) if isinstance(stored, h5py.Group) else sparse.csr_matrix(stored[()])
    if values.shape[1] != len(genes):
        raise ValueError(f"{root}X has {values.shape[1]} columns, {root}var {len(genes)} genes")
    found = values.data
    if not np.all(np.isfinite(found) & (found >= 0) & (np.trunc(found) == found)):
        raise IbmaError(f"{root}X holds other than whole counts: use the file with raw.X")
    return Counts(path, genes, values)


def _sparse(group: h5py.Group) -> Any:
    """Read a CSR matrix; scipy's routines trust its indices, so these are checked first."""
    if group.attrs.get("encoding-type", "csr_matrix") != "csr_matrix":
        raise ValueError(f"{group.name} is a {group.attrs['encoding-type']}, expected a csr_matrix")
    data, indices, bounds = (group[name][()] for name in ("data", "indices", "indptr"))
    if indices.dtype.kind not in "iu" or bounds.dtype.kind not in "iu":
        raise ValueError(f"{group.name} has indices that are no whole numbers")
    matrix = sparse.csr_matrix((data, indices, bounds), shape=tuple(group.attrs["shape"]))
    matrix.check_format(full_check=True)
    if not matrix.sorted_indices().has_canonical_format:
        raise ValueError(f"{group.name} has two counts of one gene in one spot")
    return matrix


def _picture(file: h5py.File) -> tuple[NDArray[np.float64], NDArray[np.uint8], float]:
    """Return the spots' centres in the reduced picture, that picture, and how far apart they are.

    `uns/spatial` holds the flag `is_single` beside the one library. Centres are stored in pixels of
    the full picture; `tissue_hires_scalef` leads to the reduced one.
    """
    from scipy.spatial import cKDTree

    entries = file["uns/spatial"].values()
    libraries = [entry for entry in entries if isinstance(entry, h5py.Group)]
    if len(libraries) != 1:
        raise ValueError(f"uns/spatial has {len(libraries)} libraries, expected 1")
    picture = libraries[0]["images/hires"][()]
    if picture.ndim != 3 or picture.dtype != np.uint8 or picture.shape[2] not in (3, 4):
        raise ValueError(
            f"images/hires is {picture.dtype} {list(picture.shape)}, expected uint8 [height, width,"
            " 3 or 4]"
        )
    factors = libraries[0]["scalefactors"]
    scale = float(factors["tissue_hires_scalef"][()])
    centres = np.asarray(file["obsm/spatial"][()], np.float64) * scale
    if centres.ndim != 2 or centres.shape[1] != 2 or not np.isfinite(centres).all():
        raise ValueError("obsm/spatial holds other than two finite numbers a spot")
    distances, _ = cKDTree(centres).query(centres, k=2)
    apart = float(np.median(distances[:, 1]))
    diameter = float(factors["spot_diameter_fullres"][()]) * scale
    if not APART[0] * diameter < apart < APART[1] * diameter:
        raise ValueError(
            f"spots are {apart:.3g} pixels apart and {diameter:.3g} wide: expected 100 um and 55 "
            "or 65 um"
        )
    _check_array(file, centres / apart)
    return centres, picture[:, :, :3], apart


def _check_array(file: h5py.File, centres: NDArray[np.float64]) -> None:
    """Refuse spots that do not lie in the picture as on the array; tell if they are mirrored.

    A picture may be turned, and seldom mirrored: swapped x and y look like that.

    Args:
        file: The file.
        centres: Places of the spots in the picture, in distances of two spots.
    """
    columns, rows = (_column(file, "obs", name) for name in ("array_col", "array_row"))
    array = np.stack([columns, rows], axis=1) * GRID
    array, shown = array - array.mean(axis=0), centres - centres.mean(axis=0)
    turn = np.linalg.lstsq(array, shown, rcond=None)[0]
    off = np.abs(array @ turn - shown).max(), np.abs(turn.T @ turn - np.eye(2)).max()
    if max(off) > SLACK:
        raise ValueError("obsm/spatial does not follow array_row and array_col")
    if np.linalg.det(turn) < 0:
        tell(
            f"{file.filename}: the picture mirrors the array: check that obsm/spatial holds x, "
            "then y"
        )
