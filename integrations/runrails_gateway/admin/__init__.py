"""
What an operator and a consumer ask of the gateway beside calls of models: the admin API, its page, one's own figures.

Three routers over one `Services`: `admin_router` (`/admin/api/…`), `page_router` (`/admin/`, static files without any
data) and `own_router` (`/v1/usage`, `/v1/budget`, `/v1/runs`). Every route of the first and the last names its
operation in `runrails.identity.operations`, and no body is read before the caller may do that.
"""

from __future__ import annotations

from runrails_gateway.admin.api import admin_router, own_router
from runrails_gateway.admin.pages import page_router
from runrails_gateway.admin.services import RunRegistry, Services

__all__ = ["RunRegistry", "Services", "admin_router", "own_router", "page_router"]
