"""The tissue data: its twin walks through the loader; files that lie are refused by name."""

import gzip
import shutil
from collections import Counter

import h5py
import numpy as np
import pytest
from conftest import MIRROR, edit, needs
from PIL import Image

from ibma import twins
from ibma.datasets import Dropped, Sample, tissue
from ibma.errors import IbmaError
from ibma.features import media, store
from ibma.features.extract import extract
from ibma.formats import her2st, pictures, raw
from ibma.twins import tissue as twin

HER2ST = MIRROR / "github" / her2st.ADDRESS.split(".com/")[1]
OPTIONS = {"n_genes": 32}
PICTURE = "her2st/data/ST-imgs/B/B1/BT10737_C1_HE.jpg"
LABELS = "her2st/data/ST-pat/lbl/B1_labeled_coordinates.tsv"
COUNTS = "her2st/data/ST-cnts/B1.tsv.gz"
SELECTION = "her2st/data/ST-spotfiles/B1_selection.tsv"


@pytest.fixture(scope="module")
def found(written):
    return list(tissue.samples(written, **OPTIONS))


def by_id(found, name):
    return next(sample for sample in found if sample.id == name)


# --- the loader on the twin ----------------------------------------------------------------------


def test_groups_have_the_papers_names_and_labels_follow_the_pathologist(found):
    groups = Counter((sample.split, sample.group, sample.label) for sample in found)
    healthy = {("train", f"10x-hNB-{letter}", 0): 16 for letter in "ABCDEFGH"}
    tumours = {("test", f"10x-hBC-{letter}", label): 8 for letter in "ABCD" for label in (0, 1)}
    assert groups == healthy | tumours
    assert len({sample.id for sample in found}) == len(found)
    assert by_id(found, "V03/BARCODE00-1").group == "10x-hNB-A"
    assert by_id(found, "B1/9x10").group == "10x-hBC-B"


def test_all_seven_labels_occur(written):
    lines = "".join(path.read_text() for path in written.rglob("*_labeled_coordinates.tsv"))
    assert all(label in lines for label in her2st.CANCER + her2st.NORMAL)


def test_off_tissue_spots_are_no_samples_and_an_empty_one_on_tissue_lacks_expression(found):
    lacking = [sample.id for sample in found if sample.parts["expression"] is None]
    assert len(lacking) == 1 and lacking[0].startswith(twin.EMPTY[0])
    assert by_id(found, lacking[0]).parts["image"].shape == (28, 28, 3)


def core(sample):
    """The middle of a patch, where neither the picture's next square nor jpg's blur reaches."""
    patch = sample.parts["image"]
    edge = len(patch) // 4
    return patch[edge:-edge, edge:-edge].astype(float)


def test_patches_show_100_micrometres_of_tissue_around_the_spot(found):
    """A painted square fills every patch: a wrong frame, scale or flip would show background."""
    for sample in found:
        side = 28 if sample.split == "train" else {"A1": 30}.get(sample.id[:2], 38)
        assert sample.parts["image"].shape == (side, side, 3), sample.id
        assert np.ptp(core(sample).mean((0, 1))) > 10, f"{sample.id} shows the grey background"
        assert core(sample).std((0, 1)).max() < 12, f"{sample.id} shows an edge"


def test_colours_are_not_inverted_and_rgba_is_read_as_rgb(found):
    """Every healthy patch is one of the twin's colours; V05's picture has a fourth channel."""
    assert sum(sample.id.startswith("V05") for sample in found) == 16
    brightness = np.linspace(0.7, 1.1, 41)[:, None, None]
    colours = np.minimum(brightness * np.array(twin.COLOURS), 255).reshape(-1, 3)
    for sample in found:
        if sample.split == "train":
            far = np.abs(colours - core(sample).mean((0, 1))).max(axis=1)
            assert far.min() < 6, sample.id


def colour_of(sample):
    mean = core(sample).mean((0, 1))
    unit = np.array(twin.COLOURS) / np.linalg.norm(twin.COLOURS, axis=1, keepdims=True)
    return int((unit @ mean).argmax())


def test_counts_and_patches_of_a_spot_belong_together(found):
    """A normal spot's marker genes name the type that its colour names, in every slice."""
    healthy = [s for s in found if s.split == "train" and s.parts["expression"] is not None]
    x = np.stack([sample.parts["expression"] for sample in healthy])
    kind = np.array([colour_of(sample) for sample in healthy])
    means = np.stack([x[kind == k].mean(0) for k in range(4)])
    guess = ((x[:, None] - means) ** 2).sum(2).argmin(1)
    for name in tissue.HEALTHY:
        mine = np.array([sample.id.startswith(name) for sample in healthy])
        assert (guess[mine] == kind[mine]).all(), name


