"""Seconds per epoch: every method the same rounds in turn, warm-up not counted."""

from ibma.experiments import timing
from ibma.training.loop import Setting


def test_methods_take_turns_and_the_warm_up_is_not_counted(make_cell, monkeypatch, capsys):
    cells = {name: make_cell(method=name) for name in ("concat", "ibma")}
    order = []
    run = timing.Fit.run
    monkeypatch.setattr(
        timing.Fit, "run", lambda fit, label: (order.append(label), run(fit, label))
    )
    setting = Setting(1e-3, 0.0, 0.5)
    found = timing.seconds(cells, dict.fromkeys(cells, setting), 2)
    assert [label.split()[1] for label in order] == ["concat", "ibma"] * 3
    assert "timing: 6 of 6, " in capsys.readouterr().err
    for method in cells:
        entry = timing.summary(found[method])
        assert len(entry["seconds"]) == 2
        assert 0 < entry["low"] <= entry["median"] <= entry["high"]
