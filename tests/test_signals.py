"""A signal ends the work between two steps, and isn't lost where Python drops what it raises."""

import signal
import subprocess
import sys
import textwrap

import pytest

# What a handler raises within a callback is dropped.
START = """
import os, signal, sys, time, weakref
from shoal import signals

class Thing: pass

def stop(number=signal.SIGTERM):
    thing = Thing()
    reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), number))
    del thing

signals.install()
done = []
try:
"""
END = """
except KeyboardInterrupt:
    print(*done, flush=True)
    sys.exit(signals.landed())
"""


def ended(work: str, number: signal.Signals = signal.SIGTERM) -> list[str]:
    """What was done until the signal ended it."""
    program = START + textwrap.indent(textwrap.dedent(work), "    ") + END
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.stderr == ""
    assert run.returncode == 128 + number, run.stdout
    return run.stdout.split()


@pytest.mark.parametrize("send", ["stop()", "os.kill(os.getpid(), signal.SIGTERM)"])
def test_a_step_is_done_to_its_end(send: str) -> None:
    work = f"""
    for step in signals.stoppable(range(100)):
        if step == 3:
            {send}
        done.append(step)
    """
    assert ended(work) == ["0", "1", "2", "3"]


def test_the_last_step_counts_too() -> None:
    assert ended("for step in signals.stoppable(range(2)): step and stop()") == []


def test_a_step_that_takes_long_is_ended() -> None:
    work = """
    for step in signals.stoppable(range(2)):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1000)
    """
    assert ended(work) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_dropped_outside_of_steps_comes_again(number: signal.Signals) -> None:
    work = f"""
    stop({int(number)})
    done.append("went on")
    while True:
        time.sleep(0.01)
    """
    assert ended(work, number) == ["went", "on"]


def test_a_second_signal_ends_a_step_at_once() -> None:
    work = """
    signals._PATIENCE = 1000.0
    for step in signals.stoppable(range(2)):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            done.append("went on")
        time.sleep(1000)
    """
    assert ended(work, signal.SIGINT) == ["went", "on"]


def test_other_dropped_errors_are_printed_as_ever() -> None:
    program = START + "    class Bad:\n        def __del__(self): raise ValueError('mine')\n"
    program += "    Bad()\n    print('went on')\n" + END
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.stdout == "went on\n"
    assert "ValueError: mine" in run.stderr