def test_an_unlabelled_test_spot_is_dropped_by_name_or_stops(copy):
    path = copy / LABELS
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:1] + lines[2:]))
    kept = list(tissue.samples(copy, on_bad="drop", **OPTIONS))
    assert [entry for entry in kept if isinstance(entry, Dropped)] == [
        Dropped("B1/9x10", "no label")
    ]
    assert sum(isinstance(entry, Sample) for entry in kept) == 128 + 63
    with pytest.raises(IbmaError, match=r"B1_labeled.*: no label for spot 9x10, which has counts"):
        list(tissue.samples(copy, **OPTIONS))


def test_the_exif_orientation_is_applied(copy, found):
    """A picture stored on its side, with the tag that says so, gives the same patches."""
    path = copy / PICTURE
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as picture:
        picture.transpose(Image.Transpose.ROTATE_90).save(path, quality=95, exif=exif)
    again = list(tissue.samples(copy, **OPTIONS))
    for name in ("B1/9x10", "B1/12x11"):
        before, after = (by_id(s, name).parts["image"].mean((0, 1)) for s in (found, again))
        assert np.abs(before - after).max() < 3


def test_a_picture_above_pillows_limit_is_read_without_a_warning(copy, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 399 * 399)
    list(tissue.samples(copy, **OPTIONS))
    assert not [w for w in recwarn if issubclass(w.category, Image.DecompressionBombWarning)]
    for pixels in (399 * 399, 100 * 100):
        monkeypatch.setattr(raw, "PICTURE_PIXELS", pixels)
        with pytest.raises(IbmaError, match=r"HE.*\.jpg: more than .* pixels: reduce it"):
            list(tissue.samples(copy, **OPTIONS))


# --- files that are missing, broken or not what they should be -----------------------------------


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("hNB/V06.h5ad", "missing: open https://cellxgene.cziscience.com/collections/"),
        (COUNTS, "missing: run `dvc repro -f download`"),
        (LABELS, "missing: run `dvc repro -f download`"),
        (SELECTION, "missing: run `dvc repro -f download`"),
        (PICTURE, "missing: unset IBMA_MIRROR, which lacks it"),
    ],
)
@pytest.mark.parametrize("on_bad", ["stop", "drop"])
def test_a_missing_file_is_named_with_its_remedy(copy, name, told, on_bad):
    (copy / name).unlink()
    with pytest.raises(IbmaError) as caught:
        list(tissue.samples(copy, on_bad=on_bad, **OPTIONS))
    assert str(caught.value).startswith(f"{copy / name}: {told}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("hNB/V03.h5ad", "V03.h5ad: not the h5ad of a Visium section"),
        (COUNTS, "B1.tsv.gz: broken"),
        (PICTURE, "BT10737_C1_HE.jpg: cannot be decoded"),
    ],
)
def test_a_truncated_file_is_named(copy, name, told):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(IbmaError, match=told) as caught:
        list(tissue.samples(copy, **OPTIONS))
    assert "\n" not in str(caught.value)


def without(key):
    def change(file):
        del file[key]

    return change


def normalised_only(file):
    del file["raw"]


def not_single(file):
    file["uns/spatial/other/images/hires"] = 0


def grey(file):
    picture = file["uns/spatial/library_V03/images/hires"][()]
    del file["uns/spatial/library_V03/images/hires"]
    file["uns/spatial/library_V03/images/hires"] = picture[:, :, 0]


SCALE = "uns/spatial/library_V03/scalefactors/tissue_hires_scalef"


def scaled(factor):
    def change(file):
        file[SCALE][()] = factor

    return change


def spots_moved(move):
    def change(file):
        file["obsm/spatial"][:] = move(file["obsm/spatial"][()])

    return change


