"""Profiles load; every wrong value ends in one line that names its key."""

import inspect
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jsonschema
import pytest
from conftest import fresh
from ruamel.yaml import YAML

from ibma import params
from ibma.errors import IbmaError
from ibma.features import media
from ibma.network import encoders

ROOT = Path(__file__).parent.parent
PROFILES = ("twin", "open", "studies", "pixels", "paper", "paper_small")
HERE = Path("params.yaml")


def raw(name: str) -> dict:
    return YAML(typ="safe", pure=True).load((ROOT / f"profiles/{name}.yaml").read_text())


TWIN = raw("twin")
for repeated in ("meld_sentiment", "iemocap", "mosi", "mimic_cxr"):  # nothing new in them
    del TWIN["tasks"][repeated]

# Written down once more, without the models: the kind of every key, and what a kind must refuse.
NO_NUMBER = ("eight", "8", "1e-3", True, [], [1], {}, {"a": 1}, None)
WRONG = {
    "count": (*NO_NUMBER, 0, -4, 0.5, 8.0, 10**7, 10**400, math.nan, math.inf),
    "several": (*NO_NUMBER, 1, 0, -1, 2.5, 2.0, 10**7, math.nan),
    "workers": (*NO_NUMBER, 0, -1, 1.5, 5000, math.inf),
    "eta": (*NO_NUMBER, 0, 1, 7, -0.1, 1.0, 0.0, math.nan, math.inf, -math.inf),
    "positive": (*NO_NUMBER, 0, -0.001, 0.0, 10**400, math.nan, math.inf),
    "decay": (*NO_NUMBER, -1e-6, math.nan, math.inf),
    "share": (*NO_NUMBER, 1, -0.1, 1.5, math.nan),
    "switch": ("yes", "true", 1, 0, [], {}, 1.0, None),
    "choice": ("none_of_them", "", 1, True, [], {}, None),
    "name": ("with-dash", "a/b", "..", "", "a b", "1st", "ä", "x" * 300, 1, True, [], {}, None),
    "words": ("", 3, True, [], {}, 1.5),
    "mapping": (None, [], "text", 3, True, [{}]),
    "list": (None, "text", 3, {}, True),
}
PRETRAINED = {"name": "choice", "train": "choice", "pretrained": "words"}
TRANSFORMER = PRETRAINED | dict.fromkeys(("hidden_size", "layers", "heads"), "count")
ENCODERS = {
    "resnet": PRETRAINED
    | {"channels": "count?", "embedding_size": "count"}
    | {"hidden_sizes": ["count"], "depths": ["count"]},
    "vit": TRANSFORMER | {"size": "count?", "patch_size": "count"},
    "bert": TRANSFORMER | {"vocab_size": "several", "max_length": "count", "dropout": "share"},
    "mlp": {"name": "choice", "train": "choice", "hidden": ["count"]},
}
FEATURES = {  # a key that tells the kind -> all keys of the kind
    "n_mels": {"spectrogram": "choice", "n_mels": "count", "hop": "count", "statistics": "switch"},
    "size": {"frames": "count", "size": "count"},
    "max_length": {"max_length": "count", "vocab_size": "several"}
    | {"tokenizer": "words", "embedding": "words"},
}
METHODS = ("train", "train_ibma", "ablation", "bounds")
TRAINING = {"epochs": "count", "width": "count", "heads": "count"}
KEYS = {
    "profile": "name",
    "eta": "eta?",
    "seeds": "count",
    "device": "choice",
    "threads": "workers?",
    "instructions": "choice",
    "engine": {"name": "choice", "workers": "workers?", "processes": "workers", "options": {}},
    "keep_weights": ["name"],
    "datasets": {"*": {"source": "choice"}},
    "tasks": {
        "*": {
            "dataset": "name",
            "options": {},
            "on_bad": "choice",
            "batch_size": "several",
            "features": {"*": lambda one: next((FEATURES[k] for k in FEATURES if k in one), {})},
            "encoders": {"*": lambda one: ENCODERS[one["name"]]},
        }
    },
    "training": TRAINING
    | {"phi": "choice", "beta": "positive", "pseudo_classes": "several"}
    | {"refresh": "choice", "compile": "switch"},
    "tune": {
        **{"folds": "several", "epochs": "count"},
        "grid": {"lr": ["positive"], "weight_decay": ["decay"], "eta": ["eta"]}
        | {"weight_factor": ["positive"]},
    },
    **dict.fromkeys(METHODS, {"*": {"method": "name"}}),
    "sensitivity": {"task": "name", "methods": ["name"], "etas": ["eta"]},
    "regimes": {
        **{"tasks": ["name"], "forms": ["name"], "control": "name", "phis": ["choice"]},
        **{"betas": ["positive"], "etas": ["eta"]},
    },
    "noise": {"tasks": {"*": "name"}, "methods": ["name"], "levels": ["positive"]},
    "timing": {"task": "name", "rounds": "several"},
    "probe": {"task": "name", "methods": ["name"]},
    "gradcam": {"tasks": {"*": "name"}, "methods": ["name"], "examples": "count"},
}
OPTIONAL = ("options", "on_bad", "features")
Place = tuple[str | int, ...]


