"""The measurement of one setting: everybody's start, warm-up, and rounds of turns in an order that changes."""

import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from resnetlab.bench.peer import Peer, PeerFailed

__all__ = ["Measured", "measure", "order_of"]

START_SECONDS = 300.0  # until a peer must have imported its libraries


@dataclass
class Measured:
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
    peers: Sequence[Peer],
    rounds: int,
    seconds: float,
    deadline: float,
    tell: Callable[[Measured, str], None],
) -> Measured:
    """Rounds of turns of so many seconds each, as many as there is time for until the deadline (time.monotonic), but
    one at least: a warm-up may have taken it all.

    tell: called after each part with what there is so far. Ends the peers.
    """
    measured, ready, begun = Measured(), [], time.monotonic()
    with ExitStack() as stack:
        for peer in peers:
            stack.enter_context(peer)
        for peer in peers:
            if attempt(peer, measured, lambda peer=peer: begin(peer, measured, deadline)):  # type: ignore[misc]
                ready.append(peer)
        for peer in list(ready):
            tell(measured, f"warming up {' and '.join(peer.names)}")
            if not attempt(peer, measured, lambda peer=peer: warm_up(peer, measured, seconds, deadline)):  # type: ignore[misc]
                ready.remove(peer)
        longest = 0.0
        for number in range(rounds):
            start = time.monotonic()
            if not ready or (number > 0 and start + longest > deadline):
                break
            for peer in order_of(ready, number):
                if not attempt(peer, measured, lambda peer=peer: take_turn(peer, measured, seconds)):  # type: ignore[misc]
                    ready.remove(peer)
            longest = max(longest, time.monotonic() - start)
            measured.least = measured.least or time.monotonic() - begun
            tell(measured, f"round {number + 1} of {rounds}")
    return measured


def order_of(peers: Sequence[Peer], number: int) -> list[Peer]:
    """Everybody once, in an order of the round's own, so that nobody always follows the same one."""
    order = list(peers)
    random.Random(number).shuffle(order)
    return order


def attempt(peer: Peer, measured: Measured, do: Callable[[], None]) -> bool:
    """Whether it went well; if not, the peer is ended, and its rows are left out with the reason."""
    try:
        do()
    except PeerFailed as error:
        peer.end()
        reason, others = str(error), measured.facts.keys() - measured.failed.keys() - set(peer.names)
        if others and ("out of memory" in reason or "OOM" in reason):
            reason += f"; {', '.join(sorted(others))} held memory too"
        for name in peer.names:
            measured.failed[name] = reason
            measured.turns.pop(name, None)
        return False
    return True


def patience(deadline: float, least: float) -> float:
    return max(least, deadline - time.monotonic())


def begin(peer: Peer, measured: Measured, deadline: float) -> None:
    """Waits until it is ready, and stops it."""
    said = peer.hear(min(START_SECONDS, patience(deadline, 60.0)))
    peer.stop()
    for name in peer.names:
        measured.facts[name] = {key: value for key, value in said.items() if key != "ready"}


def warm_up(peer: Peer, measured: Measured, seconds: float, deadline: float) -> None:
    """The first step, in which things are compiled and chosen; where that took long, a second one; and half a turn,
    unless a step takes as long as that. None is counted."""
    start, half = time.monotonic(), seconds / 2
    # half of the time at most: the others want their rounds
    first = step_seconds(peer, patience((start + deadline) / 2, 120.0))
    if first <= half or step_seconds(peer, patience(deadline, 30.0)) <= half:
        peer.turn(patience(deadline, 30.0), seconds=half)
    for name in peer.names:
        measured.facts[name]["warm_up_seconds"] = time.monotonic() - start
        measured.facts[name]["first_step_seconds"] = first


def step_seconds(peer: Peer, most: float) -> float:
    start = time.monotonic()
    peer.turn(most, steps=1)
    return time.monotonic() - start


def take_turn(peer: Peer, measured: Measured, seconds: float) -> None:
    answer = peer.turn(60.0 + 5 * seconds, seconds=seconds)
    for name, grains in answer["grains"].items():
        measured.turns.setdefault(name, []).append(grains)
        measured.facts[name] |= {"peak_mib": answer["peak_mib"].get(name), "loss": answer["losses"].get(name)}
    measured.between_epochs.setdefault(peer.names[-1], []).extend(answer["between_epochs"])
