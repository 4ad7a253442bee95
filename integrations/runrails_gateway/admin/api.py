"""The admin API and the consumer's own endpoints, as routers for a FastAPI application."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runrails_gateway.admin.budgets import BUDGETS
from runrails_gateway.admin.credentials import CREDENTIALS
from runrails_gateway.admin.kept import Kept
from runrails_gateway.admin.keys import KEYS
from runrails_gateway.admin.live import LIVE
from runrails_gateway.admin.own import OWN
from runrails_gateway.admin.routing import router_of
from runrails_gateway.admin.runs import RUNS
from runrails_gateway.admin.services import Desk
from runrails_gateway.admin.tokens import TOKENS
from runrails_gateway.admin.usage import USAGE

if TYPE_CHECKING:
    from fastapi import APIRouter

    from runrails_gateway.admin.services import Services

__all__ = ["ADMIN_PREFIX", "admin_router", "own_router"]

ADMIN_PREFIX = "/admin/api"


def admin_router(services: Services) -> APIRouter:
    """`/admin/api/…`: keys, budgets, provider keys, usage, runs and live spend, for operators."""
    endpoints = (*KEYS, *BUDGETS, *CREDENTIALS, *USAGE, *LIVE, *RUNS)
    return router_of(_desk(services), endpoints, prefix=ADMIN_PREFIX, tag="admin")


def own_router(services: Services) -> APIRouter:
    """`/v1/usage`, `/v1/budget`, `/v1/runs` and `/v1/tokens`: what anybody may know of their own, and have for it."""
    return router_of(_desk(services), (*OWN, *TOKENS), prefix="/v1", tag="own")


def _desk(services: Services) -> Desk:
    return Desk(services=services, kept=Kept(monotonic=services.monotonic))
