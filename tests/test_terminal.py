"""What people see while they wait: the time that is left, one bar for all trainers, lines as wide as the terminal."""

from __future__ import annotations

import contextlib
import io
import os

import pytest

from monai_cae import terminal
from monai_cae.terminal import Overall, duration, progress_bar, say


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [1000.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def screen(monkeypatch):
    """screen(): what is written from there on, as to a terminal of 80 columns; pytest has its own between phases."""

    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    def shown() -> Screen:
        written = Screen()
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(f"sys.{name}", written)
        monkeypatch.setattr("shutil.get_terminal_size", lambda *_: os.terminal_size((80, 20)))
        return written

    return shown


def test_what_is_left_follows_from_the_steps_of_the_same_kind(clock):
    overall = Overall(["pretrain", "network", "pretrain", "network"])
    with overall.shown():
        overall.start("repeat 1, pretrain")
        assert overall.left(0.0) == 0  # nothing is known yet
        clock[0] += 20
        # a quarter in 20 s: 60 s more, and every other step as long as this one
        assert overall.left(0.25) == pytest.approx(60 + 3 * 80)
        clock[0] += 20
        overall.end()
        overall.start("repeat 1, network")
        clock[0] += 5
        # half in 5 s: 5 s more; then a pretraining of 40 s, as the last one, and another network of 10 s
        assert overall.left(0.5) == pytest.approx(5 + 40 + 10)
        clock[0] += 7
        overall.end()
        overall.start("repeat 2, pretrain")
        clock[0] += 100  # longer than the last one: what follows is left
        assert overall.left(0.9) == pytest.approx(12)


def test_trainers_move_the_bar_of_the_experiment_and_have_none_of_their_own(clock, screen):
    written, overall = screen(), Overall(["network"])
    with overall.shown():
        overall.start("repeat 1, network")
        bar = progress_bar("fine-tuning", 4, "epoch")
        clock[0] += 30
        bar.set_postfix({"val_loss": "0.5"}, refresh=False)
        bar.update(1)
        bar.close()
    shown = written.getvalue()
    assert "1/1 repeat 1, network: fine-tuning" in shown and "about 90 s left" in shown and "epoch/s" not in shown
    own = progress_bar("autoencoder", 4, "epoch")  # outside of an experiment
    own.update(1)
    own.close()
    assert "autoencoder" in written.getvalue()


def test_lines_are_as_wide_as_the_terminal_and_whole_in_a_file(screen, monkeypatch):
    written = screen()
    text = "note: " + " ".join(["word"] * 20) + " /a/path/that/is/longer/than/the/terminal/is/wide.csv"
    say(text)
    lines = written.getvalue().splitlines()
    assert len(lines) == 3 and max(map(len, lines)) <= 80
    assert lines[1].startswith("    word") and lines[2].strip() == text.rpartition(" ")[2]
    file = io.StringIO()
    monkeypatch.setattr("sys.stdout", file)
    say(text)
    assert file.getvalue() == text + "\n"


def test_a_log_says_which_step_runs_without_waiting_for_its_end(clock, monkeypatch):
    class Log(io.StringIO):
        seen = ""

        def flush(self) -> None:
            self.seen = self.getvalue()  # what somebody who follows the file sees

    log = Log()
    monkeypatch.setattr("sys.stdout", log)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    overall = Overall(["network", "network"])
    with overall.shown():
        overall.start("repeat 1, network")
        assert log.seen == "  step 1 of 2: repeat 1, network\n"
        clock[0] += 40
        overall.end()
        overall.start("repeat 2, network")
        assert log.seen.splitlines()[-1] == "  step 2 of 2: repeat 2, network, about 40 s left"


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in an experiment"])
def test_a_log_gets_a_line_a_minute_of_a_long_training(clock, monkeypatch, inside):
    monkeypatch.setattr("sys.stdout", io.StringIO())
    monkeypatch.setattr("sys.stderr", log := io.StringIO())
    overall, before = Overall(["network"]), ""
    with overall.shown() if inside else contextlib.nullcontext():
        if inside:
            overall.start("repeat 1, network")
            before = "repeat 1, network: "
        bar = progress_bar("autoencoder", 10, "epoch", initial=2)
        for _ in range(4):
            clock[0] += 40
            bar.set_postfix({"val_psnr": "26.4"}, refresh=False)
            bar.update(1)
        bar.close()
    assert log.getvalue().splitlines() == [
        f"  {before}autoencoder: 4 of 10 epochs, val_psnr=26.4, about 4 min left",
        f"  {before}autoencoder: 6 of 10 epochs, val_psnr=26.4, about 3 min left",
    ]


def test_a_log_tells_how_fast_scans_are_predicted(clock, monkeypatch):
    monkeypatch.setattr("sys.stderr", log := io.StringIO())
    bar = progress_bar("predictions", 1000, "scan")
    for _ in range(2):
        clock[0] += 30
        bar.update(150)
    assert log.getvalue() == "  predictions: 300 of 1000 scans, 5.0 per second, about 2 min left\n"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7000, "117 min"), (9000, "2.5 h")]
)
def test_durations_are_in_the_unit_that_people_would_use(seconds, said):
    assert duration(seconds) == said
