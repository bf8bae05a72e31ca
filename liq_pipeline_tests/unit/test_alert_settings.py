"""Channel addresses are read as people write them."""

from __future__ import annotations

import pytest

from liq_pipeline.settings import Settings


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("", []),
        ("json://a/b", ["json://a/b"]),
        ("tgram://1/2, slack://x/y/z", ["tgram://1/2", "slack://x/y/z"]),
        ("tgram://1/2,\n discord://x/y,", ["tgram://1/2", "discord://x/y"]),
        ("mailto://u:p@host?to=a@x.org,b@y.org,json://h/p", ["mailto://u:p@host?to=a@x.org,b@y.org", "json://h/p"]),
    ],
)
def test_a_list_of_addresses_is_split_between_addresses_only(
    monkeypatch: pytest.MonkeyPatch, text: str, addresses: list[str]
) -> None:
    monkeypatch.setenv("LIQ_ALERT_URLS", text)
    assert [url.get_secret_value() for url in Settings().alert_urls] == addresses


def test_an_address_does_not_show_when_the_settings_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIQ_ALERT_URLS", "tgram://s3cret/1")
    monkeypatch.setenv("LIQ_HEARTBEAT_URL", "http://h/s3cret")
    assert "s3cret" not in repr(Settings())
