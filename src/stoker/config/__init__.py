"""``stoker.toml``, and specs sent as JSON, read into records. Every mistake is reported at once, with its path."""

from stoker.config.against import Provided, check_against
from stoker.config.listen import Listen, parse_listen, require_a_door
from stoker.config.policies import configured
from stoker.config.reading import load, parse, spec_from_json, with_certificate, with_listen, with_log_format
from stoker.config.schema import schema, spec_schema
from stoker.config.writing import to_toml

__all__ = [
    "Listen",
    "Provided",
    "check_against",
    "configured",
    "load",
    "parse",
    "parse_listen",
    "require_a_door",
    "schema",
    "spec_from_json",
    "spec_schema",
    "to_toml",
    "with_certificate",
    "with_listen",
    "with_log_format",
]
