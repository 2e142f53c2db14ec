"""Typed parameters: read `params.yaml`, check every value, name what is wrong in one line.

The models below are the definition of the file: the JSON schema that editors read
(`params.schema.json`) is made from them. A check that needs more than one key is a validator of the
smallest model that holds both. Data sets check their `options` and methods their hyper-parameters
themselves, since only they know them.

Numbers are those of YAML 1.2, which DVC writes: `1e-05` is a number here, but text to PyYAML.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import itertools
import json
import os
import pkgutil
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    create_model,
    model_validator,
)
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import PydanticCustomError, core_schema

from ibma.errors import IbmaError, one_line, tidy
from ibma.files import read_bytes
from ibma.machine import cores, hold_to

SHOWN = 60  # characters of a wrong value that an error shows
EACH = "each"  # as a method's modality: one entry for every modality
FUSED = "fused"  # what methods call the fused representation
OF_MODULES = """
    T_destination add_module apply bfloat16 buffers call_super_init children clear compile cpu cuda
    double dump_patches eval extra_repr float forward get_buffer get_extra_state get_parameter
    get_submodule half ipu items keys load_state_dict modules mtia named_buffers named_children
    named_modules named_parameters parameters pop register_backward_hook register_buffer
    register_forward_hook register_forward_pre_hook register_full_backward_hook
    register_full_backward_pre_hook register_load_state_dict_post_hook
    register_load_state_dict_pre_hook register_module register_parameter
    register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state
    set_submodule share_memory state_dict to to_empty train training type update values xpu
    zero_grad
"""  # what torch.nn.ModuleDict, which holds encoders by their modality, has of its own
TAKEN = {  # names that no modality may have, and why
    FUSED: "methods call their fusion so",
    EACH: "it means every one",
    "logits": "what a network says is called so",
    **dict.fromkeys(OF_MODULES.split(), "a part of every network is called so"),
}
READ_ETA = ("beta_tuned", "ibma")  # methods whose class says `reads_eta`: asking it loads torch
DURATION = 66_150  # audio samples that a spectrogram covers: 3 s at 22,050 Hz

# --- errors --------------------------------------------------------------------------------------


def _wrong(expected: str, key: str = "", **found: object) -> PydanticCustomError:
    """Make an error that `_line` prints.

    Args:
        expected: what would be right.
        key: path of the wrong key below the model that raises; empty for the value itself.
        found: `found=<value>` where it is not what the model or type was given.
    """
    return PydanticCustomError("wrong", "{expected}", {"expected": expected, "key": key, **found})


def _expect(text: str) -> WrapValidator:
    """Replace whatever a type has to say of a wrong value by one expectation."""

    def check(value: object, handler: ValidatorFunctionWrapHandler) -> object:
        try:
            return handler(value)
        except ValidationError:
            raise _wrong(text) from None

    return WrapValidator(check)


def _hint(name: object, known: Iterable[str]) -> str:
    """Return, in brackets, which known name was meant, else all of them."""
    names = list(known)
    close = difflib.get_close_matches(str(name), names, n=1)
    return f"(did you mean '{close[0]}'?)" if close else f"(known: {', '.join(names) or 'none'})"


def _among(found: str, known: Iterable[str], key: str, what: str) -> None:
    """Raise an error unless a name is among those that are known."""
    names = list(known)
    if found not in names:
        raise _wrong(f"{what} {_hint(found, names)}", key, found=found)


def _each_once(values: list[Any]) -> list[Any]:
    """Refuse a list that names a value twice."""
    for place, value in enumerate(values):
        if value in values[:place]:
            raise _wrong("each value once", found=value)
    return values


def _told_apart(values: list[float]) -> list[float]:
    """Refuse numbers that are written alike: the records of both would share a folder."""
    written = [f"{value:g}" for value in values]
    for place, value in enumerate(written):
        if value in written[:place]:
            raise _wrong("numbers that differ in six digits", found=values[place])
    return values


# --- types ---------------------------------------------------------------------------------------

MOST = 1_000_000
Count = Annotated[int, Field(ge=1, le=MOST), _expect(f"an integer from 1 to {MOST}")]
Several = Annotated[int, Field(ge=2, le=MOST), _expect(f"an integer from 2 to {MOST}")]
Workers = Annotated[int, Field(ge=1, le=1024), _expect("an integer from 1 to 1024")]
MaybeWorkers = Annotated[
    Annotated[int, Field(ge=1, le=1024)] | None, _expect("an integer from 1 to 1024, or null")
]
Side = Annotated[int, Field(ge=1, le=4096), _expect("an integer from 1 to 4096")]
Positive = Annotated[float, Field(gt=0), _expect("a number above 0")]
NotNegative = Annotated[float, Field(ge=0), _expect("a number of 0 or more")]
Share = Annotated[float, Field(ge=0, lt=1), _expect("a number from 0 to below 1")]
Eta = Annotated[float, Field(gt=0, lt=1), _expect("a number above 0 and below 1")]
MaybeEta = Annotated[
    Annotated[float, Field(gt=0, lt=1)] | None, _expect("a number above 0 and below 1, or null")
]
Switch = Annotated[bool, _expect("true or false")]
Words = Annotated[Annotated[str, Field(min_length=1)] | None, _expect("a name, or null")]
# DVC joins names with "-", folders are called by them, and Python modules too.
NAME = "[A-Za-z][A-Za-z0-9_]{0,63}"
Name = Annotated[
    str,
    Field(pattern=f"^{NAME}$"),
    _expect("a name of letters, digits and _ that starts with a letter, 64 at most"),
]
Scalar = Annotated[
    str | bool | int | float | None, _expect("text, a finite number, true, false or null")
]
Names = Annotated[list[Name], AfterValidator(_each_once)]
SomeNames = Annotated[Names, Field(min_length=1)]
Rates = Annotated[list[Positive], Field(min_length=1), AfterValidator(_each_once)]
Decays = Annotated[list[NotNegative], Field(min_length=1), AfterValidator(_each_once)]
Etas = Annotated[list[Eta], Field(min_length=1), AfterValidator(_told_apart)]
Levels = Annotated[list[Positive], Field(min_length=1), AfterValidator(_told_apart)]
PhiName = Literal["printed", "unit"]
Counts = Annotated[list[Count], Field(min_length=1)]
Hyper = Annotated[
    Scalar | list[Scalar], _expect("text, a finite number, true, false, null, or a list of them")
]


class Block(BaseModel):
    """A mapping of params.yaml whose keys are known."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: object) -> object:
        """Say which key was meant, which pydantic does not."""
        if isinstance(values, Mapping) and cls.model_config.get("extra") == "forbid":
            known = cls._keys()
            for key in values:
                if key not in known:
                    raise PydanticCustomError(
                        "unknown_key", "{hint}", {"hint": _hint(key, known), "key": key}
                    )
        return values

    @classmethod
    def _keys(cls) -> list[str]:
        return [field.alias or name for name, field in cls.model_fields.items()]

    def as_dict(self) -> dict[str, Any]:
        """Return what the file says and nothing else, as plain JSON values: no defaults."""
        return self.model_dump(exclude_unset=True, by_alias=True)


