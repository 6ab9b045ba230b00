"""The OpenAPI document: what the app's own routes, records and handlers say of themselves, and little besides."""

from stoker.web.openapi.endpoint import OpenApiEndpoint

__all__ = ["OpenApiEndpoint"]
