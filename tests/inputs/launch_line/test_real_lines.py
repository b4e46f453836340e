"""Launch lines as people write them: in shells, containers, Compose, Kubernetes and Helm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from simserve.errors import InputError
from simserve.inputs.launch_line import read_launch_line

LLAMA, QWEN = "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-8B"

READ: list[tuple[str, dict[str, Any]]] = [
    ("vllm serve Qwen/Qwen3-8B", {"model": QWEN}),
    (
        "VLLM_USE_V1=1 CUDA_VISIBLE_DEVICES=0,1 vllm serve meta-llama/Llama-3.1-70B-Instruct -tp 2 "
        "--gpu_memory_utilization=0.9 --max-model-len 32k --max-num-batched-tokens 8K "
        "--no-enable-prefix-caching -O3 --host 0.0.0.0",
        {
            "model": "meta-llama/Llama-3.1-70B-Instruct",
            "tp": 2,
            "gpu_memory_utilization": 0.9,
            "max_model_len": 32_000,
            "max_num_batched_tokens": 8192,
            "enable_prefix_caching": False,
        },
    ),
    (
        "python3 -m vllm.entrypoints.openai.api_server \\\n"
        "    --model meta-llama/Llama-3.1-8B-Instruct \\\n"
        "    --tensor-parallel-size 2 --port 8000 --disable-log-requests --max-num-seqs=128",
        {"model": LLAMA, "tp": 2, "max_num_seqs": 128},
    ),
    (
        "docker run --runtime nvidia --gpus all \\\n"
        "    -v ~/.cache/huggingface:/root/.cache/huggingface \\\n"
        '    --env "HF_TOKEN=$HF_TOKEN" \\\n    -p 8000:8000 \\\n    --ipc=host \\\n'
        "    vllm/vllm-openai:latest \\\n    --model Qwen/Qwen3-8B",
        {"model": QWEN},
    ),
    (
        "sudo docker run -itd --rm --name llm --shm-size 16g --gpus '\"device=0,1\"' "
        "-e VLLM_LOGGING_LEVEL=DEBUG vllm/vllm-openai:v0.33.0 Qwen/Qwen3-8B -tp 2 --block-size 32",
        {"model": QWEN, "tp": 2, "block_size": 32},
    ),
    (
        "podman run --entrypoint vllm --device nvidia.com/gpu=all mirror.local/llm:1 serve "
        "Qwen/Qwen3-8B --scheduling-policy priority",
        {"model": QWEN, "scheduling_policy": "priority"},
    ),
    (
        "docker run vllm/vllm-openai bash -c 'pip install x && vllm serve Qwen/Qwen3-8B -dp 4'",
        {"model": QWEN, "replicas": 4, "router": "least-loaded"},
    ),
    (
        "#!/bin/bash\nset -e\nexport CUDA_VISIBLE_DEVICES=0,1,2,3\ncd /srv\n"
        "nohup vllm serve Qwen/Qwen3-8B --tensor-parallel-size=4 > vllm.log 2>&1 &\n",
        {"model": QWEN, "tp": 4},
    ),
    (
        "numactl --cpunodebind=0 uv run vllm serve Qwen/Qwen3-8B --watermark 0.01 2>&1 | tee log",
        {"model": QWEN, "watermark": 0.01},
    ),
    (
        'bash -lc "exec vllm serve Qwen/Qwen3-8B --max-model-len 25.6k"',
        {"model": QWEN, "max_model_len": 25_600},
    ),
    ("--model Qwen/Qwen3-8B --tensor-parallel-size 2", {"model": QWEN, "tp": 2}),
    (
        "vllm serve Qwen/Qwen3-8B -q fp8 --kv-cache-dtype fp8_e4m3",
        {"model": QWEN, "quantization": "fp8", "kv_cache_dtype": "fp8_e4m3"},
    ),
    (
        "vllm serve Qwen/Qwen3-8B -tp2 --device-memory-utilization 0.8 --kv-cache-memory-bytes 20G",
        {
            "model": QWEN,
            "tp": 2,
            "gpu_memory_utilization": 0.8,
            "kv_cache_memory_bytes": 20 * 2**30,
        },
    ),
    (
        "vllm serve Qwen/Qwen3-8B --served-model-name qwen gpt-4 --api-key a b "
        "--disable-chunked-prefill --max-num-batched-tokens 40960",
        {"model": QWEN, "enable_chunked_prefill": False, "max_num_batched_tokens": 40_960},
    ),
    (
        "vllm serve Qwen/Qwen3-8B --max-model-len auto --dtype bfloat16 --no-enable-lora "
        "--pipeline-parallel-size 1 --attention-backend None --compilation-config '{}'",
        {"model": QWEN},
    ),
    (
        "vllm serve Qwen/Qwen3-8B --limit-mm-per-prompt.image 0 --num_gpu_blocks_override 9000 "
        "--default-chat-template-kwargs '{\"enable_thinking\": false}' --max-num-seqs 8 "
        "--max_num_seqs 16",
        {"model": QWEN, "num_gpu_blocks": 9000, "max_num_seqs": 16},
    ),
    (
        "python -m sglang.launch_server --model-path Qwen/Qwen3-8B --tp 2 --host 0.0.0.0 "
        "--context-length 32k --max-running-requests 64 --page-size 16 --disable-radix-cache "
        "--chunked-prefill-size 4096 --schedule-policy fcfs --enable-metrics",
        {
            "model": QWEN,
            "tp": 2,
            "max_model_len": 32_000,
            "max_num_seqs": 64,
            "block_size": 16,
            "enable_prefix_caching": False,
            "max_num_batched_tokens": 4096,
        },
    ),
    (
        "python3 -m sglang.launch_server --model Qwen/Qwen3-8B --mem-fraction-static 0.8 --dp 2",
        {
            "model": QWEN,
            "gpu_memory_utilization": 0.8,
            "activation_peak_bytes": 0,
            "context_bytes": 0,
            "cuda_graph_pool_bytes": 0,
            "replicas": 2,
            "router": "round-robin",
        },
    ),
    (
        "trtllm-serve serve Qwen/Qwen3-8B --backend pytorch --tp_size 2 --max_batch_size 64 "
        "--max_num_tokens 8192 --max_seq_len 16384 --port 8000",
        {
            "model": QWEN,
            "tp": 2,
            "max_num_seqs": 64,
            "max_num_batched_tokens": 8192,
            "max_model_len": 16_384,
        },
    ),
]

REFUSED = [
    ("vllm serve m --speculative-config.method eagle", "speculative decoding is not modelled"),
    ('vllm serve m -sc \'{"method": "ngram"}\'', "-sc: got .*speculative decoding"),
    ("vllm serve m --compilation-config.cudagraph_mode FULL", "compilation-config.cudagraph_mode"),
    ("vllm serve m -cc.mode=3", "-cc.mode: .*CUDA graphs"),
    ("vllm serve m --enforce-eager", "--enforce-eager: .*leave it out: .*CUDA graphs"),
    ("vllm serve m -O0", "-O: got 0, allowed: 2, 3, or leave it out"),
    ("vllm serve m --dtype float32", "got float32, allowed: auto, half, float16, bfloat16, or"),
    ("vllm serve m -ep", "-ep: got this flag, allowed: leave it out: expert parallelism"),
    ("vllm serve m -pp 2", "-pp: got 2, allowed: 1, or leave it out: only tensor parallelism"),
    ("vllm serve m --swap-space 4", "--swap-space: .*not have any more.*recomputed"),
    ("vllm serve m --max-num-seq 4", "unknown flag.*did you mean --max-num-seqs"),
    ("vllm serve m --tensor-parallel 2", "did you mean --tensor-parallel-size"),
    ("vllm serve m --max-num-seqs 1k", "--max-num-seqs: got 1k, allowed: an integer"),
    ("vllm serve m --max-model-len 2.5K", "--max-model-len: got 2.5K, allowed: .*32K .32768"),
    ("vllm serve m -tp $TP", "-tp: got .TP, allowed: an integer; .*does not know what the shell"),
    ("vllm serve m --enable-chunked-prefill False", "alone, or --no-enable-chunked-prefill"),
    ("vllm serve m --enable-prefix-caching=true", "the value true, allowed: --enable-prefix-c"),
    ("vllm serve m --max-num-seqs", "--max-num-seqs: got no value, allowed: a value: an integer"),
    ("vllm serve m --max-num-seqs --port 1", "got --port instead of a value"),
    ("vllm serve m other", "got other, allowed: one model"),
    ("vllm serve m --model other", "got m, allowed: one model"),
    ("vllm serve m --scheduling-policy lpm", "got lpm, allowed: fcfs, priority"),
    ("vllm serve m --config=c.yaml", "--config: .*--config FILE"),
    ("CUDA_VISIBLE_DEVICES=0 vllm serve m -tp 2", "CUDA_VISIBLE_DEVICES=0: got 1 GPU,.*at least 2"),
    ("docker run --gpus 2 vllm/vllm-openai --model m -tp 4", "--gpus 2: got 2 GPUs"),
    ("VLLM_ATTENTION_BACKEND=FLASHINFER vllm serve m", "VLLM_ATTENTION_BACKEND: .*step times"),
    ("VLLM_USE_V1=0 vllm serve m", "VLLM_USE_V1: got 0, allowed: 1"),
    ("vllm serve m\n  --max-num-seqs 4", "at the start of a line, allowed: a backslash"),
    ("vllm serve m \\ \n --port 1", "a blank after a backslash"),
    ("vllm bench serve --model m", "got no server, allowed: one line with vllm serve"),
    ("vllm serve a & vllm serve b", "got 2 servers"),
    ("docker run nginx:latest -tp 2", "got no server"),
    (
        "python -m sglang.launch_server --model m --ep-size 8",
        "--ep-size: got 8, .*expert par",
    ),
    ("python -m sglang.launch_server --model m --foo 8", "--foo: got an unknown flag"),
    ("python -m sglang.launch_server --model m --schedule-policy lpm", "got lpm, allowed: fcfs"),
    ("trtllm-serve m --kv_cache_free_gpu_memory_fraction 0.9", "--set num_gpu_blocks=N"),
    ("@nowhere.sh", "@nowhere.sh: got no such file"),
    ("", "got no server"),
]

COMPOSE = """\
services:
  redis: {image: "redis:7", command: redis-server --save 60}
  llm:
    image: vllm/vllm-openai:v0.33.0
    environment:
      HF_TOKEN: x
    ports: ["8000:8000"]
    command: >
      --model Qwen/Qwen3-8B
      --tensor-parallel-size 2
      --max-model-len 16K
    deploy:
      resources:
        reservations:
          devices: [{driver: nvidia, count: 2, capabilities: [gpu]}]