# --- encoders ------------------------------------------------------------------------------------


class EncoderParams(Block):
    """The network of one modality; see `network/encoders.py`."""

    name: str
    train: Literal["all", "last", "none"] = "all"
    """Layers that are trained: all, the last one (the projection to the shared width), or none."""

    def misfit(self, feature: FeatureParams) -> tuple[str, str] | None:
        """Return the key that does not fit a feature which this network reads, and what would."""
        return None


class Backbone(EncoderParams):
    """A network that may start from pretrained weights, which bring their sizes."""

    pretrained: Words = None
    """Hub id, local folder or package:<import name> of weights; null starts at random."""

    @model_validator(mode="after")
    def _pretrained_has_sizes(self) -> Backbone:
        sizes = sorted(self.model_fields_set - {"name", "train", "pretrained"})
        if self.pretrained is not None and sizes:
            expected = "no sizes beside pretrained, which has its own"
            raise _wrong(expected, sizes[0], found=getattr(self, sizes[0]))
        return self


class Transformer(Backbone):
    """What ViT and BERT share."""

    hidden_size: Count = 768
    """Width of the tokens."""
    layers: Count = 12
    """Transformer layers."""
    heads: Count = 12
    """Attention heads; they divide hidden_size."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Transformer:
        if self.hidden_size % self.heads:
            expected = f"a multiple of heads ({self.heads})"
            raise _wrong(expected, "hidden_size", found=self.hidden_size)
        return self


class ResNetEncoder(Backbone):
    """ResNet with basic blocks, ResNet-18 unless configured smaller: sound and pictures."""

    name: Literal["resnet"]
    """Which network."""
    channels: Count | None = None
    """Input channels; pictures have 3, spectrograms 1 unless pretrained weights want more."""
    embedding_size: Count = 64
    """Channels after the first convolution."""
    hidden_sizes: Counts = [64, 128, 256, 512]
    """Channels of each stage."""
    depths: Counts = [2, 2, 2, 2]
    """Blocks of each stage."""

    @model_validator(mode="after")
    def _stages_agree(self) -> ResNetEncoder:
        if len(self.hidden_sizes) != len(self.depths):
            expected = f"as many entries as hidden_sizes ({len(self.hidden_sizes)})"
            raise _wrong(expected, "depths", found=self.depths)
        return self

    def misfit(self, feature: FeatureParams) -> tuple[str, str] | None:
        """Return what is wrong with the channels."""
        wrong = isinstance(feature, PictureFeature) and self.channels not in (None, 3)
        return ("channels", "3, the channels of a picture") if wrong else None


class ViTEncoder(Transformer):
    """Vision transformer, ViT-B/16 unless configured smaller: pictures."""

    name: Literal["vit"]
    """Which network."""
    size: Side | None = None
    """Width of the stored pictures, if given."""
    patch_size: Side = 16
    """Width of a patch in pixels; it divides the width of the picture."""

    def misfit(self, feature: FeatureParams) -> tuple[str, str] | None:
        """Return what is wrong with the sizes of picture and patch."""
        if not isinstance(feature, PictureFeature) or self.pretrained is not None:
            return None
        if self.size not in (None, feature.size):
            return "size", f"the size of the feature ({feature.size})"
        if feature.size % self.patch_size:
            return "patch_size", f"a divisor of the picture's size ({feature.size})"
        return None


class BertEncoder(Transformer):
    """BERT, the base model's size unless configured smaller: token ids of words."""

    name: Literal["bert"]
    """Which network."""
    vocab_size: Several = 30522
    """Number of token ids."""
    max_length: Count = 512
    """Longest text in tokens."""
    dropout: Share = 0.1
    """Share of values that training sets to zero."""

    def misfit(self, feature: FeatureParams) -> tuple[str, str] | None:
        """Return what is wrong with the number of token ids, their range or their meaning."""
        if not isinstance(feature, TextFeature):
            return None
        if self.pretrained is not None:
            hashed = "null, or a tokenizer in features: to these weights hashed words mean nothing"
            return ("pretrained", hashed) if feature.tokenizer is None else None
        if feature.max_length > self.max_length:
            return "max_length", f"at least the max_length of the feature ({feature.max_length})"
        if feature.tokenizer is None and feature.vocab_size > self.vocab_size:
            return "vocab_size", f"at least the vocab_size of the feature ({feature.vocab_size})"
        return None


class MLPEncoder(EncoderParams):
    """Hidden ReLU layers: vectors, expression, and sound or words summed up as vectors."""

    name: Literal["mlp"]
    """Which network."""
    hidden: list[Count] = [512]
    """Widths of the hidden layers."""


class AutoEncoder(EncoderParams):
    """Any image model of transformers with its weights: pictures."""

    name: Literal["auto"]
    """Which network."""
    pretrained: Annotated[str, Field(min_length=1)]
    """Hub id, local folder or package:<import name>; the model brings its sizes."""


ENCODERS = {
    "resnet": ResNetEncoder,
    "vit": ViTEncoder,
    "bert": BertEncoder,
    "auto": AutoEncoder,
    "mlp": MLPEncoder,
}


