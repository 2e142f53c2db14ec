"""Read what users hand to an estimator: split it into modalities, turn each into an array.

A modality is numbers, texts, pictures, sound or film. Which one is seen from its values; a sample
may lack it. Files and texts become features as in the pipeline (`ibma.features.media`).
"""

from __future__ import annotations

import math
import os
import reprlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ibma.errors import IbmaError, installing, one_line
from ibma.estimators.loss import BadArgument
from ibma.features import media
from ibma.features.store import Features, StoredModality
from ibma.pretrained import SENTENCES

SUFFIXES = {
    "image": (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
    "audio": (".wav", ".flac", ".mp3", ".ogg", ".m4a", ".aac"),
    "frames": (".mp4", ".avi", ".mov", ".mkv", ".webm", ".flv"),
}
KINDS = (*SUFFIXES, "text", "vector")
TFIDF = "tfidf"  # key of a text's features: how many words it keeps
WORDS = 1024
MLP = {"name": "mlp", "hidden": [128]}
RESNET = {"name": "resnet", "embedding_size": 16, "hidden_sizes": [16, 32, 64], "depths": [1, 1, 1]}
NEEDS = {  # kind -> packages, and the extra that brings them
    "image": (("PIL", "transformers"), "media"),
    "audio": (("av", "transformers"), "media"),
    "frames": (("av", "PIL", "transformers"), "media"),
}
Columns = Mapping[str, Any]  # modality -> its values, one per sample


class Samples(Mapping[str, Any]):
    """A dictionary of modalities that scikit-learn can split by rows.

    A plain dictionary is enough for `fit` and `predict`; `cross_val_score` and `GridSearchCV` pick
    rows, which a dictionary does not understand.

    Args:
        columns: modality -> its values, one per sample.
    """

    def __init__(self, columns: Columns) -> None:
        self.columns = dict(columns)
        for name, values in self.columns.items():
            refuse_other_types(name, values)
        self.shape = (count(self.columns), len(self.columns))

    def __getitem__(self, key: Any) -> Any:
        """Return a modality by its name, or some rows of all of them."""
        if isinstance(key, str):
            return self.columns[key]
        rows = key[0] if isinstance(key, tuple) else key
        chosen = np.arange(len(self))[rows]
        return Samples({name: _take(values, chosen) for name, values in self.columns.items()})

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the modalities."""
        return iter(self.columns)

    def __len__(self) -> int:
        """Return the number of samples."""
        return self.shape[0]


def _take(values: Any, rows: NDArray[np.int64]) -> Any:
    if hasattr(values, "iloc"):
        return values.iloc[rows]
    if isinstance(values, np.ndarray | torch.Tensor):
        return values[rows]
    return [values[row] for row in rows]


def count(columns: Columns) -> int:
    """Return the number of samples.

    Raises:
        BadArgument: there is no modality, or they differ in length.
    """
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) != 1:
        told = ", ".join(f"{name}: {n}" for name, n in lengths.items()) or "none"
        raise BadArgument(f"modalities of different lengths ({told}): expected one value a sample")
    if not (found := next(iter(lengths.values()))):
        raise BadArgument("X has 0 samples: expected one or more")
    return found


def unmasked(values: Any) -> Any:
    """Return a masked array as a plain one, NaN where it is masked; anything else as it is.

    Raises:
        BadArgument: it is masked, and no table of numbers.
    """
    if not isinstance(values, np.ma.MaskedArray) or not np.ma.is_masked(values):
        return values
    if values.ndim > 2 or values.dtype.kind not in "biuf":
        raise BadArgument(f"a masked array of {values.dtype} {list(values.shape)}: leave rows out")
    return np.where(np.ma.getmaskarray(values), np.nan, values.data)


def positional(name: str, values: Any) -> Any:
    """Return the values of a modality as an array or a list, where a number picks a row.

    In a pandas column a number would pick a label; a tensor may lie on a GPU.

    Raises:
        BadArgument: They are no values in a row.
    """
    refuse_other_types(name, values)
    if isinstance(values, np.ndarray):
        return unmasked(values)
    if isinstance(values, torch.Tensor):
        return plain_array(values, f"modality '{name}'")
    if hasattr(values, "iloc"):
        return _columns(values.to_frame() if values.ndim == 1 else values, name, slice(None))
    return list(values)


def plain_array(values: torch.Tensor, where: str) -> NDArray[Any]:
    """Return a tensor, wherever it lies, as an array.

    Args:
        where: what it is called in an error.

    Raises:
        BadArgument: it is of a kind that numpy does not have, such as bfloat16 or a sparse one.
    """
    try:
        return values.numpy(force=True)
    except (TypeError, RuntimeError):
        found = f"a tensor of {values.dtype}, {values.layout}"
        raise BadArgument(f"{where}: {found}: expected a dense one of float32") from None


def refuse_other_types(name: str, values: Any) -> None:
    """Raise an error unless the values of a modality stand in a row, one for each sample.

    Raises:
        BadArgument: it names their type.
    """
    from scipy.sparse import issparse

    if (
        isinstance(values, str | bytes | Mapping)
        or issparse(values)
        or not hasattr(values, "__len__")
        or not hasattr(values, "__getitem__")  # a set has no order
    ):
        raise BadArgument(
            f"modality '{name}': a value of type {type(values).__name__}: expected an array, a "
            "list or a column of a data frame, with a value for each sample"
        )


def names_of(values: Any, where: str = "X") -> list[str]:
    """Return the names of a data frame's columns; none of anything else.

    Args:
        where: what it is called in an error.

    Raises:
        BadArgument: two are the same as text, so that a name does not tell which is meant.
    """
    if not hasattr(values, "iloc"):
        return []
    names = [str(name) for name in getattr(values, "columns", ())]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise BadArgument(f"{where}: column '{twice}' is there twice: expected names that differ")
    return names


def in_order(name: str, values: Any, expected: Sequence[str]) -> Any:
    """Return a data frame with the columns that a modality had in fit, in that order.

    Anything else is returned as it is: its columns have no names.

    Raises:
        BadArgument: it lacks one of them.
    """
    found = names_of(values, f"modality '{name}'")
    if not found or not expected:
        return values
    if lacking := [column for column in expected if column not in found]:
        raise BadArgument(f"modality '{name}': no column '{lacking[0]}', which it had in fit")
    return values.iloc[:, [found.index(column) for column in expected]]


def refuse_odd_labels(y: Any) -> None:
    """Raise an error if a label is missing or masked, or they are of several types.

    numpy would make one type of all of them: 1 and "1" would be one class, 1 and True another.

    Raises:
        BadArgument: It names the first such row.
    """
    rows = y if isinstance(y, list | tuple | np.ma.MaskedArray) else ()
    for row, value in enumerate(rows):
        if np.ma.is_masked(value):
            raise BadArgument(f"y: row {row} has no label (masked): leave the sample out")
    listed = isinstance(y, list | tuple) or hasattr(y, "iloc")
    if (
        not (listed or getattr(getattr(y, "dtype", None), "kind", "") == "O")
        or getattr(y, "ndim", 1) != 1
    ):
        return
    first = None
    for row, value in enumerate(y):
        if _missing(value):
            raise BadArgument(f"y: row {row} has no label ({value}): Input contains NaN")
        first = value if first is None else first
        if any(isinstance(value, one) != isinstance(first, one) for one in (str, bool | np.bool_)):
            raise BadArgument(f"y: row {row} is {value!r}, row 0 is {first!r}: expected one type")


def refuse_merged_labels(y: Any, classes: NDArray[Any]) -> None:
    """Raise an error if labels that differ became one class, as 2**53 and 2**53 + 1 do as floats.

    Args:
        classes: what numpy found in y.

    Raises:
        BadArgument: It says how many were lost.
    """
    listed = isinstance(y, list | tuple) or hasattr(y, "isna")  # numpy's own have one type
    values = list(y) if listed and getattr(y, "ndim", 1) == 1 else []
    if not all(isinstance(value, str | int | float | np.generic) for value in values):
        return
    if (count := len(set(values))) > len(classes):
        raise BadArgument(
            f"y: {count} labels that differ are {len(classes)} classes of type {classes.dtype}, "
            "which cannot tell them apart: give other names"
        )


def refuse_complex(values: Any, where: str) -> None:
    """Raise an error of one line; scikit-learn's shows the whole array.

    Raises:
        BadArgument: the numbers are complex.
    """
    if getattr(getattr(values, "dtype", None), "kind", "") == "c":
        raise BadArgument(f"{where}: Complex data not supported: expected real numbers")


def groups(given: Any, held_out: bool) -> list[str] | None:
    """Return the group of each sample as text; None where each is its own.

    Args:
        given: groups, [n], or None.
        held_out: Whether some groups are held out, which takes two.

    Raises:
        BadArgument: One is missing, or all are the same.
    """
    if given is None:
        return None
    if isinstance(given, str | Mapping) or not hasattr(given, "__getitem__"):  # a set has no order
        raise BadArgument(f"groups: a {type(given).__name__}: expected a list, one group a sample")
    named: dict[Any, str] = {}  # 1 and 1.0 are one group
    found = []
    for row, group in enumerate(given):
        group = group.item() if isinstance(group, torch.Tensor) else group  # each hashes as its own
        if _missing(group) or np.ndim(group) or not isinstance(group, Hashable):
            told = one_line(reprlib.repr(group))
            raise BadArgument(f"groups: row {row} is {told}: expected one group a sample")
        found.append(named.setdefault(group, str(group)))
    if held_out and len(set(found)) < 2:
        raise BadArgument("groups: all samples are of one: expected two, to hold one out")
    return found


def refuse_nameless(X: Any) -> None:
    """Refuse a list of tables: numpy's own error does not say what was meant.

    Raises:
        BadArgument: X is one.
    """
    if isinstance(X, list | tuple) and any(getattr(one, "ndim", 1) > 1 for one in X):
        raise BadArgument(
            f"X is a list of {len(X)} tables: expected a mapping, name of a modality -> its values"
        )


def split(X: Any, modalities: Mapping[str, Any] | None) -> dict[str, Any]:
    """Split one table into modalities.

    Args:
        X: a data frame, or an array [n, d].
        modalities: name -> columns (names, numbers or a slice). None: the first half of the
            columns is `a`, the second `b`; an odd column goes to `a`.

    Raises:
        BadArgument: a column that X does not have.
    """
    width = X.shape[1]
    if modalities is None:
        half = (width + 1) // 2
        modalities = {"a": slice(0, half), "b": slice(half, width)}
        modalities = {name: part for name, part in modalities.items() if part.start < part.stop}
    return {name: _columns(X, name, wanted) for name, wanted in modalities.items()}


def _columns(X: Any, name: str, wanted: Any) -> Any:
    try:
        if not hasattr(X, "iloc"):
            found = X[:, [wanted] if isinstance(wanted, int) else wanted]
        elif isinstance(wanted, slice):
            found = X.iloc[:, wanted]
        elif isinstance(wanted, str | int):
            found = X[[wanted]]
        else:  # a mask would pick rows elsewhere
            found = X.loc[:, list(wanted)]
    except (IndexError, KeyError, TypeError) as error:
        raise BadArgument(f"modalities: '{name}': no such columns in X ({error})") from None
    if hasattr(found, "iloc"):
        numeric = all(kind.kind in "biuf" for kind in found.dtypes if hasattr(kind, "kind"))
        if found.shape[1] == 1 and not (numeric and hasattr(found.dtypes.iloc[0], "kind")):
            return list(found.iloc[:, 0])
        # of pandas' own types a missing number is no NaN
        found = found.to_numpy(np.float64, na_value=np.nan) if numeric else found.to_numpy(object)
    if found.shape[1] == 0:
        raise BadArgument(f"modalities: '{name}': no column is chosen")
    return found


@dataclass
class Reader:
    """How the values of one modality become an array; chosen in fit, used again in predict.

    Args:
        name: of the modality.
        kind: of its values: vector, text, image, audio or frames.
        features: parameters of `media.compute`, or `{"tfidf": words}`.
        encoder: parameters of `network.encoders.build`.
        shape, dtype: of one example, known after `fit`.
        columns: of the data frame that it was in fit.
        vocabulary, idf: of tf-idf, known after `fit`.
    """

    name: str
    kind: str
    features: dict[str, Any]
    encoder: dict[str, Any]
    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    columns: list[str] = field(default_factory=list)
    vocabulary: list[str] = field(default_factory=list)
    idf: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def choose(cls, name: str, values: Any, wanted: Any = "auto") -> Reader:
        """Choose a reader by the values of a modality.

        Args:
            wanted: "auto", or parameters of the encoder with, besides, `features` (how an example
                becomes an array) and `kind`.

        Raises:
            BadArgument: values of no known type, or a package that is not installed.
        """
        given = {} if wanted == "auto" else dict(wanted)
        kind = given.pop("kind", None) or _kind(name, values)
        if kind not in KINDS:
            raise BadArgument(f"encoders: '{name}': kind {kind!r}: expected {' or '.join(KINDS)}")
        packages, extra = NEEDS.get(kind, ((), ""))
        lacking = [package for package in packages if find_spec(package) is None]
        if lacking:
            raise BadArgument(
                f"modality '{name}' ({kind}) needs {', '.join(lacking)}: {installing(extra)}"
            )
        features = given.pop("features", _features(kind))
        if not isinstance(features, Mapping) or (features and kind == "vector"):
            expected = "nothing, numbers are taken as they are" if features else "a dictionary"
            raise BadArgument(f"encoders: '{name}': features {features!r}: expected {expected}")
        made = cls(name, kind, dict(features), given)
        if not given:
            if made.stored_kind == "text":
                told = "token ids need an encoder: name bert and sizes"
                raise BadArgument(f"modality '{name}': {told}")
            made.encoder = dict(RESNET if made.stored_kind in SUFFIXES else MLP)
        return made

    @property
    def stored_kind(self) -> str:
        """Return the kind of the arrays, see `datasets.ModalityKind`."""
        if TFIDF in self.features:
            return "vector"
        return media.stored_kind(self.kind, self.features)

    def describe(self) -> dict[str, Any]:
        """Return what was chosen, for people."""
        return {"kind": self.kind, "features": self.features, "encoder": self.encoder}

    def fit(self, values: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Learn what reading needs and read; see `read`.

        Raises:
            BadArgument: a value that is no such kind, texts without a word, a column whose values
                float32 cannot tell apart, or no sample that has the modality.
        """
        if TFIDF in self.features:
            from sklearn.feature_extraction.text import TfidfVectorizer

            words = self._words(values)
            made = TfidfVectorizer(max_features=self.features[TFIDF])
            try:
                made.fit(words)
            except ValueError as error:
                raise BadArgument(f"modality '{self.name}': {error}") from None
            self.vocabulary, self.idf = list(made.get_feature_names_out()), made.idf_
        array, known = self._read(values)
        if not known.any():
            raise BadArgument(f"modality '{self.name}': no sample has it")
        if self.kind == "vector":
            _refuse_merged(self.name, _table(self.name, values)[known])
        self.shape, self.dtype = array.shape[1:], str(array.dtype)
        return array, known

    def read(self, values: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return examples [n, ...], zeros where one is missing, and which are there, bool [n].

        Raises:
            BadArgument: a value that is no such kind, or an example of another shape than in fit.
        """
        array, known = self._read(values)
        if not known.any():
            return np.zeros((len(known), *self.shape), self.dtype), known
        if array.shape[1:] != self.shape:
            raise BadArgument(
                f"modality '{self.name}': an example of shape {array.shape[1:]}, expected "
                f"{self.shape} as in fit"
            )
        return array, known

    def _read(self, values: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        if self.kind == "vector":
            return _numbers(self.name, values)
        known = np.array([not _missing(value) for value in values], dtype=bool)
        if TFIDF in self.features:
            examples = self._tfidf(self._words(values))
        else:
            examples = self._examples(known, values)
        array = np.zeros((len(known), *examples.shape[1:]), examples.dtype)
        array[known] = examples
        return array, known

    def _words(self, values: Any) -> list[str]:
        """Return the texts that are there.

        Raises:
            BadArgument: one is no text.
        """
        present = {row: value for row, value in enumerate(values) if not _missing(value)}
        for row, value in present.items():
            if not isinstance(value, str):
                told = reprlib.repr(value)
                raise BadArgument(f"modality '{self.name}', row {row}: {told}: expected a text")
        return list(present.values())

    def _tfidf(self, words: list[str]) -> NDArray[np.float32]:
        from sklearn.feature_extraction.text import TfidfVectorizer

        made = TfidfVectorizer(vocabulary=self.vocabulary)
        made.idf_ = self.idf
        if not words:
            return np.zeros((0, len(self.vocabulary)), np.float32)
        found: NDArray[np.float32] = made.transform(words).toarray().astype(np.float32)
        return found

    def _examples(self, known: NDArray[np.bool_], values: Any) -> NDArray[Any]:
        threads, found = torch.get_num_threads(), []
        try:
            for row in np.flatnonzero(known):
                try:
                    part = _part(self.kind, values[row])
                    found.append(media.compute(self.kind, part, self.features))
                except IbmaError as error:
                    told = str(error).removeprefix("params.yaml: ")
                    raise BadArgument(f"modality '{self.name}', row {row}: {told}") from None
        finally:
            torch.set_num_threads(threads)  # reading sentences takes one
        return np.stack(found) if found else np.zeros((0, *self.shape), self.dtype)


def gathered(
    readers: Mapping[str, Reader],
    read: Mapping[str, tuple[NDArray[Any], NDArray[np.bool_]]],
    kind: str,
    targets: NDArray[np.float64],
    groups: Any,
) -> Features:
    """Return samples as the pipeline's store holds them.

    Args:
        readers: modality -> its reader.
        read: modality -> what its reader gave.
        kind: of the task, see `network.tasks`.
        targets: stored labels, [n, C].
        groups: of each sample, [n]; None where each is its own.

    Raises:
        BadArgument: a sample has no modality at all.
    """
    masks = {name: known for name, (_, known) in read.items()}
    empty = np.flatnonzero(~np.any(list(masks.values()), axis=0))
    if len(empty):
        raise BadArgument(f"row {empty[0]}: the sample has no modality: leave it out")
    ids = [str(row) for row in range(len(targets))]
    return Features(
        meta={"kind": kind, "folds": 0},
        modalities={
            name: StoredModality(reader.stored_kind, reader.shape, reader.dtype)
            for name, reader in readers.items()
        },
        arrays={name: array for name, (array, _) in read.items()},
        labels=targets,
        ids=ids,
        groups=np.array(ids if groups is None else groups),
        splits=np.full(len(ids), "train"),
        dialogues=np.full(len(ids), ""),
        present={name: known for name, known in masks.items() if not known.all()},
    )


def _features(kind: str) -> dict[str, Any]:
    """Choose how examples of a kind become arrays."""
    if kind == "text":
        installed = find_spec("transformers") and find_spec(SENTENCES)
        return {"embedding": f"package:{SENTENCES}"} if installed else {TFIDF: WORDS}
    sound = {"n_mels": 64, "hop": 512, "statistics": True}
    film = {"frames": 3, "size": 64}
    return {"image": {"size": 64}, "audio": sound, "frames": film}.get(kind, {})


def _kind(name: str, values: Any) -> str:
    """Tell the kind of a modality from its values."""
    if isinstance(values, np.ndarray) and values.dtype != object:
        if values.dtype.kind in "biuf" and values.ndim <= 2:
            return "vector"
        if values.dtype == np.uint8 and values.ndim in (3, 4):
            return "image"
        if values.dtype.kind not in "US":
            raise BadArgument(
                f"modality '{name}': an array of {values.dtype} {list(values.shape)}: expected "
                "numbers [n, d] or pictures, uint8 [n, height, width(, 3)]"
            )
    kinds = {row: _kind_of(value) for row, value in enumerate(values) if not _missing(value)}
    if not kinds:
        raise BadArgument(f"modality '{name}': no sample has it")
    first = next(iter(kinds.values()))
    odd = next((row for row, kind in kinds.items() if kind != first), None)
    if odd is not None or not first:
        row = odd if odd is not None else next(iter(kinds))
        seen = " or ".join(sorted({kind or "unknown" for kind in kinds.values()}))
        raise BadArgument(
            f"modality '{name}': {seen}? row {row} is {reprlib.repr(values[row])}: give values of "
            f"one kind, or say encoders={{'{name}': {{'kind': ...}}}}"
        )
    file = next((row for row in kinds if first == "text" and _is_file(values[row])), None)
    if file is not None:  # else its name would be read as words
        raise BadArgument(
            f"modality '{name}': row {file}, {values[file]!r}, is a file of no known ending: say "
            f"encoders={{'{name}': {{'kind': 'image'}}}}, or another kind"
        )
    return first


def _is_file(text: str) -> bool:
    return len(text) < 4096 and bool(Path(text).suffix) and os.path.isfile(text)


def _kind_of(value: Any) -> str:
    """Tell the kind of one value; empty for an unknown one."""
    if isinstance(value, str | Path):
        suffix = Path(value).suffix.lower() if len(str(value)) < 4096 else ""
        files = (kind for kind, known in SUFFIXES.items() if suffix in known)
        return next(files, "text" if isinstance(value, str) else "")
    if hasattr(value, "getbands"):  # a picture of Pillow
        return "image"
    if isinstance(value, int | float | np.number | np.bool_):
        return "vector"
    if isinstance(value, np.ndarray | list | tuple):
        try:
            depth = np.ndim(value)
        except ValueError:  # rows of different lengths
            return ""
        return "image" if depth in (2, 3) else "vector" if depth == 1 else ""
    return ""


def _missing(value: Any) -> bool:
    """Return whether a value stands for a missing one: None, NaN, masked, or pandas' NA."""
    if value is None or value is np.ma.masked or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.floating) and math.isnan(value)


def _part(kind: str, value: Any) -> Any:
    """Return a value as `media.compute` takes it."""
    if kind == "text":
        return str(value) if isinstance(value, str) else value
    if isinstance(value, str):
        return Path(value)
    if hasattr(value, "getbands"):
        return _pixels(value)
    if isinstance(value, np.ndarray) and value.ndim == 3 and value.shape[0] == 3 < value.shape[2]:
        return value.transpose(1, 2, 0)
    return value


def _pixels(picture: Any) -> NDArray[np.uint8]:
    """Return a picture of Pillow as an array [height, width, 3].

    Raises:
        BadArgument: its values have no known range, or its file is damaged.
    """
    from ibma.formats import pictures

    try:
        return np.asarray(pictures.to_rgb(picture))
    except (OSError, ValueError, SyntaxError) as error:  # Pillow's, while it reads the file
        raise BadArgument(f"a picture of mode {picture.mode}: {one_line(error)}") from None


def _numbers(name: str, values: Any) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return vectors [n, d]; a row of NaN, or None, is missing."""
    table = _table(name, values)
    known = np.array([not row.all() for row in np.isnan(table)], dtype=bool)
    kept = table[known]
    if np.isnan(kept).any():
        row = int(np.flatnonzero(known)[np.isnan(kept).any(1)][0])
        raise BadArgument(
            f"modality '{name}', row {row}: Input contains NaN in some of its numbers: fill them "
            "in, or make the whole row NaN where the sample lacks the modality"
        )
    with np.errstate(over="ignore"):
        single = np.where(known[:, None], table, 0.0).astype(np.float32)
    if not np.isfinite(single).all():
        row = int(np.flatnonzero(~np.isfinite(single).all(1))[0])
        raise BadArgument(
            f"modality '{name}', row {row}: Input contains infinity or a value too large for "
            "float32"
        )
    return single, known


def _refuse_merged(name: str, table: NDArray[np.float64]) -> None:
    """Raise an error if float32 loses what tells a column's values apart.

    Raises:
        BadArgument: it names the first such column.
    """
    lost = np.abs(table.astype(np.float32) - table).max(axis=0)
    spans = zip(table.min(axis=0), table.max(axis=0), lost, strict=True)
    for place, span in enumerate(spans):
        if why := media.Span(*span).merged():
            raise BadArgument(f"modality '{name}', column {place}: {why}")


def _table(name: str, values: Any) -> NDArray[np.float64]:
    """Return numbers as a table [n, d]; rows that are None become NaN."""
    if isinstance(values, np.ndarray) and values.dtype != object:
        table = np.asarray(values, dtype=np.float64)
        if table.ndim > 2:
            raise BadArgument(f"modality '{name}': shape {table.shape}: expected numbers [n, d]")
        return table.reshape(len(table), -1)
    try:
        listed = [None if _missing(row) else np.atleast_1d(unmasked(row)) for row in values]
        width = next((len(row) for row in listed if row is not None), 1)
        for place, row in enumerate(listed):
            if row is not None and (row.shape != (width,) or row.dtype.kind == "c"):
                raise BadArgument(
                    f"modality '{name}', row {place}: {row.dtype} {list(row.shape)}: expected "
                    f"{width} real numbers, as in the first row"
                )
        return np.array(
            [np.full(width, np.nan) if row is None else row for row in listed], dtype=np.float64
        )
    except BadArgument:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise BadArgument(f"modality '{name}': not a table of numbers ({error})") from None
