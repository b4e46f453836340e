"""The whole files that fuzzing starts from: those that ship, and one of every other format."""

from __future__ import annotations

import functools
import gzip
import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from simserve.inputs.data_files import CATALOGUE, data_dir
from simserve.parity.case import Case
from simserve.traffic.trace_formats import load_trace
from simserve.traffic.trace_writers import write_trace
from tests.traffic import test_more_trace_formats as more_traces
from tests.traffic import test_otel as otel
from tests.traffic import test_prometheus_import as prometheus
from tests.traffic import test_trace_formats as traces

ROOT = Path(__file__).resolve().parents[2]
_LONGEST_LINE_BYTES = 10_000
PUBLISHED_TRACES = ROOT.parent / "shared" / "traces"

FULL_SCENARIO = """\
name: everything
seed: 7
start_date: 2026-11-20T09:00:00
slo: {ttft: 500, tpot_p95: 50ms, itl_p99: 0.1s}
workload:
  arrivals: {process: gamma, rate_per_s: 600/min, burstiness: 0.5}
  prompt_tokens: {histogram: {upto: [100, 200, 4k], weights: [1, 2, 0.5]}, min: 10, max: 3000}
  output_tokens: {median: 100, p95: 300}
  num_requests: 50
  sessions: {mean_turns: 3, think_time_s: 5, think_time_p95_s: 20, max_context_tokens: 8k}
  segments:
    - {name: system, count: 2, tokens: 200}
    - {name: documents, count: 50, tokens: {median: 300, p95: 900}, per_request: 3, zipf: 1.1}
  classes:
    - {name: paid, weight: 3, priority: 0, slo: "ttft:200 tpot:30"}
    - {name: free, weight: 1, priority: 5, prompt_tokens: 100, output_tokens: 20}
    - {name: batch, weight: 1, slo: {e2el_p95: 30s, itl_p99: 40}}
deployment:
  model: Qwen/Qwen3-8B
  gpu: h100-sxm
  tp: 2
  replicas: 2
  router: least-loaded
  scheduler: chunked-prefill
  engine: vllm
  latency: roofline
  quantization: fp8
  kv_cache_dtype: fp8
  max_num_seqs: 64
  max_num_batched_tokens: 4k
  max_model_len: 16K
  block_size: 16
  enable_prefix_caching: true
  enable_chunked_prefill: true
  long_prefill_token_threshold: 0
  scheduling_policy: priority
  scheduler_reserve_full_isl: false
  watermark: 0.01
  async_scheduling: true
  gpu_memory_utilization: 0.9
  activation_peak_bytes: 2GiB
  context_bytes: 500MB
"""
STEPS = """\
workload:
  arrivals:
    process: piecewise
    rate_per_s: 3
    steps: [{duration_s: 10min, rate_per_s: 1, to_rate_per_s: 5}, {duration_s: 60, rate_per_s: 0}]
  prompt_tokens: 512
  output_tokens: 2k
  duration_s: 1h
deployment: {model: llama-3.1-8b, gpu: a100, num_gpu_blocks: 9000}
"""
CONFIGS: tuple[dict[str, Any], ...] = (
    {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": 32,
        "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8,
        "intermediate_size": 14336, "vocab_size": 128256, "max_position_embeddings": 131072,
        "tie_word_embeddings": False, "torch_dtype": "bfloat16", "rope_theta": 500000.0,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0}, "rms_norm_eps": 1e-05,
    },
    {
        "model_type": "deepseek_v3", "num_hidden_layers": 8, "hidden_size": 2048,
        "num_attention_heads": 16, "num_key_value_heads": 16, "intermediate_size": 6144,
        "vocab_size": 1024, "max_position_embeddings": 4096, "tie_word_embeddings": False,
        "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
        "v_head_dim": 128, "n_routed_experts": 64, "num_experts_per_tok": 6, "n_shared_experts": 2,
        "moe_intermediate_size": 1024, "first_k_dense_replace": 1, "moe_layer_freq": 1,
        "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
    },
    {
        "model_type": "gemma3", "quantization_config": {"quant_method": "gptq", "bits": 4},
        "text_config": {
            "model_type": "gemma3_text", "num_hidden_layers": 6, "hidden_size": 1024,
            "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 128,
            "intermediate_size": 4096, "vocab_size": 1000, "max_position_embeddings": 8192,
            "sliding_window": 1024, "sliding_window_pattern": 6,
            "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
        },
    },
    {
        "model_type": "gpt_oss", "num_hidden_layers": 4, "hidden_size": 2880, "head_dim": 64,
        "num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 2880,
        "num_local_experts": 32, "num_experts_per_tok": 4, "vocab_size": 201088,
        "max_position_embeddings": 131072, "sliding_window": 128, "attention_bias": True,
        "layer_types": ["sliding_attention", "full_attention"] * 2, "tie_word_embeddings": False,
        "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]},
    },
)  # fmt: skip
LAUNCH_LINES = (
    "vllm serve Qwen/Qwen3-8B -tp 2 --max-num-seqs 64 --max-model-len 32k "
    "--enable-prefix-caching\n",
    "#!/bin/bash\nexport CUDA_VISIBLE_DEVICES=0,1\nset -e\n"
    "HF_HOME=/tmp vllm serve meta-llama/Llama-3.1-8B-Instruct \\\n  --tensor-parallel-size 2 \\\n"
    "  --gpu-memory-utilization=0.9 --no-enable-chunked-prefill --port 8000 # comment\n",
    "docker run --rm --gpus '\"device=0,1\"' -e HF_TOKEN=x -p 8000:8000 vllm/vllm-openai:v0.33.0 "
    "--model Qwen/Qwen3-8B --kv-cache-dtype fp8 --hf-overrides '{}'\n",
    "python -m sglang.launch_server --model-path Qwen/Qwen3-8B --tp 2 --mem-fraction-static 0.8\n",
    "trtllm-serve Qwen/Qwen3-8B --tp_size 2 --max_batch_size 64 --max_num_tokens 8192\n",
    "bash -c 'vllm serve Qwen/Qwen3-8B -O3 --port 8000'\n",
)
MANIFESTS = (
    "services:\n  vllm:\n    image: vllm/vllm-openai:v0.33.0\n"
    "    command: [--model, Qwen/Qwen3-8B, --tensor-parallel-size, 2]\n"
    "    environment: {CUDA_VISIBLE_DEVICES: '0,1'}\n"
    "    deploy:\n      resources:\n        reservations:\n          devices:\n"
    "            - {driver: nvidia, count: 2, capabilities: [gpu]}\n",
    "apiVersion: apps/v1\nkind: Deployment\nspec:\n  replicas: 2\n  template:\n    spec:\n"
    "      containers:\n        - name: vllm\n          image: vllm/vllm-openai:latest\n"
    "          command: ['/bin/sh', '-c', 'vllm serve Qwen/Qwen3-8B --max-num-seqs 128']\n"
    "          env: [{name: VLLM_USE_V1, value: '1'}]\n"
    "          resources: {limits: {nvidia.com/gpu: 1}}\n---\napiVersion: v1\nkind: Service\n",
)