def _named_encoder(value: object) -> object:
    """Refuse an encoder without a known name before its other keys are read."""
    if isinstance(value, Mapping):
        name = value.get("name")
        if not isinstance(name, str) or name not in ENCODERS:
            raise _wrong("resnet, vit, bert, auto or mlp", "name", found=name)
    return value


def _encoder_tag(value: object) -> str:
    name = value.get("name") if isinstance(value, Mapping) else getattr(value, "name", "mlp")
    return f"<{name}>"


AnyEncoder = Annotated[
    Annotated[ResNetEncoder, Tag("<resnet>")]
    | Annotated[ViTEncoder, Tag("<vit>")]
    | Annotated[BertEncoder, Tag("<bert>")]
    | Annotated[AutoEncoder, Tag("<auto>")]
    | Annotated[MLPEncoder, Tag("<mlp>")],
    Discriminator(_encoder_tag),
    BeforeValidator(_named_encoder),
]


# --- features ------------------------------------------------------------------------------------


class FeatureParams(Block):
    """How raw files of one modality become arrays; see `features/media.py`.

    The data set defines the kind of a modality; here the keys of the feature show it.
    """

    @property
    def readers(self) -> tuple[str, ...]:
        """Return the encoders that read the stored feature."""
        return tuple(ENCODERS)


class SoundFeature(FeatureParams):
    """A log spectrogram of 3 seconds, or statistics of its bands over time."""

    spectrogram: Literal["logmel", "ogm"] = "logmel"
    """Log-mel bands, or the log magnitudes of 257 frequencies as OGM-GE has them."""
    n_mels: Annotated[int, Field(ge=1, le=257), _expect("an integer from 1 to 257")] = 128
    """Mel bands."""
    hop: Annotated[int, Field(ge=1, le=DURATION), _expect(f"an integer from 1 to {DURATION}")] = 353
    """Audio samples (at 22,050 Hz) from one column to the next."""
    statistics: Switch = False
    """Store means and deviations over time instead: a vector for an MLP."""
    embedding: Words = None
    """Pretrained audio model whose vector is stored instead, for an MLP."""

    @model_validator(mode="after")
    def _ogm_has_its_bins(self) -> SoundFeature:
        if self.spectrogram == "ogm" and "n_mels" in self.model_fields_set:
            raise _wrong("no n_mels: ogm has 257 bins", "n_mels", found=self.n_mels)
        others = sorted(self.model_fields_set - {"embedding"})
        if self.embedding is not None and others:
            expected = "nothing beside embedding, which hears the sound itself"
            raise _wrong(expected, others[0], found=getattr(self, others[0]))
        return self

    @property
    def readers(self) -> tuple[str, ...]:
        """Return the encoders of spectrograms, or of vectors."""
        return ("mlp",) if self.statistics or self.embedding else ("resnet",)


class PictureFeature(FeatureParams):
    """RGB pictures of size x size; of a film, `frames` of them."""

    frames: Annotated[int, Field(ge=1, le=1024), _expect("an integer from 1 to 1024")] = 3
    """Pictures of a film, evenly spaced."""
    size: Side = 224
    """Width and height in pixels."""
    embedding: Words = None
    """Pretrained image model whose mean vector is stored instead, for an MLP."""

    @property
    def readers(self) -> tuple[str, ...]:
        """Return the encoders of pictures, or of vectors."""
        return ("resnet", "vit", "auto") if self.embedding is None else ("mlp",)


class TextFeature(FeatureParams):
    """Token ids, or the sentence embedding of a pretrained network."""

    max_length: Count = 128
    """Tokens that are kept."""
    tokenizer: Words = None
    """Hub id, folder or package:<import name>; null hashes words into vocab_size ids."""
    vocab_size: Several = 512
    """Ids that words are hashed into, where tokenizer is null."""
    embedding: Words = None
    """Pretrained network whose mean output is stored instead: a vector for an MLP."""

    @model_validator(mode="after")
    def _one_reader(self) -> TextFeature:
        if self.embedding is not None and self.tokenizer is not None:
            raise _wrong("null: embedding has its own tokenizer", "tokenizer", found=self.tokenizer)
        hashes = self.embedding is None and self.tokenizer is None
        if not hashes and "vocab_size" in self.model_fields_set:
            expected = "no vocab_size: the tokenizer has its own"
            raise _wrong(expected, "vocab_size", found=self.vocab_size)
        return self

    @property
    def readers(self) -> tuple[str, ...]:
        """Return the encoders of token ids, or of vectors."""
        return ("bert",) if self.embedding is None else ("mlp",)


class PlainFeature(FeatureParams):
    """No parameters: vectors are stored as they are, media by the defaults of their kind."""

    @classmethod
    def _keys(cls) -> list[str]:
        """List the keys of all kinds: any of them would have led to its kind."""
        return [key for kind in FEATURES for key in kind.model_fields]


FEATURES = (TextFeature, SoundFeature, PictureFeature)  # a tie of keys goes to the first


def _feature_tag(value: object) -> str:
    if isinstance(value, Mapping):
        shared = [len(kind.model_fields.keys() & value.keys()) for kind in FEATURES]
        likely = FEATURES[shared.index(max(shared))]
        return f"<{likely.__name__}>" if any(shared) else "<PlainFeature>"
    return f"<{type(value).__name__}>" if isinstance(value, FEATURES) else "<PlainFeature>"


AnyFeature = Annotated[
    Annotated[SoundFeature, Tag("<SoundFeature>")]
    | Annotated[PictureFeature, Tag("<PictureFeature>")]
    | Annotated[TextFeature, Tag("<TextFeature>")]
    | Annotated[PlainFeature, Tag("<PlainFeature>")],
    Discriminator(_feature_tag),
]


# --- blocks --------------------------------------------------------------------------------------


class Engine(Block):
    """Where runs are trained; no result depends on it."""

    name: Literal["processes", "slurm", "ray"]
    """This machine's processes, a Slurm cluster, or a Ray cluster."""
    workers: MaybeWorkers
    """Runs at once, or samples at once in stage extract; null: one per core, or per GPU."""
    processes: Workers
    """Processes that train one network together (torchrun), one per GPU."""
    options: dict[Name, Scalar] = {}
    """Options of slurm or ray, e.g. partition or address; see docs/scaling.md."""

    @model_validator(mode="after")
    def _processes_read_no_options(self) -> Engine:
        if self.name == "processes" and self.options:
            raise _wrong("{}: engine processes reads no options", "options", found=self.options)
        return self


