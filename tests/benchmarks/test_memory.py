"""Peaks of resident memory."""

from __future__ import annotations

import sys

import pytest

from tests.benchmarks.memory import Meter

MIB = 1 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process its peak in /proc")
def test_what_steps_hold_counts_and_what_was_given_back_before_does_not():
    meter = Meter()
    compiling = bytearray(200 * MIB)
    del compiling
    held = bytearray(30 * MIB)
    meter.steps_begin()
    step = bytearray(50 * MIB)
    del step
    found = meter.memory()
    assert len(held) == 30 * MIB
    assert found.process >= 230 * MIB
    if found.exact:
        # Garbage of the tests before may be collected meanwhile; 200 MiB more would be those of compiling.
        assert 75 * MIB < found.training < 130 * MIB


def test_where_the_peak_cannot_be_reset_it_says_so(tmp_path):
    def tell(resident, peak):
        (tmp_path / "status").write_text(f"Name:\tx\nVmHWM:\t {peak} kB\nVmRSS:\t {resident} kB\n")

    (tmp_path / "clear_refs").mkdir()  # which nobody can write to
    tell(100, 120)
    meter = Meter(tmp_path)
    tell(300, 900)
    meter.steps_begin()
    found = meter.memory()
    assert found.as_json() == {"process": 900 * 1024, "training": 800 * 1024, "exact": False}


def test_where_the_peak_can_be_reset_the_earlier_one_stays_that_of_the_process(tmp_path):
    def tell(resident, peak):
        (tmp_path / "status").write_text(f"VmHWM: {peak} kB\nVmRSS: {resident} kB\n")

    tell(100, 120)
    meter = Meter(tmp_path)
    tell(300, 900)
    meter.steps_begin()
    assert (tmp_path / "clear_refs").read_text() == "5"
    tell(310, 400)
    assert meter.memory().as_json() == {"process": 900 * 1024, "training": 300 * 1024, "exact": True}