class Seed(NamedTuple):
    """A good file: what it is, and what it holds; a folder is told by ``beside``."""

    kind: str
    role: str
    content: bytes
    beside: dict[str, bytes] = {}  # noqa: RUF012 (never changed)


@functools.cache
def seeds(kind: str) -> tuple[Seed, ...]:
    """Return the good files of a kind."""
    return tuple(_SEEDS[kind]())


def _yaml() -> list[Seed]:
    found = [Seed("yaml", "scenario", text.encode()) for text in (FULL_SCENARIO, STEPS)]
    shipped = sorted(data_dir("workloads").glob("*.yaml"))
    found += [Seed("yaml", "scenario", path.read_bytes()) for path in shipped]
    for role in ("workload", "deployment"):
        part = FULL_SCENARIO.partition(f"{role}:\n")[2].partition("\ndeployment:")[0]
        text = "\n".join(line.removeprefix("  ") for line in part.splitlines())
        found.append(Seed("yaml", role, text.encode()))
    for name in ("h100-sxm", "mi300x", "apple-m2-ultra"):
        path = data_dir("hardware_profiles") / name / "device.yaml"
        found.append(Seed("yaml", "device", path.read_bytes()))
    models = [CATALOGUE / "models" / f"{name}.yaml" for name in ("deepseek-v3", "gpt-oss-20b")]
    return found + [Seed("yaml", "model", path.read_bytes()) for path in models]