def kinds(spec: object, values: object, at: Place = ()) -> Iterator[tuple[Place, str]]:
    """Every key of a profile with its kind."""
    if callable(spec):
        spec = spec(values)
    if isinstance(spec, str):
        yield at, spec
    elif isinstance(spec, list):
        yield at, "list"
        if values:
            yield (*at, len(values) - 1), spec[0]
    else:
        if at:
            yield at, "mapping"
        there = values if isinstance(values, dict) else {}
        for key, below in spec.items():
            for name in there if key == "*" else [key]:
                yield from kinds(below, there.get(name), (*at, name))


def blocks(spec: object, values: object, at: Place = ()) -> Iterator[tuple[Place, dict, dict]]:
    """Every mapping of a profile whose keys are fixed, and what they are."""
    if callable(spec):
        spec = spec(values)
    if not isinstance(spec, dict) or not isinstance(values, dict):
        return
    if spec and "*" not in spec and "method" not in spec:
        yield at, spec, values
    for key, below in spec.items():
        for name in values if key == "*" else [key]:
            yield from blocks(below, values.get(name), (*at, name))


def dotted(at: Place) -> str:
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in at]
    return "".join(parts).removeprefix(".")


@contextmanager
def changed(at: Place, value: object = None, *, without: bool = False) -> Iterator[dict]:
    """Profile twin with another value at a place, or without it, until the block ends."""
    container = TWIN
    for part in at[:-1]:
        container = container[part]
    before = container.copy()
    if without:
        del container[at[-1]]
    else:
        container[at[-1]] = value
    yield TWIN
    if isinstance(container, list):
        container[:] = before
    else:
        container.clear()
        container.update(before)


def line(values: object) -> str | None:
    """The line in which a profile is refused; None where it is accepted."""
    try:
        params.parse(values, HERE)
    except IbmaError as error:
        return str(error)
    return None


def is_one_line_about(said: str | None, key: str) -> bool:
    return bool(
        said
        and said.isprintable()
        and len(said) < 500
        and said.startswith(("params.yaml: ", "params.yaml:"))
        and key in said
    )


def test_every_wrong_value_of_every_key_ends_in_one_line_that_names_it():
    assert line(TWIN) is None
    tried, passed = 0, []
    for at, kind in kinds(KEYS, TWIN):
        for value in WRONG[kind.removesuffix("?")]:
            if value is None and kind.endswith("?"):
                continue
            with changed(at, value) as values:
                said, tried = line(values), tried + 1
            if not is_one_line_about(said, dotted(at)) or ", found " not in said:
                passed.append((dotted(at), value, said))
    assert not passed and tried > 2500


