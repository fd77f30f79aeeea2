"""Who may ask what: closed by default, no foreign forms, a limit by client, safe headers."""

import hmac
from base64 import b64decode
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flask import Flask, abort, request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import TooManyRequests, Unauthorized

from serve.errors import wants_page
from serve.settings import Settings

if TYPE_CHECKING:
    from limits.strategies import RateLimiter

BEARER_FORM = "Authorization: Bearer ..."
TYPED_FORM = "as the password, with any name. Reload the page to be asked again."
BEARER = WWWAuthenticate("bearer")
BASIC = WWWAuthenticate("basic", {"realm": "the monitor", "charset": "UTF-8"})
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
HEADERS = [
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]


def public(view: Callable) -> Callable:
    """Mark a view that anybody may ask; one without a mark stays closed."""
    view.token_name = None
    return view


def guarded(token_name: str, *, is_page: bool = False) -> Callable[[Callable], Callable]:
    """Mark a view that asks for this token of the settings, once that is set.

    A page takes it as a password, too, which a browser asks its user for, with any user's name.
    """

    def mark(view: Callable) -> Callable:
        view.token_name, view.takes_password = token_name, is_page
        return view

    return mark


class SafeHeaders:
    """Put the headers on every answer."""

    def __init__(self, app: Callable[..., Iterable[bytes]]):
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable) -> Iterable[bytes]:
        def start(status: str, headers: list, exc_info: Any = None) -> Callable:
            return start_response(status, headers + HEADERS, exc_info)

        return self._app(environ, start)


class Guard:
    """Lets a request pass to its view, or raises what stands in its way."""

    def __init__(self, app: Flask, settings: Settings):
        self._views = app.view_functions
        self._settings = settings
        self._limiter = _make_limiter() if settings.rate_limit else None

    def __call__(self) -> None:
        if request.endpoint is None:
            return  # 404 or 405
        _expect_token(self._views[request.endpoint], self._settings)
        if request.method not in SAFE_METHODS:
            _expect_own_origin()
            self._expect_rate()

    def _expect_rate(self) -> None:
        rate = self._settings.rate_limit
        if self._limiter and not self._limiter.hit(rate, request.remote_addr or ""):
            raise TooManyRequests(
                f"More than {rate} from one client. Wait, or ask less often.",
                retry_after=rate.get_expiry(),
            )


def _make_limiter() -> "RateLimiter":
    from limits.storage import MemoryStorage  # takes a while, and few need it
    from limits.strategies import MovingWindowRateLimiter

    return MovingWindowRateLimiter(MemoryStorage())


def _expect_token(view: Callable, settings: Settings) -> None:
    name = getattr(view, "token_name", "")
    if name is None:
        return
    token = getattr(settings, name) if name else ""
    if name and not token:
        return  # open until the token is set
    takes_password = getattr(view, "takes_password", False)
    if not (token and hmac.compare_digest(_sent_token(takes_password), token.encode())):
        asks_user = takes_password and wants_page()
        form, scheme = (TYPED_FORM, BASIC) if asks_user else (BEARER_FORM, BEARER)
        raise Unauthorized(f"This route needs its token: {form}", www_authenticate=scheme)


def _sent_token(takes_password: bool) -> bytes:
    """Find the token in the request; nothing if there is none."""
    scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
    raw = sent.strip().encode("latin-1")  # as WSGI decodes headers
    if scheme.lower() == "bearer":
        return raw
    if scheme.lower() != "basic" or not takes_password:
        return b""
    try:
        return b64decode(raw, validate=True).partition(b":")[2]
    except ValueError:
        return b""


def _expect_own_origin() -> None:
    """Refuse what a browser sends on behalf of another site; programs send neither header."""
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site in {"same-origin", "none"}:
        return
    if site is not None or (origin is not None and _host_of(origin) != request.host):
        abort(403, "This was sent by a page of another site. Use the form of this one.")


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # no address at all
        return None
