"""Seconds are charged to the phase that needed them, also where a device does the work later than it was told to."""

from __future__ import annotations

import pytest
import torch

from hsd_cli.runtime.clock import PhaseClock


class Time:
    """Simulated seconds of the host, and of a device that works off what it is given in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host = self.device = 0.0
        time = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self, stream: object) -> None:
                self.at = time.device = max(time.device, time.host)

            def synchronize(self) -> None:
                time.host = max(time.host, self.at)

            def elapsed_time(self, later: Event) -> float:
                return 1000 * (later.at - self.at)

        monkeypatch.setattr("hsd_cli.runtime.clock.perf_counter", lambda: self.host)
        monkeypatch.setattr("torch.cuda.Event", Event)
        monkeypatch.setattr("torch.cuda.current_stream", lambda device: None)

    def queue(self, seconds: float, telling: float) -> None:
        self.host += telling
        self.device = max(self.device, self.host) + seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


def test_what_the_device_still_had_to_do_is_charged_to_the_phase_before(time: Time) -> None:
    clock = PhaseClock()
    with clock.phase("draft"):
        time.queue(8, telling=1)
    with clock.waited_for("verify", torch.device("cuda"), after="draft"):
        time.queue(4, telling=1)
    assert clock.seconds == {"draft": 9, "verify": 4}


def test_telling_counts_where_the_device_is_done_sooner(time: Time) -> None:
    clock = PhaseClock()
    with clock.phase("draft"):
        time.queue(0.5, telling=2)
    with clock.waited_for("verify", torch.device("cuda"), after="draft"):
        time.queue(1, telling=3)
    assert clock.seconds == {"draft": 2.5, "verify": 3.5}


def test_a_cpu_has_done_what_it_was_told(time: Time) -> None:
    clock = PhaseClock()
    with clock.phase("draft"):
        time.host += 3
    with clock.waited_for("verify", torch.device("cpu"), after="draft"):
        time.host += 2
    assert clock.seconds == {"draft": 3, "verify": 2}