def test_a_misspelt_key_is_named_with_what_was_meant():
    for at, known, _ in blocks(KEYS, TWIN):
        for name in known:
            with changed((*at, f"{name}x"), 1) as values:
                said = line(values)
            meant = f"unknown key '{dotted((*at, name))}x' (did you mean '{name}'?)"
            assert is_one_line_about(said, meant), said
    with changed(("tasks", "chexpert", "features", "text", "n_mels"), 32) as values:
        assert "features.text.n_mels' (known: max_length" in str(line(values))


def test_a_missing_key_is_named():
    for at, known, there in blocks(KEYS, TWIN):
        for name in known:
            inside = {"encoders", "features"} & {*at}  # sizes have defaults
            if name not in there or name in OPTIONAL or (inside and name != "name"):
                continue
            with changed((*at, name), without=True) as values:
                said = line(values)
            key = dotted((*at, name))
            lacks = f"{key}: expected resnet" if inside else f"missing key '{key}': add it"
            assert is_one_line_about(said, lacks), said


VIT = {"name": "vit", "size": 32, "patch_size": 8, "hidden_size": 32, "layers": 2, "heads": 2}
BERT = {"name": "bert", "vocab_size": 512, "max_length": 48, "hidden_size": 32, "heads": 2}
SOUND = {"spectrogram": "logmel", "n_mels": 32, "hop": 1411}
DISAGREE = [  # place, value, what the line says
    ("training.width", 33, "training.width: expected a multiple of heads (4), found 33"),
    ("tune.grid.lr", [], "tune.grid.lr: expected one entry or more, found []"),
    ("tune.grid.lr", [0.1, 0.1], "tune.grid.lr: expected each value once, found 0.1"),
    ("sensitivity.etas", [0.1, 0.10000001], "sensitivity.etas: expected numbers that differ"),
    ("sensitivity.methods", [], "sensitivity.methods: expected one entry or more"),
    ("sensitivity.methods", ["ibmaa"], "sensitivity.methods: expected methods of train, train_ib"),
    ("probe.methods", ["ibma", "ibma"], 'probe.methods: expected each value once, found "ibma"'),
    ("probe.methods", ["concat"], "keep_weights: expected 'concat' too, whose weights probe"),
    ("gradcam.methods", ["ce3"], "keep_weights: expected 'ce3' too, whose weights gradcam"),
    ("gradcam.methods", [], "gradcam.methods: expected one entry or more, found []"),
    ("keep_weights", ["omib", "ibma", "ibma_no_aligne"], "did you mean 'ibma_no_align'?"),
    ("timing.task", "crema", "timing.task: expected a name under tasks (did you mean 'crema_d'?)"),
    ("probe.task", "mosi", "probe.task: expected a name under tasks"),
    ("regimes.tasks", ["moci"], "regimes.tasks: expected names under tasks"),
    ("regimes.forms", ["ce3"], "regimes.forms: expected entries of method ibma"),
    ("train.extra", {"method": "ibma"}, "train.extra: expected a method that does not read eta"),
    ("regimes.control", "ce4", "regimes.control: expected a method of those blocks"),
    ("regimes.betas", [4, 4.0000001], "regimes.betas: expected numbers that differ"),
    ("regimes.phis", ["flat"], "regimes.phis[0]: expected 'printed' or 'unit'"),
    ("noise.tasks", {"split_digits": "rigth"}, "noise.tasks.split_digits: expected a modality"),
    ("noise.methods", ["omiib"], "noise.methods: expected methods of train, train_ibma"),
    ("sensitivity.task", "mosi", "sensitivity.task: expected a name under tasks"),
    ("gradcam.tasks", {"mosi": "visual"}, "gradcam.tasks: expected names under tasks"),
    ("gradcam.tasks", {"crema_d": "video"}, "a modality of tasks.crema_d.encoders (known: audio"),
    ("gradcam.tasks", {"crema_d": "audio"}, "gradcam.tasks.crema_d: expected a modality with pic"),
    ("gradcam.tasks", {"chexpert": "text"}, "gradcam.tasks.chexpert: expected a modality with p"),
    ("datasets.cremad", {"source": "twin"}, "datasets: expected names of files in src/ibma/datase"),
    ("datasets.split_digits.source", "twin", "split_digits.source: expected real: it has no twin"),
    ("tasks.crema_d.dataset", "mosei", "tasks.crema_d.dataset: expected a name under datasets"),
    ("tasks.crema_d.options", {"on_bad": "drop"}, "options: expected arguments of the data set a"),
    (
        "tasks.crema_d.options",
        {"a": [1]},
        "tasks.crema_d.options.a: expected text, a finite number",
    ),
    ("tasks.crema_d.options", {"a": math.nan}, "tasks.crema_d.options.a: expected text, a finite"),
    ("tasks.crema_d.encoders", {}, "tasks.crema_d.encoders: expected one entry or more, found {}"),
    ("tasks.crema_d.encoders.fused", VIT, "encoders: expected another name: methods call their"),
    ("tasks.crema_d.encoders.a-b", VIT, "encoders.a-b: expected a name of letters, digits and _"),
    (
        "tasks.crema_d.encoders.audio.name",
        "resent",
        "audio.name: expected resnet, vit, bert, auto or m",
    ),
    ("tasks.crema_d.encoders.audio.depths", [1], "depths: expected as many entries as hidden_siz"),
    ("tasks.crema_d.encoders.audio.pretrained", "a/b", "channels: expected no sizes beside pretr"),
    ("tasks.crema_d.encoders.audio.hidden", [3], "unknown key 'tasks.crema_d.encoders.audio.hidd"),
    ("tasks.crema_d.encoders.visual.channels", 1, "channels: expected 3, the channels of a pictu"),
    ("tasks.crema_d.encoders.audio", VIT, "audio.name: expected resnet, to read such features"),
    (
        "tasks.crema_d.encoders.visual",
        BERT,
        "visual.name: expected resnet, vit or auto, to read such",
    ),
    ("tasks.chexpert.encoders.text", {"name": "mlp"}, "text.name: expected bert, to read such"),
    ("tasks.chexpert.encoders.text.heads", 5, "text.hidden_size: expected a multiple of heads (5"),
    ("tasks.chexpert.encoders.text.max_length", 47, "at least the max_length of the feature (48)"),
    ("tasks.chexpert.encoders.text.vocab_size", 511, "at least the vocab_size of the feature (51"),
    ("tasks.chexpert.encoders.text", {"name": "bert", "pretrained": "a/b"}, "or a tokenizer in f"),
    ("tasks.chexpert.encoders.image.size", 64, "image.size: expected the size of the feature (32)"),
    ("tasks.chexpert.encoders.image.patch_size", 5, "image.patch_size: expected a divisor of the"),
    ("tasks.crema_d.features.audio.size", 3, "unknown key 'tasks.crema_d.features.audio.size'"),
    ("tasks.crema_d.features.audio.statistics", True, "audio.name: expected mlp, to read such"),
    ("tasks.crema_d.features.audio.spectrogram", "ogm", "n_mels: expected no n_mels: ogm has 257"),
    ("tasks.crema_d.features.visuals", {"size": 32}, "features: expected a modality that encoder"),
    ("tasks.chexpert.features.text.embedding", "a/b", "text.name: expected mlp, to read such fea"),
    ("tasks.chexpert.features.text", {"tokenizer": "a", "vocab_size": 9}, "expected no vocab_size"),
    (
        "tasks.chexpert.features.text",
        {"tokenizer": "a", "embedding": "b"},
        "tokenizer: expected nu",
    ),
    ("tasks.tissue.features.expression", SOUND, "expression.name: expected resnet, to read such"),
    ("train.con-cat", {}, "train.con-cat: expected a name of letters, digits and _"),
    ("train.concatt", {}, "train.concatt.method: expected the name of a file in src/ibma/methods"),
    ("train.ibma", {}, 'train_ibma: expected each method in one block, found "ibma"'),
    ("train.concat", {"spec": 1}, "train.concat: expected names of hyper-parameters"),
    ("train.concat", {"a b": 1}, "train.concat: expected names of hyper-parameters"),
    ("bounds.ibma_vib.bound", {"vib": 1}, "bounds.ibma_vib.bound: expected text, a finite number"),
    ("bounds.ibma_vib.bound", [["vib"]], "bounds.ibma_vib.bound: expected text, a finite number"),
    ("bounds.ibma_vib.beta", math.inf, "bounds.ibma_vib.beta: expected text, a finite number"),
    ("engine.options", {"partition": "gpu"}, "engine.options: expected {}: engine processes reads"),
    ("engine.options", {"a-b": 1}, "engine.options.a-b: expected a name of letters"),
]