class DatasetParams(Block):
    """Where a data set comes from."""

    source: Literal["twin", "real"]
    """twin: generated; real: fetched, or placed by hand."""


class TableModality(Block):
    """A modality of a table: the files, the text or the numbers that its cells hold."""

    kind: Literal["image", "audio", "video", "text", "numbers"]
    """What the cells hold: names of files, a text, or numbers."""
    columns: Annotated[list[str], Field(min_length=1), AfterValidator(_each_once)]
    """One column; any number of columns of numbers."""
    folder: Words = None
    """Folder of the files that cells name; `pictures/{}.png` completes a name."""

    @model_validator(mode="after")
    def _columns_fit(self) -> TableModality:
        if self.kind != "numbers" and len(self.columns) > 1:
            raise _wrong(f"one column of kind {self.kind}", "columns", found=self.columns)
        if (self.folder is not None) != (self.kind in ("image", "audio", "video")):
            expected = "a folder for image, audio and video, none for text and numbers"
            raise _wrong(expected, "folder", found=self.folder)
        return self


class TableParams(Block):
    """A data set that is a table with a row for each sample; `ibma new` writes this block."""

    file: str
    """CSV, TSV or Parquet; read in place."""
    delimiter: Literal[",", ";", "\t", "|"] = ","
    """Between cells; Parquet has none."""
    id: Words
    """Column with a name for each row; null: rows are named by their number."""
    label: Annotated[list[str], Field(min_length=1), AfterValidator(_each_once)]
    """Column to be predicted; of kind multilabel a column of 0 and 1 for each label."""
    kind: Literal["classify", "multilabel", "sentiment"]
    """One of several classes, any of several labels, or a number."""
    classes: Annotated[list[str], AfterValidator(_each_once)] = []
    """Values of the label's column, in the order of the results."""
    separator: Annotated[str, Field(min_length=1)] | None = None
    """Text between the labels of one cell, if a cell holds several."""
    range: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    """Lowest and highest number that is learnt, of kind sentiment."""
    group: Words = None
    """Column of speakers or patients, whom no fold splits; null: each row is its own group."""
    split: Words = None
    """Column that says train, valid or test; null: folds are drawn."""
    splits: dict[str, str] = {}
    """Value of that column -> train, valid, test, or drop."""
    folds: Annotated[int, Field(ge=0, le=100), _expect("an integer from 0 to 100")] = 0
    """Random folds, if no column gives the split; run k tests on fold k mod folds."""
    fold_seed: Annotated[int, Field(ge=0, le=MOST), _expect(f"an integer from 0 to {MOST}")] = 0
    """Seed of the draw."""
    modalities: dict[Name, TableModality] = Field(min_length=1)
    """What is predicted from."""

    @model_validator(mode="after")
    def _labels_fit(self) -> TableParams:
        several = self.kind == "multilabel" and self.separator is None
        if len(self.label) > 1 and not several:
            raise _wrong("one column, or kind multilabel without separator", "label")
        if self.kind == "sentiment":
            low, high = self.range or (0.0, 0.0)
            if low >= high:
                raise _wrong("[lowest, highest] of the numbers", "range", found=self.range)
        elif len(self.classes) < 2 and not (several and len(self.label) > 1):
            raise _wrong("two classes or more", "classes", found=self.classes)
        names = [tidy(name) for name in self.classes]
        if not all(names) or len(set(names)) < len(names):
            raise _wrong("names that differ and are not empty", "classes", found=self.classes)
        if several and len(self.label) == 1:
            raise _wrong("what stands between the labels of one cell", "separator", found=None)
        if several and self.classes and len(self.classes) != len(self.label):
            raise _wrong("a class for each column of `label`", "classes", found=self.classes)
        if self.separator is not None and self.kind != "multilabel":
            raise _wrong("null, or kind multilabel", "separator", found=self.separator)
        return self

    @model_validator(mode="after")
    def _labels_are_no_inputs(self) -> TableParams:
        inputs = [column for one in self.modalities.values() for column in one.columns]
        for column in self.label:
            if column in (*inputs, self.id, self.group, self.split):
                expected = "a column that nothing else reads: else the answer is among the inputs"
                raise _wrong(expected, "label", found=column)
        return self

    @model_validator(mode="after")
    def _splits_fit(self) -> TableParams:
        if (self.split is None) != (self.folds > 1):
            expected = "2 or more without a column `split`, 0 with one"
            raise _wrong(expected, "folds", found=self.folds)
        for name, meant in self.splits.items():
            if meant not in ("train", "valid", "test", "drop"):
                raise _wrong("train, valid, test or drop", f"splits.{name}", found=meant)
        return self


class TaskParams(Block):
    """What is learnt from a data set, from which features, with which networks."""

    dataset: Name
    """A name under datasets or tables."""
    options: dict[Name, Scalar] = {}
    """Arguments of the data set's `samples`, see docs/datasets.md."""
    on_bad: Literal["stop", "drop"] = "stop"
    """What to do with a sample that cannot be used: stop the stage, or drop and count it."""
    features: dict[Name, AnyFeature] = {}
    """Modality -> how its raw files become arrays."""
    encoders: dict[Name, AnyEncoder] = Field(min_length=1)
    """Modality -> its network."""
    batch_size: Several
    """Samples per step of the optimiser."""

    def extraction(self) -> dict[str, Any]:
        """Return what stage `extract` reads, as plain JSON values."""
        features = {modality: feature.as_dict() for modality, feature in self.features.items()}
        return self.model_dump(include={"dataset", "options", "on_bad"}) | {"features": features}

    @model_validator(mode="after")
    def _modalities_fit(self) -> TaskParams:
        for name in self.encoders:
            if name in TAKEN:
                raise _wrong(f"another name: {TAKEN[name]}", "encoders", found=name)
        for reserved in {"raw", "on_bad"} & self.options.keys():
            raise _wrong("arguments of the data set alone", "options", found=reserved)
        for modality, feature in self.features.items():
            _among(modality, self.encoders, "features", "a modality that encoders names")
            encoder = self.encoders[modality]
            misfit = encoder.misfit(feature)
            if encoder.name not in feature.readers:
                *others, last = feature.readers
                known = f"{', '.join(others)} or {last}" if others else last
                misfit = "name", f"{known}, to read such features"
            if misfit:
                key, expected = misfit
                where = f"encoders.{modality}.{key}"
                raise _wrong(expected, where, found=getattr(encoder, key))
        return self


