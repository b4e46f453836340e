"""Which version measured, with git and without."""

from __future__ import annotations

import pytest

from calibrate.measure import provenance


def test_without_git_the_commit_is_what_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_git", lambda *_: None)
    assert provenance.checkout_facts()["git_commit"] == "unknown"
    monkeypatch.setenv(provenance.COMMIT_VARIABLE, "abc123")
    assert provenance.checkout_facts()["git_commit"] == "abc123"
    assert provenance.checkout_facts()["tree_dirty"] is None


def test_git_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(provenance.COMMIT_VARIABLE, "abc123")
    answers = {"rev-parse": "f00d\n", "status": " M calibrate/cli.py\n"}
    monkeypatch.setattr(provenance, "_git", lambda *words: answers[words[0]])
    facts = provenance.checkout_facts()
    assert (facts["git_commit"], facts["tree_dirty"]) == ("f00d", True)
