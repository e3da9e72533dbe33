"""Going on without the drafter: whatever becomes of it, the text is the target's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hsd_cli.drafting.protocol import Draft, Drafter
from hsd_cli.errors import naming_panics
from hsd_cli.runtime.lack_of_memory import naming_lack_of_memory


class DispensableDrafter:
    """``drafter`` until it fails or its memory is needed, from then on ``plain``.

    ``on_loss`` is told why. It may raise where that is not to be borne, and does so with the failure as its context.
    """

    def __init__(self, drafter: Drafter, plain: Drafter, on_loss: Callable[[Exception], None]) -> None:
        self.drafter = drafter
        self._plain = plain
        self._on_loss = on_loss

    def draft(self, text: Sequence[int], lookahead: int) -> Draft:
        try:
            with naming_lack_of_memory(), naming_panics():
                return self.drafter.draft(text, lookahead)
        except Exception as error:  # of a library, of the device: there is no telling
            self.lose(error)
        return self.drafter.draft(text, lookahead)

    def lose(self, error: Exception) -> bool:
        """Whether there was something to lose."""
        if self.drafter is self._plain:
            return False
        self._on_loss(error)
        self.drafter = self._plain
        return True