def test_values_that_are_right_alone_and_wrong_together_are_refused():
    for place, value, words in DISAGREE:
        with changed(tuple(place.split(".")), value) as values:
            said = line(values)
        assert is_one_line_about(said, words), (place, value, said)


ACCEPTED = [
    ("eta", 0.3),
    ("threads", None),
    ("engine", {"name": "slurm", "workers": 8, "processes": 1, "options": {"partition": "gpu"}}),
    ("tasks.crema_d.batch_size", 64),
    ("tasks.crema_d.encoders.audio", {"name": "resnet", "pretrained": "package:weights"}),
    ("tasks.crema_d.encoders.audio.train", "last"),
    ("tasks.crema_d.features.audio", {}),
    ("tasks.crema_d.features", {}),
    ("tasks.split_digits.encoders.left", {"name": "mlp", "hidden": []}),
    ("gradcam", {"tasks": {}, "methods": [], "examples": 1}),
    ("bounds", {}),
    ("train.mean", {"method": "concat", "scale": 2, "sizes": [1, 2.5], "name": None, "on": True}),
]


def test_what_a_profile_may_say_is_accepted():
    for place, value in ACCEPTED:
        with changed(tuple(place.split(".")), value) as values:
            assert line(values) is None, (place, value)


BROKEN = [  # content of the file, what the line says
    (None, "params.yaml: not found: run this in the repository, or `ibma profile twin`"),
    (b"", "params.yaml: expected a mapping of keys to values, found null"),
    (b"[1, 2]", "params.yaml: expected a mapping of keys to values, found [1, 2]"),
    (b"eta: 1\neta: 2\n", 'params.yaml:2: not YAML: found duplicate key "eta"'),
    (b"tune:\n  a: {b: 1, b: 2}\n", 'params.yaml:2: not YAML: found duplicate key "b"'),
    (b"eta: [1\n", "params.yaml:2: not YAML: expected ',' or ']'"),
    (b"eta: 0.3\n\tseeds: 3\n", "not YAML: "),
    (b"profile: caf\xe9\n", "params.yaml: not UTF-8 at byte 12: save it as UTF-8"),
    (b"profile: \0\n", "not YAML: unacceptable character"),
    (b"eta: !!python/name:os.system x\n", "not YAML: could not determine a constructor"),
    (b"eta: 1\n---\neta: 2\n", "not YAML: but found another document"),
    (b"eta: " + b"[" * 5000, "not YAML: maximum recursion depth exceeded"),
    (b"eta: 2001-99-99\n", "not YAML: month must be in 1..12"),
    (b"eta: " + b"9" * 5000, "not YAML: Exceeds the limit"),
    (b"? [a]\n: 3\n", "unknown key '('a',)'"),
    (b"3: 3\n", "unknown key '3'"),
    (b'"a\\nb": 3\n', "unknown key '\"a\\nb\"'"),
]
AT = [  # a value of `profile` that YAML allows, how it is shown
    ("&a [*a]", "found [[["),
    ("0x" + "f" * 5000, "found a number too large to show"),
    ('"\\ud800"', 'found "\\ud800"'),
    ('"twin\\n"', 'found "twin\\n"'),
    ("2026-01-01", 'found "2026-01-01"'),
    ("!!binary aGk=", "found \"b'hi'\""),
    ("x" * 200, 'found "xxxx'),
]