def off_tissue(file):
    file["obs/in_tissue"][:] = 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without("obs/in_tissue"), "not the h5ad of a Visium section .*in_tissue"),
        (without("obsm/spatial"), "not the h5ad of a Visium section .*spatial"),
        (without("raw/var/feature_name"), "not the h5ad of a Visium section .*feature_name"),
        (without("uns/spatial/library_V03"), "uns/spatial has 0 libraries, expected 1"),
        (not_single, "uns/spatial has 2 libraries, expected 1"),
        (normalised_only, "X holds other than whole counts: use the file with raw.X"),
        (grey, r"images/hires is uint8 \[200, 200\], expected uint8 \[height"),
        (off_tissue, "no spot is on tissue"),
        (scaled(1.0), r"lies outside the picture of 200 x 200 pixels: picture and coord"),
        (scaled(0.1), r"all spots lie in the upper left quarter of the picture of 200 x 200"),
        (scaled(0.0), "spots are 0 pixels apart and 0 wide: expected 100 um"),
        (scaled(-0.25), "spots are 28 pixels apart and -15.4 wide: expected 100 um"),
        (spots_moved(lambda spots: spots * 0 + 400), "spots are 0 pixels apart and 15.4 wide"),
        (spots_moved(lambda spots: spots * 0.25), "spots are 7 pixels apart and 15.4 wide"),
        (spots_moved(lambda spots: np.roll(spots, 1, axis=0)), "spatial does not follow array_row"),
        (spots_moved(lambda spots: spots * (1, 1.2)), "spatial does not follow array_row"),
    ],
    ids=(
        *("in_tissue", "spatial", "symbols", "no library", "two", "raw", "grey", "off tissue"),
        *("full scale", "small scale", "no scale", "mirrored scale", "one place", "other pixels"),
        *("another order", "stretched"),
    ),
)
def test_an_h5ad_of_another_kind_is_named(copy, change, told):
    with h5py.File(copy / "hNB/V03.h5ad", "a") as file:
        change(file)
    with pytest.raises(IbmaError, match=f"V03.h5ad: .*{told}|V03.h5ad: {told}"):
        list(tissue.samples(copy, **OPTIONS))


def test_swapped_coordinates_of_an_h5ad_are_told(copy, capsys):
    """A mirrored picture looks the same, so it is no error."""
    list(tissue.samples(copy, **OPTIONS))
    assert not capsys.readouterr().err
    with h5py.File(copy / "hNB/V03.h5ad", "a") as file:
        spots_moved(lambda spots: spots[:, ::-1])(file)
    list(tissue.samples(copy, **OPTIONS))
    told = capsys.readouterr().err
    assert told.startswith(f"{copy / 'hNB/V03.h5ad'}: the picture mirrors the array: check")


def test_a_slice_in_the_place_of_another_is_refused(copy):
    shutil.copy(copy / "hNB/V03.h5ad", copy / "hNB/V04.h5ad")
    with pytest.raises(IbmaError, match=r"V04.h5ad: the same counts as .*V03.h5ad: fetch both"):
        list(tissue.samples(copy, **OPTIONS))


def test_real_slices_must_have_the_papers_spots_on_tissue(copy, monkeypatch):
    told = r"hNB: 128 spots on tissue \(V03 16, .*, V10 16\), expected 18,183: open https"
    with pytest.raises(IbmaError, match=told):
        tissue.verify(copy)
    monkeypatch.setattr(tissue, "SPOTS", 128)
    tissue.verify(copy)
    (copy / "hNB/V10.h5ad").unlink()
    with pytest.raises(IbmaError, match=r"V10.h5ad: missing: open https"):
        tissue.verify(copy)


