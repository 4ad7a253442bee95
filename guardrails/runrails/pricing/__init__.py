"""What a call costs: price cards, the layers they come from, and the data that ships with the package."""

from runrails.pricing.book import PriceBook
from runrails.pricing.cards import PriceCard, cost_pusd, dearest_pusd
from runrails.pricing.contract import Term
from runrails.pricing.spec import Price, PriceSpec

__all__ = ["Price", "PriceBook", "PriceCard", "PriceSpec", "Term", "cost_pusd", "dearest_pusd"]