def test_a_file_that_cannot_be_read_ends_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "profiles/twin.yaml").read_text()
    written = [(text.replace("profile: twin\n", f"profile: {v}\n").encode(), w) for v, w in AT]
    for content, words in [*BROKEN, *written]:
        if content is not None:
            HERE.write_bytes(content)
        with pytest.raises(IbmaError) as caught:
            params.load()
        assert is_one_line_about(str(caught.value), words), str(caught.value)
    HERE.unlink()
    HERE.mkdir()
    with pytest.raises(IbmaError, match="params.yaml: is a folder, pipe or device"):
        params.load()


def test_aliases_of_aliases_are_refused_at_once(tmp_path):
    """A trillion entries once written out: neither checked one by one nor shown."""
    lists = ["a0: &a0 [" + ", ".join(["x"] * 10) + "]"]
    lists += [f"a{i}: &a{i} [" + ", ".join([f"*a{i - 1}"] * 10) + "]" for i in range(1, 12)]
    text = (ROOT / "profiles/twin.yaml").read_text()
    broken = text.replace("options: {target: emotion}", f"options: {{{', '.join(lists)}}}")
    (tmp_path / "params.yaml").write_text(broken)
    with pytest.raises(IbmaError, match="meld_emotion.options.a0: expected text, a finite number"):
        params.load(tmp_path / "params.yaml")