class Training(Block):
    """How every network is trained."""

    epochs: Count
    """Passes over the training rows; the last one is reported."""
    width: Count
    """Width D of every embedding."""
    heads: Count
    """Attention heads of the fusion block; they divide width."""
    phi: PhiName
    """Soft assignment of inputs and representations: of raw vectors (printed: the paper's section
    3.1), or of unit vectors (unit: the released code). A method's entry may have another."""
    beta: Positive
    """Of phi = softmax(-beta ||f - c||^2); 1 in the paper and in the released code."""
    pseudo_classes: Several
    """Clusters that replace the classes of one-class data."""
    refresh: Literal["epoch", "pass"]
    """Centroids and Q come from the epoch's own steps, or from one more pass over the data."""
    compile: Switch
    """Run the layers of networks through torch.compile."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Training:
        if self.width % self.heads:
            raise _wrong(f"a multiple of heads ({self.heads})", "width", found=self.width)
        return self


class Grid(Block):
    """What every method tries: each lr with each weight decay, then its own main weight."""

    lr: Rates
    """Learning rates of Adam."""
    weight_decay: Decays
    """Weight decays."""
    eta: Etas
    """For methods that use eta; the middle one is used while lr and weight decay are chosen."""
    weight_factor: Rates
    """For other methods: factors on their own weight, as many as etas; 1 is among them."""

    @model_validator(mode="after")
    def _all_try_as_much(self) -> Grid:
        if len(self.weight_factor) != len(self.eta):
            expected = f"as many entries as eta ({len(self.eta)}): all methods try as much"
            raise _wrong(expected, "weight_factor", found=self.weight_factor)
        if 1 not in self.weight_factor:
            raise _wrong(
                "1 among them, the weight as it is", "weight_factor", found=self.weight_factor
            )
        return self

    @property
    def points(self) -> list[tuple[float, float]]:
        """Return every (lr, weight decay), in the order in which all methods try them."""
        return list(itertools.product(self.lr, self.weight_decay))

    @property
    def middle_eta(self) -> float:
        """Return the eta at which lr and weight decay are chosen."""
        return self.eta[(len(self.eta) - 1) // 2]


class Tune(Block):
    """How lr, weight decay and a method's main weight are chosen inside the training split."""

    folds: Several
    """Cross-validation folds."""
    epochs: Count
    """Length of a trial."""
    grid: Grid
    """The values that are tried."""

    @property
    def rule(self) -> dict[str, Any]:
        """Return how lr and weight decay are chosen, and from which points, as JSON values."""
        points = [list(point) for point in self.grid.points]
        return {"points": points, "folds": self.folds, "epochs": self.epochs}


@dataclass(frozen=True)
class Noise:
    """Gaussian noise in one modality, see `features/noise.py`.

    Args:
        modality: the one that is noisy.
        train, test: level in the training and in the test rows, in standard deviations.
    """

    modality: str
    train: float
    test: float


@dataclass(frozen=True)
class Variant:
    """What the records of a name are runs of: a method, and what a study changes of its entry.

    Args:
        method: an entry of a block of methods.
        eta: overrides the choice of stage tune for a method that reads eta; None keeps it.
        hparams: hyper-parameters beside the entry's own, or in their place.
        optimiser_of: the method whose chosen lr and weight decay are taken; None for its own.
        noise: in the features; None for none.
    """

    method: str
    eta: float | None = None
    hparams: Mapping[str, Any] = field(default_factory=dict)
    optimiser_of: str | None = None
    noise: Noise | None = None


class Sensitivity(Block):
    """Runs of some methods at fixed etas on one task; the first method gives Table 8."""

    task: Name
    """Where."""
    methods: SomeNames
    """Methods that use eta."""
    etas: Etas
    """The fixed values."""

    def name(self, method: str, eta: float) -> str:
        """Return what a method's runs at an eta are called in the records."""
        return f"{method}_eta_{eta:g}"

    def variants(self) -> dict[str, dict[str, Variant]]:
        """Return task -> name of records -> what they are runs of."""
        pairs = itertools.product(self.methods, self.etas)
        return {self.task: {self.name(m, eta): Variant(m, eta) for m, eta in pairs}}


class Regimes(Block):
    """Forms of IBMA at every phi, beta and eta, all with the control's lr and weight decay."""

    tasks: Names
    """Where; empty to leave the study out."""
    forms: SomeNames
    """Entries of method ibma."""
    control: Name
    """Trained beside them; its lr and weight decay, as stage tune chose them, serve all."""
    phis: Annotated[list[PhiName], Field(min_length=1), AfterValidator(_each_once)]
    """As training.phi."""
    betas: Levels
    """As training.beta."""
    etas: Etas
    """Weights of the bound."""

    def name(self, form: str, phi: str, beta: float, eta: float) -> str:
        """Return what a form's runs in a regime are called in the records."""
        return f"{form}_{phi}_beta_{beta:g}_eta_{eta:g}"

    def points(self) -> Iterator[tuple[PhiName, float, float]]:
        """Yield phi, beta and eta of every regime."""
        return itertools.product(self.phis, self.betas, self.etas)

    def variants(self) -> dict[str, dict[str, Variant]]:
        """Return task -> name of records -> what they are runs of."""
        named = {self.control: Variant(self.control)}
        for form, (phi, beta, eta) in itertools.product(self.forms, self.points()):
            regime = {"phi": phi, "beta": beta}
            one = Variant(form, eta, regime, optimiser_of=self.control)
            named[self.name(form, phi, beta, eta)] = one
        return dict.fromkeys(self.tasks, named)


