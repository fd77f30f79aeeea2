"""Who may look at /monitor, and how a person gives the token."""

from base64 import b64encode

import pytest

from tests.serve.test_predict import BROWSER

TOKEN = "größe-0ther"


def basic(password: str, user: str = "anybody") -> str:
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def bearer(token: str) -> str:
    return f"Bearer {token.encode().decode('latin-1')}"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (bearer(TOKEN), 200),
        (basic(TOKEN), 200),
        (basic(TOKEN, user=""), 200),
        (basic(TOKEN + "x"), 401),
        (basic("", user=TOKEN), 401),
        (basic(""), 401),
        ("Basic", 401),
        ("Basic ?", 401),
        ("Basic \xe9", 401),
        (bearer(TOKEN[:-1]), 401),
        ("", 401),
    ],
)
def test_page_asks_for_its_token_as_a_bearer_or_a_password(sent, status, opened):
    client = opened(monitor_token=TOKEN)

    response = client.get("/monitor", headers={"Authorization": sent})

    assert response.status_code == status


def test_browser_is_told_to_ask_for_a_password_and_a_program_for_a_bearer(opened):
    client = opened(monitor_token=TOKEN)

    page, told = client.get("/monitor", headers=BROWSER), client.get("/monitor")

    assert page.headers["WWW-Authenticate"].startswith('Basic realm="the monitor"')
    assert told.headers["WWW-Authenticate"].startswith("Bearer")
    assert "as the password" in page.text
    assert "error" in told.json


def test_metrics_take_no_password(opened):
    client = opened(metrics_token="s3cret")

    assert client.get("/metrics", headers={"Authorization": basic("s3cret")}).status_code == 401
