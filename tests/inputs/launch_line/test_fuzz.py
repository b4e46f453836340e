"""Whatever the words are, a launch line is read or refused in one line; nothing else happens."""

from __future__ import annotations

import random
import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from simserve.errors import InputError
from simserve.inputs.launch_line import read_launch_line
from simserve.inputs.launch_line.flag_table import vllm_table

BASES = (
    "VLLM_USE_V1=1 vllm serve Qwen/Qwen3-8B -tp 2 --max-model-len 32k --speculative-config.x 1",
    "docker run --gpus all -v a:b vllm/vllm-openai:v0.9.1 --model m --max-num-seqs=4 -O3",
    'bash -c "vllm serve m --compilation-config \'{\\"mode\\": 3}\' --no-enable-prefix-caching"',
    "python -m sglang.launch_server --model m --tp 2 --mem-fraction-static 0.8 > log 2>&1",
    "trtllm-serve m --tp_size 2 --max_batch_size 8 && echo done",
)
FLAGS = [flag.name for flag in vllm_table().flags if flag.name != "--config"]
WORDS = st.one_of(
    st.sampled_from(FLAGS),
    st.sampled_from(
        ["-tp", "-O", "-O=", "-cc.a.b+", "--a.b", "--", "-", "=", "--=", "-q", "@", ".."]
    ),
    st.sampled_from(["-1", "1e400", "nan", "9" * 50 + "k", "None", "{}", "[" * 3000, '{"a": 9M}']),
    st.text(max_size=12),
)


def _read_or_refuse(text: str) -> None:
    try:
        line = read_launch_line(text)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert set(line.origins) == set(line.deployment)


def _mutated(text: str, seed: int) -> str:
    draw = random.Random(seed)
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(text))
        cut = at + draw.randint(0, 4)
        put = "".join(draw.choices(string.printable + "é\0", k=draw.randint(0, 3)))
        text = text[:at] + put + text[cut:] or "x"
    return text


@settings(max_examples=400)
@given(st.sampled_from(BASES), st.integers(0, 2**32))
def test_mutated_line_is_read_or_refused(base: str, seed: int) -> None:
    text = _mutated(base, seed)
    if not text.startswith("@") and "--config" not in text and text != "-":
        _read_or_refuse(text)


@settings(max_examples=400)
@given(st.lists(WORDS, max_size=6))
@example(["--compilation-config", "[" * 100_000])
@example(["--speculative-config.a.b", "1", "--speculative-config.a", "2"])
@example(["--speculative-config.a", "1", "--speculative-config.a.b", "2"])
@example(["--hf-token"])
def test_any_words_behind_the_server_are_read_or_refused(words: list[str]) -> None:
    import shlex

    _read_or_refuse("vllm serve m " + shlex.join(words))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32), st.sampled_from([".yaml", ".sh"]))
def test_mutated_file_is_read_or_refused(tmp_path: Path, seed: int, suffix: str) -> None:
    text = (
        "services:\n  a:\n    image: vllm/vllm-openai\n    environment: [A=1]\n"
        "    command: [--model, m, -tp, 2]\n    resources: {limits: {nvidia.com/gpu: 2}}\n"
    )
    file = tmp_path / f"launch{suffix}"
    file.write_text(_mutated(text, seed), encoding="utf-8")
    _read_or_refuse(f"@{file}")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"a: *b\n", b"- 1\n", b"\0"])
def test_file_that_is_no_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "launch.yaml"
    file.write_bytes(content)
    with pytest.raises(InputError):
        read_launch_line(f"@{file}")


@pytest.mark.parametrize("name", ["", "nowhere", "\0", "a" * 5000])
def test_file_that_cannot_be_read_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        read_launch_line(f"@{name}")
