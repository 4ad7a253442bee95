"""Six customer reviews, and what two small tools make of them. English only, as the founding incident had it."""

from __future__ import annotations

import re
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["NO_RESULT", "REVIEWS", "Review", "Workbench", "classify", "sentiment"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What a customer wrote."""

    id: str
    language: str
    text: str


REVIEWS = (
    Review(id="R1", language="English", text="The parcel came two weeks late and nobody told me."),
    Review(id="R2", language="English", text="I was charged twice and the refund is still missing."),
    Review(id="R3", language="Polish", text="Pokrywka pękła przy pierwszym otwarciu, a sklep milczy od tygodnia."),
    Review(id="R4", language="English", text="Lovely kettle, boils fast and looks great on the shelf."),
    Review(id="R5", language="English", text="Support answered within minutes and solved everything. Great!"),
    Review(id="R6", language="English", text="The handle broke on day three. Poor quality."),
)

NO_RESULT = "no result"
"""What the classifier says when it has nothing to say. It does not raise: that is what the agent trips over."""

# The first topic one of whose words occurs wins.
_TOPICS: Mapping[str, frozenset[str]] = {
    "delivery": frozenset({"parcel", "late", "delivery", "shipping"}),
    "billing": frozenset({"charged", "refund", "invoice", "price"}),
    "service": frozenset({"support", "answered", "solved", "staff"}),
    "product": frozenset({"kettle", "handle", "lid", "quality", "broke"}),
}
_GOOD = frozenset({"lovely", "great", "fast", "solved"})
_BAD = frozenset({"late", "nobody", "twice", "missing", "broke", "poor"})


def classify(text: str) -> str:
    """The topic of an English review; `NO_RESULT` if it knows none of the words."""
    words = _words(text)
    return next((topic for topic, known in _TOPICS.items() if words & known), NO_RESULT)


def sentiment(text: str) -> str:
    """`positive`, `negative` or `neutral`, by counting words."""
    words = _words(text)
    balance = len(words & _GOOD) - len(words & _BAD)
    return "neutral" if balance == 0 else "positive" if balance > 0 else "negative"


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.casefold()))


class Workbench:
    """What the agent's tools did in one pass. Tools of one answer run in parallel, hence the lock."""

    def __init__(self, on_failure: Callable[[int], None]) -> None:
        """`on_failure` is told how often the failing call has been executed so far."""
        self.executed: Counter[str] = Counter()
        self.sentiments: dict[str, str] = {}
        self.topics: dict[str, str] = {}
        self.failures = 0
        self.report: str | None = None
        self._reviews = {review.id: review for review in REVIEWS}
        self._on_failure = on_failure
        self._lock = threading.Lock()

    def extract_sentiment(self, review_id: str) -> str:
        """Tool: how the customer feels."""
        result = sentiment(self._text(review_id))
        with self._lock:
            self.executed["extract_sentiment"] += 1
            self.sentiments[review_id] = result
        return result

    def classify_review(self, review_id: str) -> str:
        """Tool: what the review is about."""
        result = classify(self._text(review_id))
        with self._lock:
            self.executed["classify_review"] += 1
            if result == NO_RESULT:
                self.failures += 1
                self._on_failure(self.failures)
            else:
                self.topics[review_id] = result
        return result

    def write_report(self, title: str) -> str:
        """Tool: the deliverable."""
        with self._lock:
            self.executed["write_report"] += 1
            topics = Counter(self.topics.values())
            self.report = f"{title}: " + ", ".join(f"{topic} {count}" for topic, count in sorted(topics.items()))
        return "The report is written."

    def _text(self, review_id: str) -> str:
        review = self._reviews.get(review_id)
        return "" if review is None else review.text