def test_numbers_as_dvc_writes_them_are_numbers(tmp_path, monkeypatch):
    from dvc.utils.hydra import apply_overrides

    monkeypatch.chdir(tmp_path)
    HERE.write_text((ROOT / "profiles/twin.yaml").read_text())
    small = ["eta=0.00001", "tune.grid.lr=[0.0001,0.00005]", "training.beta=2"]
    apply_overrides(HERE, small)
    assert "eta: 1e-05" in HERE.read_text()  # text to YAML 1.1
    loaded = params.load()
    assert loaded.eta == 0.00001 and loaded.tune.grid.lr == [0.0001, 0.00005]
    assert isinstance(loaded.training.beta, float)
    for written in ("1e-3", "1.0E-3", ".001", "+1e-3"):
        HERE.write_text((ROOT / "profiles/twin.yaml").read_text().replace("0.003]", f"{written}]"))
        assert params.load().tune.grid.lr == [0.001]


def test_every_shipped_profile_loads_under_its_own_name_and_params_is_one_of_them():
    for name in PROFILES:
        loaded = params.load(ROOT / f"profiles/{name}.yaml")
        assert loaded.profile == name
        for task, entry in raw(name)["tasks"].items():  # records hold what the file says
            found = loaded.task(task)
            assert {n: e.as_dict() for n, e in found.encoders.items()} == entry["encoders"]
            read = {k: v for k, v in entry.items() if k not in ("encoders", "batch_size")}
            assert found.extraction() == read
    shipped = (ROOT / "profiles/twin.yaml").read_text()
    assert shipped.startswith("# yaml-language-server: $schema=../params.schema.json\n")
    assert (ROOT / "params.yaml").read_text() == shipped.replace("$schema=../", "$schema=")


