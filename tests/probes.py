"""Linear probes that show what a twin's modalities tell."""

import numpy as np

from ibma.features import store


def views(features: store.Features) -> dict[str, np.ndarray]:
    """Mean spectrum, mean colour against the background, word counts, or pixels; [n, d] each."""
    found = {}
    for name, modality in features.modalities.items():
        array = np.asarray(features.arrays[name])
        if modality.kind == "audio":
            found[name] = array.mean(2)
        elif modality.kind == "frames":
            pixels = array.astype(float)
            found[name] = (pixels - np.median(pixels, axis=(3, 4), keepdims=True)).mean((1, 3, 4))
        elif modality.kind == "text":
            found[name] = np.stack([np.bincount(ids, minlength=512) for ids in array])
        else:
            found[name] = array.reshape(len(array), -1).astype(float)
    return found


def read(view: np.ndarray, truth: np.ndarray, train: np.ndarray) -> np.ndarray:
    """What a linear probe trained on the rows `train` reads off one modality, for every row."""
    from sklearn.svm import SVC

    scale = view[train].std(0) + 1e-6
    return SVC(kernel="linear", C=0.1).fit(view[train] / scale, truth[train]).predict(view / scale)


def best_guess(told: list[np.ndarray], classes: np.ndarray, train, test) -> float:
    """Accuracy on `test` of guessing the class that `train` has most of, given what is told."""
    cells = np.array(["/".join(map(str, row)) for row in zip(*told, strict=True)])
    hits = 0
    for cell in np.unique(cells[test]):
        values, many = np.unique(classes[train & (cells == cell)], return_counts=True)
        guess = values[many.argmax()] if len(many) else None
        hits += int((classes[test & (cells == cell)] == guess).sum())
    return hits / int(test.sum())
