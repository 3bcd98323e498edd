"""How W&B is used here: whose word counts, and whether a server answers."""

import ssl
import time

import pytest
from tests.fixtures.wandb_server import black_hole

from segbench.errors import SegbenchError
from segbench.tracking import access as module
from segbench.tracking.access import Access, access, silence


@pytest.fixture(autouse=True)
def _with_a_key(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_DISABLED", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("given", "environment", "mode"),
    [
        ({}, {}, "online"),
        ({}, {"WANDB_MODE": "offline"}, "offline"),
        ({}, {"WANDB_MODE": "dryrun"}, "offline"),
        ({}, {"WANDB_MODE": "shared"}, "shared"),
        ({}, {"WANDB_MODE": "disabled"}, "disabled"),
        ({}, {"WANDB_DISABLED": "true"}, "disabled"),
        ({}, {"WANDB_DISABLED": "false"}, "online"),
        ({}, {"WANDB_DISABLED": "1", "WANDB_MODE": "online"}, "disabled"),
        ({"offline": True}, {"WANDB_MODE": "online"}, "offline"),
        ({"mode": "online"}, {"WANDB_MODE": "disabled", "WANDB_DISABLED": "true"}, "online"),
        ({"mode": "disabled", "offline": False}, {}, "disabled"),
    ],
)
def test_the_runs_own_settings_come_first_then_the_environment(given, environment, mode, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert access(given).mode == mode


@pytest.mark.parametrize("given", [{}, {"mode": "online"}, {"mode": "shared"}])
def test_without_a_key_it_is_offline_and_said(given, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY")
    assert access(given) == Access("offline", "no key for https://api.wandb.ai: wandb login, or WANDB_API_KEY")


def test_a_token_counts_as_a_key(monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("WANDB_IDENTITY_TOKEN_FILE", "token")
    assert access().mode == "online"


@pytest.mark.parametrize(
    ("url", "machine", "mode"),
    [
        ("https://api.wandb.ai", "api.wandb.ai", "online"),
        ("http://localhost:8080", "localhost:8080", "online"),
        ("http://localhost:8080", "localhost:9090", "offline"),
    ],
)
def test_a_key_in_netrc_is_that_of_its_server(url, machine, mode, monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("WANDB_BASE_URL", url)
    (tmp_path / ".netrc").write_text(f"machine {machine} login user password {'k' * 40}")
    (tmp_path / ".netrc").chmod(0o600)
    assert access().mode == mode


def test_another_mode_is_refused(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "onlin")
    with pytest.raises(SegbenchError, match=r"WANDB_MODE=onlin\n.*online, offline, disabled, shared"):
        access()


class TestSilence:
    def test_a_server_that_answers(self, wandb_server):
        assert silence() is None
        assert wandb_server.asked == ["Viewer"]

    @pytest.mark.parametrize(("status", "reason"), [(500, "it answers 500"), (403, r"the key is refused \(403\)")])
    def test_one_that_is_down_or_refuses_the_key(self, wandb_server, status, reason):
        import re

        wandb_server.status = status
        assert re.match(reason, silence())

    def test_nobody_there(self, monkeypatch):
        held = black_hole()
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{held.getsockname()[1]}")
        held.close()
        assert "refused" in silence()

    def test_one_that_takes_connections_and_says_nothing(self, monkeypatch):
        with black_hole() as held:
            monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{held.getsockname()[1]}")
            began = time.monotonic()
            assert silence(0.3) == "no answer in 0.3 s"
            assert time.monotonic() - began < 2

    def test_no_tls(self, wandb_server, monkeypatch):
        monkeypatch.setenv("WANDB_BASE_URL", wandb_server.url.replace("http:", "https:"))
        assert "SSL" in silence()

    def test_a_page_that_is_no_answer(self, wandb_server, monkeypatch):
        monkeypatch.setattr(module.json, "load", lambda file: int("<html>"))
        assert "<html>" in silence()

    def test_certificates_of_the_users_own(self, monkeypatch, tmp_path):
        monkeypatch.setenv("WANDB_BASE_URL", "https://127.0.0.1:1")
        monkeypatch.setenv("WANDB_INSECURE_DISABLE_SSL", "true")
        assert module._certificates().verify_mode == ssl.CERT_NONE
        monkeypatch.delenv("WANDB_INSECURE_DISABLE_SSL")
        assert module._certificates().verify_mode == ssl.CERT_REQUIRED
