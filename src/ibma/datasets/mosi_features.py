"""Read CMU-MOSI as open features: transcripts and openSMILE vectors on the standard split.

Files: see `ibma.formats.mosi`. The split is by video (`standard_{train,valid,test}_fold` of
CMU-MultiComp-Lab/CMU-MultimodalSDK@4f2eadc): 1,284, 229 and 686 utterances.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ibma.datasets import Card, Counts, Dropped, Part, Remote, Sample
from ibma.errors import IbmaError
from ibma.formats import mosi

FOLDS = {  # video ids
    "train": """
        2iD-tVS8NPw 8d-gEyoeBzc Qr1Ca94K55A Ci-AH39fi3Y 8qrpnFRGt2A Bfr499ggo-0
        QN9ZIUWUXsY 9T9Hf74oK10 7JsX8y1ysxY 1iG0909rllw Oz06ZWiO20M BioHAh1qJAQ
        9c67fiY0wGQ Iu2PFX3z_1s Nzq88NnDkEk Clx4VXItLTE 9J25DZhivz8 Af8D0E4ZXaw
        TvyZBvOMOTc W8NXH0Djyww 8OtFthrtaJM 0h-zjBukYpk Vj1wYRQjB-o GWuJjcEuzt8
        BI97DNYfe5I PZ-lDQFboO8 1DmNV9C1hbY OQvJTdtJ2H4 I5y0__X72p0 9qR7uwkblbs
        G6GlGvlkxAQ 6_0THN4chvY Njd1F0vZSm4 BvYR0L6f2Ig 03bSnISJMiM Dg_0XKD0Mf4
        5W7Z1C_fDaE VbQk4H8hgr0 G-xst2euQUc MLal-t_vJPM BXuRRbG0Ugk LSi-o-IrDMs
        Jkswaaud0hk 2WGyTLYerpo 6Egk_28TtTM Sqr0AcuoNnk POKffnXeBds 73jzhE8R1TQ
        OtBXNcAL_lE HEsqda8_d0Q VCslbP0mgZI IumbAb8q2dM
    """,
    "valid": """
        WKA5OygbEKI c5xsKMxpXnc atnd_PF-Lbs bvLlb-M3UXU bOL9jKpeJRs _dI--eQ6qVU
        ZAIRrfG22O0 X3j2zQgwYgE aiEXnCPZubE ZUXBRvtny7o
    """,
    "test": """
        tmZoasNr4rU zhpQhgha_KU lXPQBPVc5Cw iiK8YX8oH1E tStelxIAHjw nzpVDcQ0ywM
        etzxEpPuc6I cW1FSBF59ik d6hH302o4v8 k5Y_838nuGo pLTX3ipuDJI jUzDDGyPkXU
        f_pcplsH_V0 yvsjCA6Y5Fc nbWiPyCm4g0 rnaNMUZpvvg wMbj6ajWbic cM3Yna7AavY
        yDtzw_Y-7RU vyB00TXsimI dq3Nf_lMPnE phBUpBr1hSo d3_k5Xpfmik v0zCBqDeKcE
        tIrG4oNLFzE fvVhgmXxadc ob23OKe5a9Q cXypl4FnoZo vvZ4IcEtiZc f9O3YtZ2VfI
        c7UH_rxdZv4
    """,
}
SPLITS = {video: split for split, videos in FOLDS.items() for video in videos.split()}

CARD = Card(
    title="CMU-MOSI (open features)",
    kind="sentiment",
    classes=("-3", "-2", "-1", "0", "1", "2", "3"),
    modalities={"text": "text", "audio": "vector"},
    licence="no agreement found; opinion videos from YouTube, research use",
    access="open",
    raw_gb=0.005,
    official=Counts(1284, 686, valid=229),
    cite="A. Zadeh et al., MOSI: Multimodal corpus of sentiment intensity and subjectivity "
    "analysis in online opinion videos, arXiv 1606.06259.",
    how_to_get="fetched from GitHub (5 MB), or from IBMA_MIRROR",
    notes=(
        "Not the paper's CMU-MOSI, which reads sound and pictures (data set `mosi`): here sound is "
        "73 openSMILE numbers per utterance, and there are no pictures.",
        "Table 1 counts 1,281 training and 685 test clips, those of one published file; the "
        "standard split has 1,284, 229 (validation, not trained on) and 686.",
        "The video features are left out because of a leak. The repository has 100 numbers per "
        "utterance from a 3D-CNN, and 100 from a text-CNN. Both networks were trained on the "
        "labels of 1,447 utterances, which include most test videos of the standard split. So test "
        "scores would be falsely high (.85 and more). Sound and words are made without labels. "
        "Data set `mosi_features3` has the video, on a split without this leak.",
    ),
)
FILES = tuple(Remote(*file) for file in mosi.FILES)


def samples(raw: Path, *, on_bad: str = "stop") -> Iterator[Sample | Dropped]:
    """Walk the utterances; text = the words (upper case), audio = [73], group = video.

    Nothing is ever dropped: the files were checked by sha256, and what contradicts them stops.

    Raises:
        IbmaError: As `mosi.utterances`; a video is in no fold of the standard split.
    """
    for said in mosi.utterances(raw, ("audio",)):
        if said.video not in SPLITS:
            raise IbmaError(
                f"{raw / mosi.TRANSCRIPTS}: video '{said.video}' is in no fold of the "
                "standard split: delete the file and fetch it again"
            )
        parts: dict[str, Part] = {"text": said.words, "audio": said.vectors["audio"]}
        yield Sample(said.id, SPLITS[said.video], said.video, said.score, parts)
