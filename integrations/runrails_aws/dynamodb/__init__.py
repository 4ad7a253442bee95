"""
The shared ledger on DynamoDB: any number of processes on any number of hosts, one truth.

One on-demand table. What is where, and why it cannot be overdrawn:

- An *account* is one item. It keeps what is left (`avail` = limit - spent - held) because conditions cannot do
  arithmetic, and how far it is from the largest amount there is (`room`), so that no sum ever overflows. Its period is
  part of its key, so there is no reset.
- A *reservation* is one item: the hold, the record that makes repeating it safe, and the usage record, all in one.
- `reserve` is one transaction over that item and every account: all or none, one round trip. `settle` is another. The
  reservation stands first in each, and its failed condition is looked at first: after a lost answer it has been made,
  whatever the accounts say now.
- A *transition* names the version of the reservation that it was decided on and signs what it writes. If its answer
  is lost, the next attempt finds the signature and knows that it was itself.
- *Limits* from code are part of a reservation's conditions; only a changed one costs a second look. An operator's limit
  is written into every account of its scope, and new accounts are made on condition that it is what it was.
- *Overdue* holds are found by a sparse index, spread over some partitions, and judged by the server's time as its
  answers tell it (`servertime`), never by the clock of a host. Deletion by age (TTL) decides nothing.
- *Usage* of a user's month, and of a run, is asked for by key: the id of a call says where it stands (`places`). What
  an id does not tell truly, a sparse index does. Balances, and what is open, are never deleted by age (`retention`).

`items`, `requests`, `answers`, `schema`, `units`, `servertime` and `failures` are functions of values, tested without a
server. `calling` sends, `store` and `archive` put the two together. The arithmetic is that of `runrails.stores.rules`.
"""

from __future__ import annotations

from runrails_aws.dynamodb.opening import open_url
from runrails_aws.dynamodb.store import DynamoDBStore

__all__ = ["DynamoDBStore", "open_url"]
