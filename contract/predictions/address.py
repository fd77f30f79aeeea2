"""Which PostgreSQL database the prediction log is delivered to."""

import os
import re
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode, urlsplit

URL_FORM = "postgresql://user:password@host:5432/name"
DEFAULTS = {  # of libpq, for what the URL does not say
    "port": "PGPORT",
    "dbname": "PGDATABASE",
    "user": "PGUSER",
    "service": "PGSERVICE",
    "options": "PGOPTIONS",
}
SEARCH_PATH = re.compile(r"(?:-c\s*|--)search[-_]path=((?:\\.|\S)*)")


@dataclass(frozen=True)
class DatabaseAddress:
    """A PostgreSQL database, with all that libpq needs to reach it."""

    url: str = field(repr=False)  # holds the password

    @property
    def name(self) -> str:
        """Say which database this is, for people and for the record of what was delivered.

        It is derived from what libpq will use, so that no two databases or schemas share one name.
        """
        from psycopg2 import ProgrammingError  # here, as few servers have a database
        from psycopg2.extensions import parse_dsn

        try:
            said = parse_dsn(self.url)
        except ProgrammingError:  # which who connects is told
            parts = urlsplit(self.url)
            return f"{parts.hostname or 'localhost'}:{parts.port or 5432}/{parts.path.lstrip('/')}"
        parts = {key: os.environ[name] for key, name in DEFAULTS.items() if os.environ.get(name)}
        parts |= said
        # an @ that was to be written as %40 leaves a piece of the password in front of the host
        host = parts.get("host", "localhost").rpartition("@")[2]
        database = parts.get("dbname") or parts.get("user", "")
        name = f"{host if '/' in host else host.lower()}:{parts.get('port', 5432)}"
        return f"{name}/{quote(database, '')}{_details(parts)}"


def _details(parts: dict[str, str]) -> str:
    """Give what makes another database of the same host, port and name."""
    details = {key: parts[key] for key in ("hostaddr", "service") if key in parts}
    if paths := SEARCH_PATH.findall(parts.get("options", "")):
        details["search_path"] = paths[-1]
    return f"?{urlencode(details)}" if details else ""
