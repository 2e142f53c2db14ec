"""The benchmark harness: its arithmetic, its table, and that it compares equal things."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import peers, seeds, stage, terms
from benchmarks.__main__ import CPU, GPU, PAGE
from benchmarks.gpu import lines, measures
from benchmarks.gpu.__main__ import take
from benchmarks.gpu.session import Session
from benchmarks.growth import Curve
from benchmarks.measure import (
    END,
    Goal,
    Row,
    Spread,
    interleaved,
    peak_bytes,
    ratio,
    rewrite,
    slope,
    table,
)
from benchmarks.problems import Problem, View
from ibma import params
from ibma.errors import IbmaError
from ibma.network import bounds
from ibma.network.centroids import Assignment

ROOT = Path(__file__).parents[1]


def test_a_ratio_is_taken_round_by_round():
    slow_machine = [2.0, 4.0, 200.0]
    assert ratio(slow_machine, [1.0, 2.0, 100.0]) == Spread(2.0, 2.0, 2.0)
    assert ratio([1.02, 1.04], [1.0, 1.0], less=1.0).median == pytest.approx(0.03)


def test_rounds_alternate_their_order_and_the_first_is_not_counted():
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "ab"}
    times = interleaved(functions, 2)
    assert "".join(calls) == "ba" + "ab" + "ba"
    assert {name: len(column) for name, column in times.items()} == {"a": 2, "b": 2}


def test_a_goal_is_judged_by_the_median():
    spread = Spread(0.5, 0.91, 2.0)
    row = Row("epoch", "1 s", "limit 1 s", spread, "share", Goal("at least", 0.9))
    assert row.cells()[-3:] == ["50.00 % to 200.00 %", "at least 90.00 %", "met"]
    assert not Goal("at most", 0.9).met(spread.median)
    lines = table([row, Row("no goal", "1", "1", Spread.exactly(1.0))]).splitlines()
    assert len(lines) == 4 and len({len(line) for line in lines}) == 1


def test_an_exponent_is_the_slope_of_logarithms_round_by_round():
    sizes = (10, 20, 40)
    assert slope(sizes, [3.0 * n**2 for n in sizes]) == pytest.approx(2.0)
    rounds = [[n * speed for speed in (1.0, 5.0)] for n in sizes]
    assert Curve("samples", "linear", sizes, rounds).exponents().median == pytest.approx(1.0)


def test_peak_memory_is_that_of_the_tensors():
    def run() -> None:
        a = torch.zeros(2**20)
        del a
        torch.zeros(2**21)

    assert peak_bytes(run) == pytest.approx(4 * 2**21, rel=0.01)


def test_only_what_stands_between_the_marks_is_rewritten(tmp_path):
    page, other = tmp_path / "page.md", f"between\n{GPU}\nold\n{END}\nbelow\n"
    page.write_text(f"above\n{CPU}\nold\n{END}\n{other}")
    for _ in range(2):
        rewrite(page, CPU, "new")
        assert page.read_text() == f"above\n{CPU}\n\nnew\n\n{END}\n{other}"
    text = PAGE.read_text(encoding="utf-8")
    assert [text.count(mark) for mark in (CPU, GPU, END)] == [1, 1, 2]


@pytest.mark.parametrize(
    "view", [View("vector", (7,), "float32", {}), View("frames", (3, 3, 4, 4), "uint8", {})]
)
def test_the_loops_and_the_stage_give_the_same_phi(view):
    systems = np.eye(2, dtype=np.float32)[np.random.default_rng(0).integers(0, 2, (40, 5))]
    features = Problem({"x": view}, 40, 1).features()
    looped = stage.loops(view.kind, features.arrays["x"], systems)
    np.testing.assert_allclose(stage.ours(features, "x", systems), looped, rtol=1e-5)


def test_v_is_the_same_in_both_forms():
    inputs = terms.assignments(8, 5)
    torch.testing.assert_close(bounds.v_term(*inputs), terms.v_as_written(*inputs))


@pytest.mark.slow
def test_a_batched_model_trains_every_seed_as_alone():
    torch.set_num_threads(1)
    alone, together = seeds.in_turn(range(2)), seeds.batched(range(2))
    assert len(set(alone)) == 2
    assert together == pytest.approx(alone, rel=1e-5)


# --- the measures of a GPU -----------------------------------------------------------------------

LACKING = ("dvc", "mlflow", "faiss", "av", "pydantic", "ruamel", "pooch", "submitit", "ray")


@pytest.mark.slow
def test_every_gpu_measure_runs_on_a_machine_that_lacks_packages(tmp_path):
    out, bare = tmp_path / "gpu.jsonl", tmp_path / "bare"
    bare.mkdir()  # what it holds is run by every process that a measure starts, too
    lacks = f"import sys\nsys.modules.update(dict.fromkeys({LACKING!r}))\n"
    (bare / "sitecustomize.py").write_text(lacks)
    paths = os.pathsep.join([str(bare), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    options = ["--device", "cpu", "--tiny", "--budget", "600", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *options],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    written = lines.read(out)
    skipped = {line["measure"]: line["skipped"] for line in written if "skipped" in line}
    compiled = {f"compiled {task}" for task in ("crema_d", "mimic_cxr")}
    assert skipped == {"faiss": "no package faiss"} | dict.fromkeys(
        compiled, "takes a minute: on a GPU only"
    )
    assert {"machine", "epoch", "limit", "ibb", "refresh", "short epoch", "claim", "club"} < {
        line["measure"] for line in written
    }
    timed = {line["method"]: line for line in written if line["measure"] == "short epoch"}
    assert set(timed) == set(measures.TIMED)
    for line in written:
        assert line["device"] and line["torch"] and line["precision"] == "float32"
        assert "label" not in line or line["ratio"] == sorted(line["ratio"])
    assert next(line for line in written if line["measure"] == "tests")["counts"]["tests"] > 50
    page = lines.render([written])
    assert "epoch of CREMA-D, ibma" in page and "- faiss: no package faiss" in page


def test_the_gpu_benchmark_knows_the_methods_of_profile_paper():
    methods = params.load(ROOT / "profiles" / "paper.yaml").methods_of("crema_d")
    joint = {name: (one.file, one.hparams) for name, one in methods.items()}
    assert {n: one for n, one in joint.items() if one[0] != "unimodal"} == measures.METHODS


def test_nothing_is_started_that_would_not_fit_and_a_failure_costs_one_line(tmp_path, capsys):
    started = []

    def absent(session: Session) -> None:
        import there_is_no_such_package  # noqa: F401

    def wrong(session: Session) -> None:
        raise ValueError("of\nmany lines")

    def slow(session: Session) -> None:
        started.append("slow")
        session.started -= 60.0  # as if it had taken a minute

    kinds = {"absent": (1, absent), "wrong": (1, wrong), "long": (101, slow), "slow": (40, slow)}
    chosen = [measures.Measure(name, *one) for name, one in (*kinds.items(), ("slow", (40, slow)))]
    out = tmp_path / "gpu.jsonl"
    clock = time.monotonic()
    take(Session(torch.device("cpu"), True, tmp_path, out, 100.0, clock), chosen)
    reasons = [line["skipped"] for line in lines.read(out)]
    assert reasons[:2] == ["no package there_is_no_such_package", "failed: of many lines"]
    assert reasons[2].startswith("needs about 101 s")
    assert reasons[3].startswith("needs about 60 s")  # the last took half as long again as expected
    assert started == ["slow"] and "ValueError" in capsys.readouterr().err


def test_a_record_is_judged_by_the_goals_and_a_torn_line_is_left_out(tmp_path):
    machine = {"date": "d", "device": "NVIDIA H100", "driver": "5", "torch": "2", "cuda": "13"}
    known = {**machine, "transformers": "5", "tiny": False, "task": "crema_d"}
    shown = [
        lines.of("epoch", Row("epoch", "1.9 s", "120 s", Spread.exactly(63.0)), known),
        lines.of("limit", Row("limit", "1.9 s", "1.6 s", Spread.exactly(0.8), "share"), known),
        {"measure": "faiss", "skipped": "no package faiss", **known},
    ]
    path = tmp_path / "gpu.jsonl"
    text = "\n".join(map(json.dumps, shown))
    path.write_text(text + '\n{"measure": "epo', encoding="utf-8")
    assert lines.read(path) == shown
    older = [
        lines.of("epoch", Row(name, "", "", Spread.exactly(9.0)), known)
        for name in ("epoch", "old")
    ]
    rendered = lines.render([shown, older])
    assert "d, NVIDIA H100, driver 5, torch 2, CUDA 13, transformers 5." in rendered
    assert "| epoch " in rendered and "9 x" not in rendered.split("| old ")[0]
    assert [row.cells()[-1] for row in map(lines.row_of, shown[:2])] == ["met", "NOT met"]
    assert lines.row_of({**shown[0], "tiny": True}).cells()[-1] == ""


def test_centroids_on_the_device_give_the_phi_of_the_stage():
    problem = measures.clips(tiny=True)
    features, systems = problem.features(), problem.one_hot()
    x = features.on(torch.device("cpu")).x
    kinds = {name: view.kind for name, view in problem.views.items()}
    phi = measures.by_torch(x, kinds, torch.from_numpy(systems), Assignment())
    for name in problem.views:
        expected = stage.ours(features, name, systems)
        np.testing.assert_allclose(phi[name], expected, rtol=1e-4, err_msg=name)


# --- beside published implementations ------------------------------------------------------------


def test_code_of_peers_is_asked_for_by_repository_and_commit(tmp_path):
    with pytest.raises(IbmaError) as caught:
        peers.MISA.folder(tmp_path)
    place = tmp_path / "MISA"
    fetch = f"git clone https://github.com/declare-lab/MISA {place}"
    assert str(caught.value).endswith(f"missing: {fetch} && git -C {place} checkout ec42fad")
    subprocess.run(["git", "init", "-q", str(place)], check=True)
    with pytest.raises(IbmaError, match="git -C .* checkout ec42fad"):
        peers.MISA.folder(tmp_path)
    page = (ROOT / "benchmarks" / "peers.md").read_text(encoding="utf-8")
    for peer in (peers.MISA, peers.MIB, peers.AUTHORS, peers.CLUB):
        assert f"git clone https://github.com/{peer.repository} peers/{peer.name}\n" in page
        assert f"git -C peers/{peer.name} checkout {peer.commit}\n" in page


def test_modules_of_a_peer_do_not_stay(tmp_path):
    (tmp_path / "models.py").write_text("import absent\nfrom helper import VALUE\n")
    (tmp_path / "helper.py").write_text("VALUE = 3\n")
    before = dict(sys.modules)
    stand_ins = {"absent": peers.Anything("absent"), "ibma__errors": peers.Anything("errors")}
    with peers.modules_of(tmp_path, **stand_ins):
        from models import VALUE

        assert issubclass(sys.modules["absent"].Model, torch.nn.Module)
    assert VALUE == 3 and str(tmp_path) not in sys.path
    assert not {"models", "helper", "absent"} & set(sys.modules)
    assert before.items() <= sys.modules.items()


def test_our_side_of_a_comparison_trains_without_encoders():
    for method, kind, hparams in (
        ("misa", "classify", {}),
        ("mib_e", "sentiment", {"fusion": "concat"}),
    ):
        peers.our_step(method, kind, **hparams)()