"""
KUBERNETES = """\
apiVersion: v1
kind: Service
metadata: {name: llm}
---
apiVersion: apps/v1
kind: Deployment
spec:
  replicas: 3
  template:
    spec:
      containers:
        - name: vllm
          image: vllm/vllm-openai:v0.10.1
          command: ["/bin/sh", "-c"]
          args:
            - "vllm serve Qwen/Qwen3-8B --trust-remote-code --max-num-seqs 64"
          env: [{name: HF_TOKEN, valueFrom: {secretKeyRef: {name: a, key: b}}}]
          resources: {limits: {nvidia.com/gpu: "1"}}
"""
HELM = """\
image:
  repository: vllm/vllm-openai
  tag: v0.33.0
  command: [vllm, serve, Qwen/Qwen3-8B, --tensor-parallel-size, 4, --enable-prefix-caching]
"""


@pytest.mark.parametrize(("text", "deployment"), READ, ids=[row[0][:60] for row in READ])
def test_launch_line_reads_as_intended(text: str, deployment: dict[str, Any]) -> None:
    line = read_launch_line(text)
    assert line.deployment == deployment
    assert set(line.origins) == set(deployment)
    assert all(origin.startswith("launch line") for origin in line.origins.values())


@pytest.mark.parametrize(("text", "pattern"), REFUSED, ids=[row[0][:60] for row in REFUSED])
def test_launch_line_is_refused_with_a_helpful_line(text: str, pattern: str) -> None:
    with pytest.raises(InputError, match=pattern) as caught:
        read_launch_line(text)
    assert "\n" not in str(caught.value) and "--serve-cmd" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "deployment", "note"),
    [
        (
            COMPOSE,
            {"model": QWEN, "tp": 2, "max_model_len": 16_384},
            "variables not read: HF_TOKEN",
        ),
        (KUBERNETES, {"model": QWEN, "max_num_seqs": 64}, "not read: replicas of the manifest"),
        (HELM, {"model": QWEN, "tp": 4, "enable_prefix_caching": True}, None),
    ],
    ids=["compose", "kubernetes", "helm"],
)
def test_manifest_reads_as_its_words_would(
    content: str, deployment: dict[str, Any], note: str | None, tmp_path: Path
) -> None:
    file = tmp_path / "manifest.yaml"
    file.write_text(content)
    line = read_launch_line(f"@{file}")
    assert line.deployment == deployment
    assert note is None or note in line.notes


def test_manifest_with_fewer_gpus_than_the_line_uses_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "compose.yml"
    file.write_text(COMPOSE.replace("size 2", "size 4"))
    with pytest.raises(InputError, match="devices: got 2 GPUs, allowed: at least 4"):
        read_launch_line(f"@{file}")


def test_script_in_a_file_reads_as_on_the_command_line(tmp_path: Path) -> None:
    text = READ[7][0]
    (tmp_path / "launch.sh").write_text(text)
    assert read_launch_line(f"@{tmp_path / 'launch.sh'}").deployment == READ[7][1]


def test_line_has_the_last_word_over_its_config_file(tmp_path: Path) -> None:
    file = tmp_path / "vllm.yaml"
    file.write_text(
        "model: Qwen/Qwen3-8B\ntensor_parallel_size: 4\nport: 8000\nmax-num-seqs: 32\n"
        "enable-prefix-caching: no\nenable-chunked-prefill: true\nserved-model-name: [a, b]\n"
        "compilation-config: {}\n"
    )
    line = read_launch_line(f"vllm serve --config {file} -tp 2")
    assert line.deployment == {
        "model": QWEN,
        "tp": 2,
        "max_num_seqs": 32,
        "enable_prefix_caching": False,
        "enable_chunked_prefill": True,
    }
    assert line.origins["max_num_seqs"] == f"launch line: --config {file}: max-num-seqs 32"


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        ("max-num-seq: 4\n", "--max-num-seq: got an unknown flag.*--max-num-seqs"),
        ("enforce-eager: true\n", "enforce-eager: got this flag"),
        ("speculative-config: {method: eagle}\n", "speculative decoding"),
        ("config: other.yaml\n", "a file in a file"),
        ("tensor-parallel-size: two\n", "got two, allowed: an integer"),
    ],
)
def test_config_file_is_refused_as_the_line_would_be(
    content: str, pattern: str, tmp_path: Path
) -> None:
    file = tmp_path / "vllm.yaml"
    file.write_text(content)
    with pytest.raises(InputError, match=pattern):
        read_launch_line(f"vllm serve m --config {file}")


def test_options_file_of_tensorrt_llm_is_read_by_dotted_keys(tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("enable_chunked_prefill: true\nkv_cache_config: {enable_block_reuse: false}\n")
    line = read_launch_line(f"trtllm-serve m --extra_llm_api_options {file}")
    assert line.deployment == {
        "model": "m",
        "enable_chunked_prefill": True,
        "enable_prefix_caching": False,
    }
    file.write_text("cuda_graph_config: {enable_padding: true}\n")
    with pytest.raises(InputError, match=r"--cuda-graph-config\.enable-padding: got an unk"):
        read_launch_line(f"trtllm-serve m --extra_llm_api_options {file}")


def test_a_note_is_one_line_whatever_an_unclosed_quote_takes_in() -> None:
    line = read_launch_line(
        'docker run -e A" -p\n\x1b[31m1:1" vllm/vllm-openai --model Qwen/Qwen3-8B'
    )
    assert line.notes and all(note.isprintable() for note in line.notes)


def test_notes_name_what_was_read_without_effect_and_keep_values_to_themselves() -> None:
    line = read_launch_line(
        "docker run -e HF_TOKEN=secret1 vllm/vllm-openai:v0.10.0 --model m --api-key secret2 "
        "--port 1 --dtype half -dp 2"
    )
    said = "\n".join(line.notes)
    for words in (
        "no effect on the simulation: --api-key, --port",
        "variables not read: HF_TOKEN",
        "changes nothing: --dtype",
        "the image is vLLM 0.10.0; flags and defaults are of 0.33.0",
        "data parallel ranks are whole replicas",
    ):
        assert words in said
    assert "secret" not in said


@pytest.mark.parametrize("engine", ["sglang", "trtllm"])
def test_line_of_another_engine_says_that_the_schedule_is_of_vllm(engine: str) -> None:
    text = {"sglang": "sglang serve --model-path m", "trtllm": "trtllm-serve m"}[engine]
    line = read_launch_line(text)
    assert line.engine == engine
    assert any("the schedule is that of vLLM 0.33.0" in note for note in line.notes)


def test_line_without_a_model_serves_the_default_of_vllm() -> None:
    line = read_launch_line("vllm serve --port 1")
    assert line.deployment == {"model": "Qwen/Qwen3-0.6B"}
    assert "default of vllm 0.33.0" in line.origins["model"]