def test_methods_know_their_stage_file_and_hyper_parameters():
    twin = params.load(ROOT / "profiles/twin.yaml")
    assert list(twin.stages_of_methods()) == list(METHODS)
    modalities = dict.fromkeys(m for task in twin.tasks.values() for m in task.encoders)
    each = [f"unimodal_{modality}" for modality in modalities]
    named = [each if name == "unimodal" else [name] for stage in METHODS for name in TWIN[stage]]
    assert list(twin.methods) == [name for names in named for name in names]
    assert twin.method("concat").file == "concat" and twin.method("concat").hparams == {}
    assert twin.method("ibma_vib").file == "ibma"
    assert twin.method("ibma_vib").hparams == {"bound": "vib"}
    assert twin.stage_of("ce3") == "ablation" and twin.stage_of("ibma_code") == "bounds"
    Variant = params.Variant
    assert twin.trained_as("train", "mosi", "omib") == Variant("omib")
    assert twin.trained_as("sensitivity", "crema_d", "ibma_eta_0.3") == Variant("ibma", 0.3)
    fixed = twin.model_copy(update={"eta": 0.4})
    assert fixed.trained_as("bounds", "mosi", "ibma_vib") == Variant("ibma_vib", 0.4)
    name, task = "ibma_no_align_unit_beta_16_eta_0.5", "split_digits"
    regime = {"phi": "unit", "beta": 16.0}
    one = Variant("ibma_no_align", 0.5, regime, optimiser_of="ce3")
    assert twin.trained_as("regimes", task, name) == one
    assert twin.trained_as("regimes", task, "ce3") == Variant("ce3")
    noise = params.Noise("left", 0.0, 2.0)
    name = "ibma_train_0_test_2"
    assert twin.trained_as("noise", task, name) == Variant("ibma", noise=noise)
    assert fixed.trained_as("noise", task, name) == Variant("ibma", 0.4, noise=noise)
    assert len(twin.variants("noise", task)) == 4 and not twin.variants("noise", "mosi")
    for ask, said in (
        (lambda: twin.method("concatt"), "unknown method 'concatt' .did you mean 'concat'"),
        (lambda: twin.stage_of("x"), "unknown method 'x' .known: concat, "),
        (lambda: twin.task("crema"), "unknown task 'crema' .did you mean 'crema_d'"),
        (lambda: twin.trained_as("bounds", "mosi", "omib"), "no 'omib' in stage 'bounds'"),
        (lambda: twin.trained_as("sensitivity", "crema_d", "ibma_eta_0.35"), "no 'ibma_eta_0.35'"),
        (lambda: twin.trained_as("sensitivity", "mosi", "ibma_eta_0.3"), "in stage 'sensitivity'"),
    ):
        with pytest.raises(IbmaError, match=said):
            ask()


def test_what_is_given_to_code_is_checked_against_its_own_types():
    def samples(raw, *, split: str = "a", genes: params.Count = 3, lateral: bool = True): ...

    def model(spec, *, weight: float | None = None, scale=1.0, **others: object): ...

    for function, given, words in (
        (samples, {"splits": "a"}, "unknown key 'at.splits' (did you mean 'split'?)"),
        (samples, {"raw": "a"}, "unknown key 'at.raw'"),
        (samples, {"split": 3}, "at.split: expected a valid string, found 3"),
        (samples, {"genes": "many"}, "at.genes: expected an integer from 1 to 1000000, found"),
        (samples, {"genes": 0}, "at.genes: expected an integer from 1 to 1000000, found 0"),
        (samples, {"lateral": "no"}, 'at.lateral: expected a valid boolean, found "no"'),
        (model, {"weight": True}, "at.weight: expected a valid number, found true"),
        (model, {"weight": math.nan}, "at.weight: expected a finite number, found NaN"),
    ):
        with pytest.raises(IbmaError) as caught:
            params.check_arguments(function, given, "at")
        assert is_one_line_about(str(caught.value), words), str(caught.value)
    params.check_arguments(samples, {"split": "b", "lateral": False}, "at")
    params.check_arguments(model, {"weight": 1, "scale": "x", "any": []}, "at")
    params.check_arguments(model, {"weight": None}, "at")