def test_a_picture_of_another_size_is_refused(copy):
    with Image.open(copy / PICTURE) as picture:
        picture.resize((800, 800)).save(copy / PICTURE)
    told = r"B1/BT10737_C1_HE.jpg: all spots lie in the upper left quarter of the picture of 800"
    with pytest.raises(IbmaError, match=told):
        list(tissue.samples(copy, **OPTIONS))
    black, centre = np.zeros((40, 40, 3), np.uint8), np.array([[30.0, 30.0]])
    for side in (7.0, 0.0, -30.0):
        with pytest.raises(IbmaError, match=f"a patch would be {side} pixels wide .*expected 8"):
            tissue._patches(copy / PICTURE, black, centre, side)


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        (
            LABELS,
            "invasive cancer",
            "tumour",
            r"line \d+: label 'tumour': expected one of 'invasive",
        ),
        (LABELS, "label", "annotation", "column 'label' is missing"),
        (LABELS, "3.010\t3.020", "9.010\t10.020", "line 18: a second label for spot 9x10"),
        (LABELS, "3.010\t", "three\t", "line 18: x 'three': expected a finite number, or nothing"),
        (LABELS, "3.010\t", "1e400\t", "line 18: x '1e400': expected a finite number, or nothing"),
        (LABELS, "\tx\ty\t", "\ty\tx\t", "pixels do not fit the places of the spots"),
        (LABELS, "3.010\t", "4.010\t", r"pixels do not fit .*, least at \(4.01, 3.02\)"),
        (SELECTION, "pixel_x\tpixel_y", "pixel_y\tpixel_x", "pixels do not fit the places"),
        (SELECTION, "\n9\t10\t", "\n9.0\t10\t", "line 2: x '9.0': expected a whole number"),
        (SELECTION, "9\t10\t", "19\t10\t", "no row for spot 9x10, which has counts"),
        (SELECTION, "new_x", "newx", "column 'new_x' is missing"),
        (SELECTION, "\t9.000\t9.000\t1", "", "line 18: 4 cells, expected 7"),
    ],
)
def test_a_table_that_lies_is_named_with_its_line(copy, name, old, new, told):
    edit(copy / name, old, new)
    with pytest.raises(IbmaError, match=told) as caught:
        list(tissue.samples(copy, **OPTIONS))
    assert str(caught.value).startswith(str(copy / name))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("\n9x10\t", "\n9-10\t", "row '9-10': expected <column>x<row>"),
        ("\n9x10\t", "\n9x10\t7\t", "row 9x10: expected 60 whole counts"),
        ("\n9x10\t", "\n9x10\t0.", "row 9x10: expected 60 whole counts"),
        ("\n9x10\t", "\n9x10\t-", "row 9x10: expected 60 whole counts"),
        ("\n9x10\t", "\n9x10\n", "row 9x10: expected 60 whole counts"),
    ],
)
def test_a_count_table_that_lies_is_named_with_its_row(copy, old, new, told):
    path = copy / COUNTS
    text = gzip.decompress(path.read_bytes()).decode()
    path.write_bytes(gzip.compress(text.replace(old, new, 1).encode()))
    with pytest.raises(IbmaError, match=f"B1.tsv.gz: {told}"):
        list(tissue.samples(copy, **OPTIONS))


def test_pixels_of_a_stretched_picture_are_refused(copy):
    """The real sections differ in their two directions by 1.3 % at most."""
    path = copy / SELECTION
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    for stretch in (1.02, 1.08):
        made = [[*row[:5], f"{float(row[5]) * stretch:.3f}", row[6]] for row in rows[1:]]
        path.write_text("\n".join("\t".join(row) for row in [rows[0], *made]) + "\n")
        if stretch == 1.02:
            list(tissue.samples(copy, **OPTIONS))
    with pytest.raises(IbmaError, match="B1_selection.tsv: pixels do not fit the places"):
        list(tissue.samples(copy, **OPTIONS))


def test_labels_of_another_section_are_refused(copy):
    path = copy / LABELS
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[-2]]) + "\n")
    with pytest.raises(
        IbmaError,
        match="B1_labeled.*: nothing in it matches .*there the first is '9x10', here '3x3'",
    ):
        list(tissue.samples(copy, **OPTIONS))


def test_too_many_genes_are_refused(written):
    with pytest.raises(IbmaError, match="n_genes 3000: only 44 genes are in every slice"):
        list(tissue.samples(written))


# --- the twin ------------------------------------------------------------------------------------


