"""
Notifications: warnings and other events, sent to people and programs in the background.

>>> from runrails.notify import Notifier, Webhook
>>> notifier = Notifier(Webhook("https://hooks.example.com/runrails", secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))

``Guard(sinks=[log_sink, notifier])`` then tells that address once when a budget is 80 % spent and once when it is used
up. Sending never delays or fails a call. What is sent at most once in six hours for an account and a mark is decided by
the store, for all processes; a process that dies between that decision and the sending takes its warning with it, while
`runrails budget show` goes on telling how the account stands.
"""

from __future__ import annotations

from runrails.notify.notifier import WARNINGS, Notifier
from runrails.notify.senders import Notice, Sender, SendFailed
from runrails.notify.webhook import SlackWebhook, Webhook

__all__ = ["WARNINGS", "Notice", "Notifier", "SendFailed", "Sender", "SlackWebhook", "Webhook"]
