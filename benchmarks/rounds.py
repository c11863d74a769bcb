"""Measure one setting: everybody's start, warm-up, and rounds of turns in an order that changes."""

import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks.process import PeerFailed, PeerProcess

START_SECONDS = 300.0  # until a peer must have imported its libraries


@dataclass
class Measurements:
    """What the peers of a setting have answered.

    turns: {name: [grains of round 0, of round 1, ...]}, a grain being [images, seconds]; facts: {name: {...}}; failed:
    {name: why it has no row}.
    """

    turns: dict[str, list[list[list[float]]]] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    between_epochs: dict[str, list[float]] = field(default_factory=dict)
    least: float = 0.0  # seconds for start, warm-up and one round: what such a setting takes at least

    @property
    def rounds(self) -> int:
        return max(map(len, self.turns.values()), default=0)


def measure(
    peers: Sequence[PeerProcess],
    rounds: int,
    seconds: float,
    deadline: float,
    report: Callable[[Measurements, str], None],
) -> Measurements:
    """Rounds of turns of so many seconds each, as many as there is time for until the deadline (time.monotonic), but
    one at least: a warm-up may have taken it all.

    report: called after each part with what there is so far. Ends the peers.
    """
    found, began, longest = Measurements(), time.monotonic(), 0.0
    with ExitStack() as stack:
        ready = [stack.enter_context(peer) for peer in peers]
        ready = [peer for peer in ready if attempt(peer, found, partial(wait_for_start, deadline=deadline))]
        for peer in list(ready):
            report(found, f"warming up {' and '.join(peer.names)}")
            if not attempt(peer, found, partial(warm_up, seconds=seconds, deadline=deadline)):
                ready.remove(peer)
        for number in range(rounds):
            start = time.monotonic()
            if not ready or (number > 0 and start + longest > deadline):
                break
            ready = [
                peer for peer in order_of(ready, number) if attempt(peer, found, partial(take_turn, seconds=seconds))
            ]
            longest = max(longest, time.monotonic() - start)
            found.least = found.least or time.monotonic() - began
            report(found, f"round {number + 1} of {rounds}")
    return found


def order_of(peers: Sequence[PeerProcess], number: int) -> list[PeerProcess]:
    """Everybody once, in an order of the round's own, so that nobody always follows the same one."""
    order = sorted(peers, key=lambda peer: peer.names)
    random.Random(number).shuffle(order)
    return order


def attempt(peer: PeerProcess, found: Measurements, action: Callable[[PeerProcess, Measurements], None]) -> bool:
    """Whether it went well; if not, the peer is ended, and its rows are left out with the reason."""
    try:
        action(peer, found)
    except PeerFailed as error:
        peer.end()
        for name in peer.names:
            found.failed[name] = str(error)
            found.turns.pop(name, None)
        return False
    return True


def seconds_until(deadline: float, least: float) -> float:
    return max(least, deadline - time.monotonic())


def wait_for_start(peer: PeerProcess, found: Measurements, deadline: float) -> None:
    answer = peer.read(min(START_SECONDS, seconds_until(deadline, 60.0)))
    for name in peer.names:
        found.facts[name] = {key: value for key, value in answer.items() if key != "ready"}


def warm_up(peer: PeerProcess, found: Measurements, seconds: float, deadline: float) -> None:
    """The first step, in which things are compiled and chosen; where that took long, a second one; and half a turn,
    unless a step takes as long as that. None is counted."""
    start, half = time.monotonic(), seconds / 2
    # half of the time at most: the others want their rounds
    first = step_seconds(peer, seconds_until((start + deadline) / 2, 120.0))
    if first <= half or step_seconds(peer, seconds_until(deadline, 30.0)) <= half:
        peer.turn(seconds_until(deadline, 30.0), seconds=half)
    for name in peer.names:
        found.facts[name] |= {"warm_up_seconds": time.monotonic() - start, "first_step_seconds": first}


def step_seconds(peer: PeerProcess, timeout: float) -> float:
    start = time.monotonic()
    peer.turn(timeout, steps=1)
    return time.monotonic() - start


def take_turn(peer: PeerProcess, found: Measurements, seconds: float) -> None:
    answer = peer.turn(60.0 + 5 * seconds, seconds=seconds)
    for name, grains in answer["grains"].items():
        found.turns.setdefault(name, []).append(grains)
        found.facts[name] |= {"peak_mib": answer["peak_mib"].get(name), "loss": answer["losses"].get(name)}
    found.between_epochs.setdefault(peer.names[-1], []).extend(answer["between_epochs"])
