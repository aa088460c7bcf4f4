"""Which of a resource's `ListAndWatch` streams are open, and how many ever were."""

import attrs


@attrs.frozen
class Streams:
    """The streams of one life of a resource; each is a token that equals itself only."""

    open: frozenset[object] = frozenset()
    opened: int = 0
    """All that were opened so far: one that ended before anybody looked was there all the same."""

    def with_new(self, stream: object) -> "Streams":
        """One more is open."""
        return Streams(self.open | {stream}, self.opened + 1)

    def without(self, stream: object) -> "Streams":
        """One has ended."""
        return Streams(self.open - {stream}, self.opened)

    def since(self, before: "Streams") -> "Streams":
        """Those that are not of `before`."""
        return Streams(self.open - before.open, self.opened - before.opened)

    @property
    def one_ended(self) -> bool:
        """Whether one of them has ended."""
        return len(self.open) < self.opened
