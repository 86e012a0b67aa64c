from __future__ import annotations

import pytest
from django.conf import settings
from django.contrib.staticfiles import finders
from django.test import Client

pytestmark = pytest.mark.django_db  # a request looks after the connection, if there is one

NAME = "admin/css/base.css"
URL = f"/{settings.STATIC_URL.lstrip('/')}{NAME}"


def test_a_static_file_is_served_as_a_whole(client: Client) -> None:
    with open(finders.find(NAME), "rb") as file:
        content = file.read()

    answer = client.get(URL)

    assert (answer.status_code, answer.streaming) == (200, False)
    assert answer["Content-Type"] == 'text/css; charset="utf-8"'
    assert answer["Content-Length"] == str(len(content))
    assert answer.content == content


def test_a_static_file_that_the_browser_has_is_not_sent_again(client: Client) -> None:
    seen = client.get(URL)["Last-Modified"]

    answer = client.get(URL, headers={"if-modified-since": seen})

    assert (answer.status_code, answer.content) == (304, b"")
    assert not answer.has_header("Content-Type")
