"""E-mail: what a real server is sent, what is told when it refuses, and that no secret is."""

import pytest
from pydantic import SecretStr

from contract.settings import SettingsError, read_settings
from ops.mail import MailError, MailSettings, send_mail
from tests.ops.mailbox import PASSWORD, USER, mailbox_open, make_certificate, with_login
from tests.serve.servers import free_port


def settings_of(given: dict[str, str], **changes) -> MailSettings:
    return MailSettings(**{name.lower(): value for name, value in given.items()} | changes)


def test_mail_reaches_all_recipients_with_letters_of_any_language():
    with mailbox_open() as mailbox:
        send_mail(settings_of(mailbox.settings), "Drift: größe\nBcc: x@y.z", "Fläche → 3\n")

    (came,) = mailbox.came
    assert came["X-RcptTo"] == "me@example.org, you@example.org"
    assert str(came["From"]) == "Monitor <monitor@example.org>"
    assert came["Bcc"] is None
    assert mailbox.texts == ["Fläche → 3\n"]


def test_password_goes_through_starttls_to_a_server_whose_certificate_holds(tmp_path, monkeypatch):
    context = make_certificate(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with mailbox_open(**with_login(context)) as mailbox:
        settings = settings_of(
            mailbox.settings, smtp_tls="starttls", smtp_user=USER, smtp_password=PASSWORD
        )
        send_mail(settings, "hello", "text\n")
        wrong = settings.model_copy(update={"smtp_password": SecretStr("n0t-it")})
        with pytest.raises(MailError, match="Correct SMTP_USER and SMTP_PASSWORD") as refused:
            send_mail(wrong, "hello", "text\n")
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(MailError, match="certificate"):
            send_mail(settings, "hello", "text\n")

    assert len(mailbox.came) == 1
    assert "n0t-it" not in str(refused.value)


def test_mail_without_tls_is_not_sent_where_tls_is_wanted():
    with mailbox_open() as mailbox, pytest.raises(MailError, match="SMTP_TLS"):
        send_mail(settings_of(mailbox.settings, smtp_tls="starttls"), "hello", "text\n")

    assert mailbox.came == []


def test_server_that_is_not_there_is_told_in_words():
    settings = settings_of({"SMTP_HOST": "localhost", "MAIL_TO": "a@b.c", "MAIL_FROM": "a@b.c"})

    with pytest.raises(MailError, match=r"localhost, port \d+: Connection refused\. Correct SMTP_"):
        send_mail(settings.model_copy(update={"smtp_port": free_port()}), "hello", "text\n")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"SMTP_HOST": "h"}, "MAIL_TO is missing"),
        ({"MAIL_TO": "a@b.c"}, "SMTP_HOST is missing"),
        ({"SMTP_HOST": "h", "MAIL_TO": "a@b.c"}, "MAIL_FROM is ''"),
        ({"SMTP_HOST": "h", "MAIL_TO": "nobody", "MAIL_FROM": "a@b.c"}, "MAIL_TO is 'nobody'"),
        ({"SMTP_PORT": "many"}, "SMTP_PORT is 'many'"),
        ({"SMTP_TLS": "maybe"}, "SMTP_TLS is 'maybe'"),
        (
            {"SMTP_HOST": "h", "MAIL_TO": "a@b.c", "MAIL_FROM": "a@b.c", "SMTP_USER": "u"},
            "SMTP_USER and SMTP_PASSWORD are expected together",
        ),
        (
            {
                "SMTP_HOST": "h",
                "MAIL_TO": "a@b.c",
                "SMTP_USER": "a@b.c",
                "SMTP_PASSWORD": PASSWORD,
                "SMTP_TLS": "off",
            },
            "SMTP_TLS is off",
        ),
    ],
)
def test_settings_that_do_not_fit_are_told_by_their_names(given, told, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError) as error:
        read_settings(MailSettings)
    assert told in str(error.value)
    assert PASSWORD not in str(error.value)