class NoiseStudy(Block):
    """Noise in one modality of a task: in training, in the test, and in both."""

    tasks: dict[Name, Name]
    """Task -> its noisy modality; empty to leave the study out."""
    methods: SomeNames
    """Methods that are trained on noisy features."""
    levels: Levels
    """In standard deviations of each feature over the training rows; clean is always among them."""

    def name(self, method: str, train: float, test: float) -> str:
        """Return what a method's runs at two levels are called in the records."""
        return f"{method}_train_{train:g}_test_{test:g}"

    def pairs(self) -> list[tuple[float, float]]:
        """List the levels of noise in training and in the test that are run together."""
        levels = self.levels
        train, test = [(each, 0.0) for each in levels], [(0.0, each) for each in levels]
        return [(0.0, 0.0), *train, *test, *((each, each) for each in levels)]

    def variants(self, eta: float | None) -> dict[str, dict[str, Variant]]:
        """Return task -> name of records -> what they are runs of, at an eta unless it is None."""
        return {
            task: {
                self.name(method, *pair): Variant(method, eta, noise=Noise(modality, *pair))
                for method, pair in itertools.product(self.methods, self.pairs())
            }
            for task, modality in self.tasks.items()
        }


class Timing(Block):
    """Seconds per epoch of every method, measured side by side on one task."""

    task: Name
    """Where every method is timed."""
    rounds: Several
    """Counted epochs, after one of warm-up."""


class Probe(Block):
    """A linear classifier on each trained encoder alone (Table 16)."""

    task: Name
    """Where."""
    methods: SomeNames
    """Methods whose encoders are judged; keep_weights names them too."""


class GradCam(Block):
    """Grad-CAM of image encoders (Figures 1 and 3)."""

    tasks: dict[Name, Name]
    """Task -> modality with pictures."""
    methods: Names
    """Methods whose encoders are explained; keep_weights names them too."""
    examples: Count
    """Pictures shown per task; numbers are of the whole test split."""

    @model_validator(mode="after")
    def _explain_something(self) -> GradCam:
        if self.tasks and not self.methods:
            raise _wrong("one entry or more", "methods", found=self.methods)
        return self


class MethodParams(Block):
    """A method: a file in `methods/` and hyper-parameters, which that file checks."""

    model_config = ConfigDict(extra="allow", json_schema_extra=lambda s: s.pop("required", None))
    __pydantic_extra__: dict[str, Hyper]

    file: Name = Field(alias="method")
    """File in methods/ without .py; without this key the entry's own name."""

    @model_validator(mode="after")
    def _keywords(self) -> MethodParams:
        for name in self.hparams:
            if not name.isidentifier() or name in ("self", "spec"):
                raise _wrong("names of hyper-parameters, see docs/methods.md", found=name)
        return self

    @property
    def hparams(self) -> dict[str, Any]:
        """Return the keyword arguments of the method's `Model`."""
        return dict(self.__pydantic_extra__)


def _with_own_file(block: object) -> object:
    """Give entries without the key `method` their own name."""
    if not isinstance(block, Mapping):
        return block
    return {
        name: {"method": name, **entry} if isinstance(entry, Mapping) else entry
        for name, entry in block.items()
    }


Methods = Annotated[dict[Name, MethodParams], BeforeValidator(_with_own_file)]