def test_the_twin_is_small_and_the_same_bytes_again(written, tmp_path):
    twins.write("tissue", tmp_path)
    files = sorted(path.relative_to(written) for path in written.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert all((written / name).read_bytes() == (tmp_path / name).read_bytes() for name in files)
    assert sum((written / name).stat().st_size for name in files) < 5_000_000


def test_the_twin_has_the_traps(written):
    with h5py.File(written / "hNB/V03.h5ad") as file:
        assert list(file["uns/spatial"]) == ["is_single", "library_V03"]
        assert len(file["obs/in_tissue"]) == 24 and sum(file["obs/in_tissue"]) == 16
        assert file["obsm/spatial"][()].max() > 200, "coordinates of the full picture"
        assert (file["X/data"][()] % 1 != 0).any() and not (file["raw/X/data"][()] % 1).any()
        assert isinstance(file["raw/var/feature_name"], h5py.Group)
    with h5py.File(written / "hNB/V04.h5ad") as file:
        assert isinstance(file["raw/var/feature_name"], h5py.Dataset)
    with h5py.File(written / "hNB/V05.h5ad") as file:
        assert file["uns/spatial/library_V05/images/hires"].shape == (200, 200, 4)
    with h5py.File(written / "hNB/V06.h5ad") as file:
        assert list(file["uns/spatial"]) == ["library_V06", "is_single"]
    with h5py.File(written / "hNB/V07.h5ad") as file:
        assert "raw" not in file
    with h5py.File(written / "hNB/V08.h5ad") as file:
        assert isinstance(file["raw/X"], h5py.Dataset)
    header = gzip.decompress((written / COUNTS).read_bytes()).decode().split("\n")[0].split("\t")
    assert header[0] == "" and header.count(twin.GENES[0]) == 2
    assert len((written / SELECTION).read_text().splitlines()) == 1 + 16 + 2
    assert (written / LABELS).read_text().count("\tNA\tNA\tNA\tNA\t") == 1


def test_each_modality_knows_part_and_both_know_more(written, tmp_path):
    """The docstring's AUC: one modality .69, both scores added .88, both read together .94."""
    from sklearn.metrics import roc_auc_score
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import StandardScaler

    entry = {
        "dataset": "tissue",
        "options": OPTIONS,
        "features": {"expression": {}, "image": {"size": 16}},
    }
    extract("tissue", entry, tissue, written, tmp_path / "out", media.compute)
    features = store.Features.read(tmp_path / "out")
    assert features.meta["counts"] == {"test": 64, "train": 128}
    assert features.meta["absent"] == {"expression": 1, "image": 0}
    train, test = features.splits == "train", features.splits == "test"
    colour = np.asarray(features.arrays["image"]).astype(float).mean((2, 3))
    views = {
        "expression": np.asarray(features.arrays["expression"]),
        "image": colour / np.linalg.norm(colour, axis=1, keepdims=True),
    }

    def score(x: np.ndarray) -> np.ndarray:
        """Mean distance to the five nearest training spots, in their standard deviations."""
        x = StandardScaler().fit(x[train]).transform(x)
        far = NearestNeighbors(n_neighbors=5).fit(x[train]).kneighbors(x)[0].mean(1)
        return far / far[train].std()

    def area(score: np.ndarray) -> float:
        truth = features.labels[:, 0]
        groups = set(features.groups[test])
        return np.mean(
            [
                roc_auc_score(truth[features.groups == g], score[features.groups == g])
                for g in groups
            ]
        )

    scores = {name: score(view) for name, view in views.items()}
    alone = {name: area(value) for name, value in scores.items()}
    assert all(0.6 < value < 0.78 for value in alone.values()), alone
    assert max(alone.values()) + 0.08 < area(scores["expression"] + scores["image"]) < 0.94


# --- real files ----------------------------------------------------------------------------------


@needs("github/almaan/her2st")
def test_the_papers_test_slices(tmp_path):
    """Table 1's 1,123 spots, the shares of cancer behind Table 7, the pixels of A1 to D1."""
    (tmp_path / "her2st").symlink_to(HER2ST)
    found = [her2st.read(tmp_path, name) for name in tissue.TUMOURS]
    assert [len(section.spots) for section in found] == [346, 295, 176, 306]
    assert tissue.CARD.paper.test == sum(len(section.spots) for section in found)
    shares = [round(float(np.mean(section.cancer)), 3) for section in found]
    assert shares == [0.876, 0.214, 0.722, 0.454]
    assert not any(section.unlabelled for section in found)
    units = [her2st.pixels(tmp_path, section)[1] for section in found]
    assert units == pytest.approx([217.3, 289.5, 289.5, 289.5], abs=1.0)
    assert [len(section.counts.genes) for section in found] == [15_045, 15_109, 15_557, 15_661]


@needs("github/almaan/her2st")
def test_spots_lie_on_the_tissue_of_a_real_picture(tmp_path):
    """C2 has no labels, but shows that pixels and picture are one frame: flipped, spots miss."""
    (tmp_path / "her2st").symlink_to(HER2ST)
    spots, counts = her2st._counts(HER2ST / "data/ST-cnts/C2.tsv.gz")
    section = her2st.Section("C2", spots, counts, [], [])
    path = HER2ST / "data/ST-imgs/C/C2/5714_HE_BT_C2.jpg"
    picture = np.asarray(pictures.read(path))
    centres, unit = her2st.pixels(tmp_path, section)
    assert 280 < unit < 300

    def brightness(centres: np.ndarray) -> float:
        patches = tissue._patches(path, picture, centres, tissue.HALF_UNIT * unit)
        return float(np.mean([patch.mean() for patch in patches]))

    flipped = centres * (1, -1) + (0, picture.shape[0] - 1)
    assert brightness(centres) < brightness(flipped) - 10
