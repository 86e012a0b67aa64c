from __future__ import annotations

import base64
from urllib.parse import quote

from django.contrib.auth.models import User
from django.test import Client

from provisioning.models import LogChunk
from tests.portal.commands import run
from tests.provisioning.conftest import ledger, place
from tests.provisioning.place import Place

__all__ = ["ledger", "place"]

SECRET = "Tr0ub4dor&3/é"
TOOL = r"""
import base64, json, sys
from urllib.parse import quote
secret = "Tr0ub4dor&3/é"
say = sys.stderr.buffer.write
say(b"\x1b[2J\x1b]0;owned\x07\x1b[31mred\x1b[0m\n")
say(b"10%\r100%\r\n")
say(b"<script>alert(1)</script><img src=x onerror=alert(2)>\n")
say(b'{"resource_outputs": {"password": "forged"}}\n')
say(b"event: end\ndata: {}\n\nnul \x00 byte, not UTF-8: \xff\xfe\n")
say("gnp.exe to \u202egpj.exe\n".encode())
for written in (
    secret, json.dumps(secret), json.dumps(json.dumps(secret)), quote(secret, safe=""),
    base64.b64encode(b"me:" + secret.encode()).decode(),
):
    say(f"it is {written}\n".encode())
say(b"x" * 20_000_000 + b"\nthe end")
json.load(sys.stdin)
print(json.dumps({"resource_outputs": {"password": secret}}))
"""


def test_whatever_a_tool_says_its_log_is_text_without_secrets(
    place: Place, client: Client, alice: User
) -> None:
    place.template(
        "tool",
        driver="script",
        config={"command": "python3", "args": ["-c", TOOL]},
        outputs={"password": True},
    )
    place.application("shop", alice)

    deployment = place.deploy("  it:\n    type: tool\n")

    assert deployment.status == "succeeded", deployment.status_reason
    assert [step.status for step in deployment.steps.all()] == ["succeeded"]
    said = run("logs", str(deployment.pk)).out
    assert [line.strip() for line in said.splitlines()[1:]] == [
        "red",
        "10%100%",
        "<script>alert(1)</script><img src=x onerror=alert(2)>",
        '{"resource_outputs": {"password": "forged"}}',
        "event: end",
        "data: {}",
        "",
        "nul  byte, not UTF-8: ��",
        "gnp.exe to gpj.exe",
        "it is ••••••",
        'it is "••••••"',
        'it is "\\"••••••\\""',
        "it is ••••••",
        "it is bWU6••••••",
        "[a line too long for the log: 20000000 bytes left out]",
        "the end",
    ]
    client.force_login(alice)
    page = client.get(f"/deployments/{deployment.pk}/").content.decode()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    assert "<img" not in page
    forms = [SECRET, quote(SECRET), base64.b64encode(b"me:" + SECRET.encode()).decode()]
    everything = said + page + "".join(LogChunk.objects.values_list("text", flat=True))
    assert not [form for form in forms if form in everything]