def test_an_entry_for_each_modality_runs_where_a_task_has_it():
    twin = params.load(ROOT / "profiles/twin.yaml")
    modalities = {m for task in twin.tasks.values() for m in task.encoders}
    assert {f"unimodal_{m}" for m in modalities} <= set(twin.methods)
    assert "unimodal" not in twin.methods
    for task, entry in twin.tasks.items():
        own = [name for name in twin.methods_of(task) if name.startswith("unimodal")]
        assert own == [
            name for name in twin.methods if name.removeprefix("unimodal_") in entry.encoders
        ]
        assert {name for _, of, name in twin.cells() if of == task} >= {*own, "ce3", "omib"}
        assert all(twin.method(name).hparams == {"modality": name[9:]} for name in own)
        assert {twin.stage_of(name) for name in own} == {"ablation"}
    cells = [name for _, task, name in twin.cells() if task == "split_digits"]
    assert [n for n in cells if n.startswith("unimodal")] == ["unimodal_left", "unimodal_right"]
    others = {n for n in twin.methods if not n.startswith("unimodal")}
    assert others <= set(twin.methods_of("split_digits"))


def test_the_committed_schema_is_that_of_the_models_and_refuses_what_they_refuse():
    committed = json.loads((ROOT / "params.schema.json").read_text())
    assert committed == params.schema(), "run `ibma docs`"
    check = jsonschema.Draft202012Validator(committed)
    for name in PROFILES:
        assert check.is_valid(raw(name))
    for place, value in ACCEPTED:
        with changed(tuple(place.split(".")), value) as values:
            assert check.is_valid(values), (place, value)
    for at, kind in kinds(KEYS, TWIN):
        if at[:1] == ("tasks",) and at[1:2] in (("meld_emotion",), ("tissue",)):
            continue  # the kinds of the other tasks again
        wrong = WRONG[kind.removesuffix("?")]
        for value in wrong[:1] if kind != "name" else ("a/b",):
            with changed(at, value) as values:
                assert not check.is_valid(values), (at, value)
    for at, known, _ in blocks(KEYS, TWIN):
        with changed((*at, f"{next(iter(known))}x"), 1) as values:
            assert not check.is_valid(values), at


def test_defaults_are_those_of_the_code_that_reads_them():
    readers = ((params.SoundFeature, media.audio), (params.TextFeature, media.text))
    for model, reader in (*readers, (params.PictureFeature, media.frames)):
        known = inspect.signature(reader).parameters
        assert {n: f.default for n, f in model.model_fields.items()} == {
            name: known[name].default
            for name in known
            if known[name].kind is known[name].KEYWORD_ONLY
        }
    assert params.PictureFeature().size == inspect.signature(media.image).parameters["size"].default
    assert params.DURATION == media.SAMPLE_RATE * media.SECONDS
    for name, kind, shape in (("resnet", "image", (3, 32, 32)), ("mlp", "vector", (5,)),
                              ("vit", "image", (3, 32, 32)), ("bert", "text", (16,))):  # fmt: skip
        model = params.ENCODERS[name](name=name)
        written = model.model_dump(exclude_none=True)
        assert set(written) | {"pretrained", "channels", "size"} >= {"name", "train"}
        assert set(type(model).model_fields) - {"name", "train", "pretrained"} == {
            *encoders.SIZES[name]
        }
        with encoders.torch.device("meta"):
            shapes = [
                [
                    tuple(p.shape)
                    for p in encoders.build(c, kind=kind, shape=shape, width=8).parameters()
                ]
                for c in ({"name": name}, written)
            ]
        assert shapes[0] == shapes[1]


def test_reading_params_loads_no_heavy_library():
    code = "import ibma.params, sys; ibma.params.load(); print(*sys.modules)"
    loaded = set(fresh(code, cwd=ROOT).split())
    assert not {"torch", "numpy", "pandas", "scipy", "yaml"} & loaded