def _trace() -> list[Seed]:
    texts = [
        traces.AZURE,
        traces.jsonl(traces.ROW, traces.ROW | {"timestamp": 3000}),
        traces.jsonl({"timestamp": 0.5, "input_length": 100, "output_length": 20}),
        more_traces.BURSTGPT,
        more_traces.jsonl(more_traces.CHAT, more_traces.CHAT),
        more_traces.jsonl(more_traces.POOL),
        '[{"prompt_len": 5, "output_len": 6}, {"prompt_len": 7, "output_len": 8}]',
        "num_prefill_tokens,num_decode_tokens\n10,20\n30,40\n",
        "arrival_s,prompt_tokens,output_tokens,segments\n1,5,5,0:4 1:1\n2,4,5,0:4\n",
        '{"arrival_time": "2024-05-10 12:00:00", "prompt_tokens": 5, "output_tokens": 3}\n',
        '"arrival_s","prompt_tokens","output_tokens","note"\n0.5,5,"3","a, b"\n1,6,4,""\n',
        *(otel.WRAPPINGS[name]() for name in ("one export a line", "a list of spans")),
        otel.WRAPPINGS["the SDK's spans"](),
        json.dumps(otel.export(*otel.INCOMPLETE, otel.generic(1, 20), otel.vllm(2, 21))) + "\n",
    ]
    found = [Seed("trace", "trace", text.encode()) for text in texts]
    found.append(Seed("trace", "trace", gzip.compress(traces.AZURE.encode(), mtime=0)))
    found.append(Seed("trace", "trace", _parquet()))
    page = prometheus.histogram("vllm:request_prompt_tokens", prometheus.PROMPTS, 'model_name="m"')
    page += prometheus.histogram(
        "vllm:request_generation_tokens", prometheus.OUTPUTS, 'model_name="m"'
    )
    found.append(Seed("trace", "prometheus", page.encode()))
    for path in sorted(PUBLISHED_TRACES.glob("*.gz")):
        if path.name.endswith("total_rate.csv.gz"):  # sums beside a trace, not requests
            continue
        lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)[:20]
        if len(lines[0]) < _LONGEST_LINE_BYTES:  # a line of clients takes half a megabyte
            found.append(Seed("trace", "trace", b"".join(lines)))
    return found


def _parquet() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "t.csv", Path(folder) / "t.parquet"
        source.write_text(traces.AZURE)
        write_trace(target, load_trace(source), "parquet")
        return target.read_bytes()


def _config() -> list[Seed]:
    return [Seed("config", "model", json.dumps(one, indent=1).encode()) for one in CONFIGS]


def _serve_cmd() -> list[Seed]:
    found = [Seed("serve-cmd", "line", text.encode()) for text in LAUNCH_LINES]
    return found + [Seed("serve-cmd", "manifest", text.encode()) for text in MANIFESTS]


def _json_result() -> list[Seed]:
    from simserve.inputs.scenario import scenario_from_dict
    from simserve.parity.case_file import save_case, save_expected
    from simserve.parity.verify import records_by
    from simserve.planning.run_scenario import run

    scenario = scenario_from_dict(
        {
            "workload": {
                "arrivals": {"rate_per_s": 20},
                "prompt_tokens": 200,
                "output_tokens": 12,
                "num_requests": 12,
                "prefix": {"count": 2, "tokens": 64},
                "classes": [
                    {"name": "chat", "weight": 2, "slo": "ttft:50 itl_p95:9"},
                    {"name": "batch", "weight": 1},
                ],
            },
            "deployment": {"model": "llama-3.1-8b", "gpu": "h100-sxm", "max_num_seqs": 4},
            "slo": "ttft:500",
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        result = run(scenario)
        result.save(folder)
        files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
        case_path = Path(folder) / "c.case.json"
        save_case(_case(), case_path)
        expected = save_expected(records_by(_case(), "chunked-prefill"), case_path)
        case_text, expected_text = case_path.read_bytes(), expected.read_bytes()
    found = [
        Seed("json-result", name, content, {n: c for n, c in files.items() if n != name})
        for name, content in files.items()
    ]
    found.append(Seed("json-result", "case", case_text))
    found.append(Seed("json-result", "c.expected.jsonl", expected_text, {"c.case.json": case_text}))
    return found


def _case() -> Case:
    from simserve.parity.case import CaseRequest, CaseStepTime, table_of
    from simserve.policy.limits import SchedulerLimits

    limits = SchedulerLimits(
        max_num_seqs=2, max_num_batched_tokens=64, max_model_len=256, num_blocks=32
    )
    rows = [CaseRequest(f"r{i}", i * 1000, ((0, 20), (i + 1, 30)), 5) for i in range(4)]
    return Case("c", limits, CaseStepTime(10**10, 10**7, 10**4), table_of(rows))


_SEEDS = {
    "yaml": _yaml,
    "trace": _trace,
    "config": _config,
    "serve-cmd": _serve_cmd,
    "json-result": _json_result,
}
KINDS = tuple(_SEEDS)