class Params(Block):
    """One profile: everything that decides what the pipeline does."""

    profile: Name
    """Names the reports and the MLflow experiment."""
    eta: MaybeEta
    """Weight of the bound; null: the choice of stage tune; a number overrides it everywhere."""
    seeds: Count
    """Runs 0 to seeds - 1 of every method on every task."""
    device: Literal["auto", "cpu", "cuda"]
    """Where networks are trained; auto: a GPU if torch finds one."""
    threads: MaybeWorkers
    """CPU threads of one run; null: as many as this machine has cores."""
    instructions: Literal["portable", "native"]
    """portable: what every x86-64 processor can do; native: what this processor does fastest."""
    engine: Engine
    keep_weights: Names
    """Methods whose trained networks are kept."""
    datasets: dict[Name, DatasetParams]
    """Published data sets, see docs/datasets.md."""
    tables: dict[Name, TableParams] = {}
    """Data sets of your own, see docs/own-data.md."""
    tasks: dict[Name, TaskParams] = Field(min_length=1)
    """What is learnt, by a name of your choice."""
    training: Training
    tune: Tune
    train: Methods
    """Baselines."""
    train_ibma: Methods
    """IBMA."""
    ablation: Methods
    """IBMA without alignment, and the control without any bound."""
    bounds: Methods
    """IBMA with other bounds in place of its own."""
    sensitivity: Sensitivity
    regimes: Regimes
    noise: NoiseStudy
    timing: Timing
    probe: Probe
    gradcam: GradCam

    def stages_of_methods(self) -> dict[str, dict[str, MethodParams]]:
        """Return stage -> its methods, in the order in which tables list them.

        An entry with `modality: each` is one for every modality of any task.
        """
        stages = ("train", "train_ibma", "ablation", "bounds")
        return {stage: dict(self._each_modality(getattr(self, stage))) for stage in stages}

    def _each_modality(
        self, methods: Mapping[str, MethodParams]
    ) -> Iterator[tuple[str, MethodParams]]:
        known = {modality: None for task in self.tasks.values() for modality in task.encoders}
        for name, entry in methods.items():
            if entry.hparams.get("modality") != EACH:
                yield name, entry
                continue
            for modality in known:
                yield f"{name}_{modality}", entry.model_copy(update={"modality": modality})

    @property
    def cpu_threads(self) -> int:
        """Return the CPU threads of one run."""
        return self.threads or cores()

    @property
    def methods(self) -> dict[str, MethodParams]:
        """Return every method of every stage."""
        stages = self.stages_of_methods().values()
        return {name: entry for methods in stages for name, entry in methods.items()}

    def methods_of(self, task: str) -> dict[str, MethodParams]:
        """Return the methods that run on a task: all but those of a modality that it lacks.

        Raises:
            IbmaError: there is no such task.
        """
        modalities = (None, *self.task(task).encoders)
        known = self.methods.items()
        return {name: one for name, one in known if one.hparams.get("modality") in modalities}

    def stage_of(self, method: str) -> str:
        """Return the stage that trains a method.

        Raises:
            IbmaError: no stage lists it.
        """
        for stage, known in self.stages_of_methods().items():
            if method in known:
                return stage
        raise self._unknown(method)

    def studies(self) -> dict[str, dict[str, dict[str, Variant]]]:
        """Return stage -> task -> name of records -> what they are runs of, for every study."""
        return {
            "sensitivity": self.sensitivity.variants(),
            "regimes": self.regimes.variants(),
            "noise": self.noise.variants(self.eta),
        }

    def variants(self, stage: str, task: str) -> dict[str, Variant]:
        """Return what the records of a stage on a task are called, and what they are runs of."""
        if stage in self.stages_of_methods():
            return {name: Variant(name, self.eta) for name in self.stages_of_methods()[stage]}
        return self.studies().get(stage, {}).get(task, {})

    def trained_as(self, stage: str, task: str, name: str) -> Variant:
        """Return what the records called `name` of a stage on a task are runs of.

        Raises:
            IbmaError: the stage has no such records.
        """
        known = self.variants(stage, task)
        if name not in known:
            raise IbmaError(f"params.yaml: no '{name}' in stage '{stage}' {_hint(name, known)}")
        return known[name]

    def method(self, name: str) -> MethodParams:
        """Return the entry of a method.

        Raises:
            IbmaError: no stage lists it.
        """
        known = self.methods
        if name not in known:
            raise self._unknown(name)
        return known[name]

    def _unknown(self, method: str) -> IbmaError:
        return IbmaError(f"params.yaml: unknown method '{method}' {_hint(method, self.methods)}")

    def task(self, name: str) -> TaskParams:
        """Return the entry of a task.

        Raises:
            IbmaError: there is no such task.
        """
        if name not in self.tasks:
            raise IbmaError(f"params.yaml: unknown task '{name}' {_hint(name, self.tasks)}")
        return self.tasks[name]

    def cells(self) -> Iterator[tuple[str, str, str]]:
        """Yield (stage, task, name) of every folder of records."""
        for task in self.tasks:
            of_task = self.methods_of(task)
            for stage, methods in self.stages_of_methods().items():
                yield from ((stage, task, method) for method in methods if method in of_task)
        for stage, tasks in self.studies().items():
            for task, named in tasks.items():
                yield from ((stage, task, name) for name in named)

    @model_validator(mode="after")
    def _data_is_known(self) -> Params:
        known, twins = _modules("datasets"), _modules("twins")
        for name, dataset in self.datasets.items():
            _among(name, known, "datasets", "names of files in src/ibma/datasets")
            if dataset.source == "twin" and name not in twins:
                raise _wrong("real: it has no twin", f"datasets.{name}.source", found="twin")
        for name, task in self.tasks.items():
            sets = [*self.datasets, *self.tables]
            _among(task.dataset, sets, f"tasks.{name}.dataset", "a name under datasets or tables")
        return self

    @model_validator(mode="after")
    def _tables_fit(self) -> Params:
        for name in self.tables:
            if name in self.datasets or name in _modules("datasets"):
                raise _wrong("another name: a data set is called so", f"tables.{name}", found=name)
        for name, task in self.tasks.items():
            if task.dataset not in self.tables:
                continue
            if task.options:
                expected = f"{{}}: tables.{task.dataset} says it all"
                raise _wrong(expected, f"tasks.{name}.options", found=task.options)
            known = self.tables[task.dataset].modalities
            for modality in [*task.encoders, *known]:
                key, what = f"tasks.{name}.encoders", f"the modalities of tables.{task.dataset}"
                _among(modality, known, key, what)
                _among(modality, task.encoders, key, what)
        return self

    @model_validator(mode="after")
    def _methods_are_known(self) -> Params:
        known, seen = _modules("methods"), set()
        for stage, methods in self.stages_of_methods().items():
            for name, entry in methods.items():
                if name in seen:
                    raise _wrong("each method in one block", stage, found=name)
                what = "the name of a file in src/ibma/methods"
                _among(entry.file, known, f"{stage}.{name}.method", what)
                seen.add(name)
        return self

    @model_validator(mode="after")
    def _baselines_read_no_eta(self) -> Params:
        """Refuse in `train` what reads eta: that stage does not run again when eta changes."""
        for name, entry in self.train.items():
            if entry.file in READ_ETA:
                expected = "a method that does not read eta: list this one under train_ibma"
                raise _wrong(expected, f"train.{name}", found=entry.file)
        return self

    @model_validator(mode="after")
    def _stages_name_tasks(self) -> Params:
        for key in ("sensitivity", "timing", "probe"):
            _among(getattr(self, key).task, self.tasks, f"{key}.task", "a name under tasks")
        for key in ("regimes", "noise"):
            for name in getattr(self, key).tasks:
                _among(name, self.tasks, f"{key}.tasks", "names under tasks")
        for task, modality in self.noise.tasks.items():
            encoders, key = self.tasks[task].encoders, f"noise.tasks.{task}"
            _among(modality, encoders, key, f"a modality of tasks.{task}.encoders")
        for task, modality in self.gradcam.tasks.items():
            _among(task, self.tasks, "gradcam.tasks", "names under tasks")
            encoders, key = self.tasks[task].encoders, f"gradcam.tasks.{task}"
            _among(modality, encoders, key, f"a modality of tasks.{task}.encoders")
            seeing = isinstance(encoders[modality], ResNetEncoder | ViTEncoder)
            if not seeing or isinstance(self.tasks[task].features.get(modality), SoundFeature):
                raise _wrong("a modality with pictures", key, found=modality)
        return self

    @model_validator(mode="after")
    def _stages_name_methods(self) -> Params:
        what = "methods of train, train_ibma, ablation or bounds"
        for key in ("sensitivity", "noise", "probe", "gradcam"):
            for name in getattr(self, key).methods:
                _among(name, self.methods, f"{key}.methods", what)
        _among(self.regimes.control, self.methods, "regimes.control", "a method of those blocks")
        ours = [name for name, entry in self.methods.items() if entry.file == "ibma"]
        for name in self.regimes.forms:
            _among(name, ours, "regimes.forms", "entries of method ibma, which have a phi")
        for name in self.keep_weights:
            _among(name, self.methods, "keep_weights", what)
        for key in ("probe", "gradcam"):
            for name in getattr(self, key).methods:
                if name not in self.keep_weights:
                    expected = f"'{name}' too, whose weights {key}.methods reads"
                    raise _wrong(expected, "keep_weights", found=self.keep_weights)
        return self


