"""Port binding: the recursion over drivers and levels (one level and several levels are the same code)."""

from collections.abc import Callable, Sequence

import msgspec

from nacre.network.ml2.driver_api import Bound, Continue, MechanismDriver, Outcome, PortBinding, Segment, Segments

#: As in Neutron: deeper than this no fabric is; it stops drivers that hand segments to one another forever.
MAX_LEVELS = 10


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a binding, top first: which driver took which segment."""

    level: int
    driver: str
    segment: Segment


class Binding(msgspec.Struct, frozen=True, kw_only=True):
    """A finished binding: its levels from the top, and how the host plugs the port."""

    levels: tuple[Level, ...]
    bound: Bound


Crashed = Callable[[str, Exception], None]


def bind(port: PortBinding, segments: Sequence[Segment], drivers: Sequence[MechanismDriver], dynamic: Segments,
         crashed: Crashed | None = None) -> Binding | None:
    """The binding of `port`, or None where no order of drivers completes one.

    drivers: in the configured order. dynamic: where drivers get segments of their own; what a driver allocated is
    released when the levels below it do not complete. crashed: told of drivers that raised (they count as a refusal).
    """
    return _Binder(port, drivers, dynamic, crashed).level(segments, ())


class _Binder:
    def __init__(self, port: PortBinding, drivers: Sequence[MechanismDriver], dynamic: Segments,
                 crashed: Crashed | None):
        self._port, self._drivers, self._dynamic, self._crashed = port, drivers, dynamic, crashed

    def level(self, segments: Sequence[Segment], above: tuple[Level, ...]) -> Binding | None:
        if len(above) >= MAX_LEVELS:
            return None
        offered = {s.id for s in segments}
        for driver in self._drivers:
            # A driver that holds one of these segments at a higher level would only go round in a circle.
            if any(lv.driver == driver.name and lv.segment.id in offered for lv in above):
                continue
            outcome, made = self._ask(driver, segments)
            if outcome is None or outcome.segment.id not in offered:
                self._release(made)
                continue
            levels = (*above, Level(level=len(above), driver=driver.name, segment=outcome.segment))
            if isinstance(outcome, Bound):
                return Binding(levels=levels, bound=outcome)
            if isinstance(outcome, Continue) and outcome.below and (done := self.level(outcome.below, levels)):
                return done
            self._release(made)
        return None

    def _ask(self, driver: MechanismDriver, segments: Sequence[Segment]) -> tuple[Outcome, list[Segment]]:
        ledger = _Ledger(self._dynamic)
        try:
            return driver.bind(self._port, segments, ledger), ledger.made
        except Exception as error:
            if self._crashed:
                self._crashed(driver.name, error)
            return None, ledger.made

    def _release(self, made: list[Segment]) -> None:
        for segment in reversed(made):
            self._dynamic.release(segment)


class _Ledger:
    """Writes down what one driver's call allocated, so that a failure below can give it back."""

    def __init__(self, inner: Segments):
        self._inner, self.made = inner, list[Segment]()

    def allocate(self, network_id: str, network_type: str, physical_network: str) -> Segment:
        segment = self._inner.allocate(network_id, network_type, physical_network)
        self.made.append(segment)
        return segment

    def release(self, segment: Segment) -> None:
        self._inner.release(segment)