def _modules(folder: str) -> list[str]:
    """List the modules of a folder of this package without importing any."""
    return sorted(m.name for m in pkgutil.iter_modules([str(Path(__file__).parent / folder)]))


# --- file ----------------------------------------------------------------------------------------


def prepare() -> Params:
    """Load params.yaml and hold this process to its instructions and threads, before torch loads.

    Sums over pictures depend on the number of threads, in whatever stage they are made.
    """
    loaded = load()
    hold_to(loaded.instructions)
    os.environ["OMP_NUM_THREADS"] = str(loaded.cpu_threads)
    return loaded


def load(path: Path = Path("params.yaml")) -> Params:
    """Read and check a profile.

    Raises:
        IbmaError: a missing or broken file, an unknown or missing key, a wrong value; in one line
            that names the file, the key, what was expected and what was found.
    """
    return parse(_read(path), path)


def parse(values: object, path: Path) -> Params:
    """Check the content of a profile.

    Args:
        values: what the file holds, as plain Python values.
        path: the file, named in errors.

    Raises:
        IbmaError: as `load`.
    """
    if not isinstance(values, Mapping):
        raise IbmaError(f"{path}: expected a mapping of keys to values, found {_shown(values)}")
    try:
        return Params.model_validate(values)
    except ValidationError as caught:
        raise IbmaError(f"{path}: {_line(caught)}") from None


def check_arguments(
    function: Callable[..., object], values: Mapping[str, object], where: str
) -> None:
    """Check what params.yaml gives to a function against the types of its keyword arguments.

    Args:
        function: takes the values by name; a function with `**kwargs` takes any other name too.
        values: name -> value.
        where: the key of params.yaml that holds them.

    Raises:
        IbmaError: an argument that the function does not have, or a value of another type.
    """
    try:
        _arguments(function).model_validate(dict(values))
    except ValidationError as caught:
        raise IbmaError(f"params.yaml: {_line(caught, where)}") from None


@functools.cache
def _arguments(function: Callable[..., object]) -> type[Block]:
    """Make a model of the keyword arguments of a function."""
    parameters = inspect.signature(function).parameters.values()
    types = get_type_hints(function, include_extras=True)
    known: dict[str, Any] = {
        one.name: (types.get(one.name, Any), one.default)
        for one in parameters
        if one.kind is one.KEYWORD_ONLY
    }
    is_open = any(one.kind is one.VAR_KEYWORD for one in parameters)
    return create_model("Arguments", __base__=_Open if is_open else Block, **known)


class _Open(Block):
    """Known arguments among others."""

    model_config = ConfigDict(extra="allow")


def _read(path: Path) -> object:
    """Parse a YAML 1.2 file as DVC does."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        text = read_bytes(path, "put a profile in its place").decode()
        return YAML(typ="safe", pure=True).load(text)
    except FileNotFoundError:
        raise IbmaError(
            f"{path}: not found: run this in the repository, or `ibma profile twin`"
        ) from None
    except OSError as error:
        raise IbmaError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise IbmaError(f"{path}: not UTF-8 at byte {error.start}: save it as UTF-8") from None
    except (YAMLError, RecursionError, TypeError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else f"{path}"
        why = one_line(getattr(error, "problem", None) or error)
        raise IbmaError(f"{where}: not YAML: {why}: correct the file") from None


def _line(caught: ValidationError, *above: str) -> str:
    """Describe an error by key, expectation and value; a misspelt key comes before all others."""
    errors = caught.errors(include_url=False)
    error = next((one for one in errors if one["type"] == "unknown_key"), errors[0])
    context = error.get("ctx", {})
    below = [str(context["key"])] if context.get("key", "") != "" else []
    key = _dotted((*above, *error["loc"], *below))
    if error["type"] == "unknown_key":
        return f"unknown key '{key}' {context['hint']}"
    if error["type"] == "missing":
        return f"missing key '{key}': add it, see profiles/"
    said = error["msg"].removeprefix("Input should be ")
    expected = _EXPECTED.get(error["type"], said).format_map(context)
    return f"{key}: expected {expected}, found {_shown(context.get('found', error['input']))}"


_EXPECTED = {  # error type of pydantic -> what would be right, where it says that otherwise
    "wrong": "{expected}",
    "model_type": "a mapping",
    "dict_type": "a mapping",
    "list_type": "a list",
    "too_short": "one entry or more",
}


def _dotted(place: Iterable[object]) -> str:
    """Join a place as `dvc exp run -S` names it: `tune.grid.lr[0]`."""
    parts = []
    for part in place:
        if isinstance(part, int):
            parts.append(f"[{part}]")
        elif part != "[key]" and not str(part).startswith("<"):
            text = str(part)
            parts.append(f".{text if text.isprintable() else _shown(text)}")
    return "".join(parts).removeprefix(".")


def _shown(value: object) -> str:
    """Write a value in one short line, as YAML would read it."""
    if isinstance(value, Mapping | list):
        return reprlib.repr(value)  # which ends, however large or circular a container is
    try:
        text = json.dumps(value, default=str)
    except ValueError:  # an integer of thousands of digits
        return "a number too large to show"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


# --- schema --------------------------------------------------------------------------------------


class _Schema(GenerateJsonSchema):
    """A schema that says of mappings what the models do."""

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        """Ask for any kind of feature, where pydantic asks for exactly one: `{}` fits all."""
        made = super().tagged_union_schema(schema)
        return {"anyOf" if key == "oneOf" else key: value for key, value in made.items()}

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """Allow no key beside those of the pattern."""
        made = super().dict_schema(schema)
        return made | ({"additionalProperties": False} if "patternProperties" in made else {})


def schema() -> dict[str, Any]:
    """Return the JSON schema of params.yaml, for editors."""
    made = Params.model_json_schema(schema_generator=_Schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}
