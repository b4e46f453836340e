"""Run Vidur on given requests and step times; for the Python in which Vidur is installed.

Reads JSON from standard input and prints one line of JSON. Everything that costs Vidur time and
is not its simulation is left out: its step-time model (random forests) is replaced by one sum,
and it keeps no metrics.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def main() -> None:
    """Simulate what standard input holds; print the CPU seconds, and what came of it."""
    asked = json.load(sys.stdin)

    from vidur._native.entities import ExecutionTime
    from vidur.config import config
    from vidur.entities import Request
    from vidur.scheduler.global_scheduler import base_global_scheduler
    from vidur.simulator import RequestGeneratorRegistry, Simulator

    base_ms, token_ms, context_ms = asked["step_ms"]
    requests = [Request(*row) for row in asked["requests"]]
    steps = 0

    class Linear:
        def get_execution_time(self, batch: Any, _stage: int) -> Any:
            nonlocal steps
            steps += 1
            tokens, context = sum(batch.num_q_tokens), sum(batch.num_kv_tokens)
            duration_ms = base_ms + token_ms * tokens + context_ms * context
            return ExecutionTime(1, 0, 0, duration_ms, *[0] * 11)

    class Given:
        def generate(self) -> list[Any]:
            return requests

    base_global_scheduler.ExecutionTimePredictorRegistry.get = lambda *_, **__: Linear()
    RequestGeneratorRegistry.get = lambda *_, **__: Given()
    off = {
        name: False
        for name in config.MetricsConfig.__dataclass_fields__
        if name.startswith(("write_", "store_", "keep_", "enable_"))
    }
    simulator = Simulator(
        config.SimulationConfig(
            log_level="error",
            cluster_config=config.ClusterConfig(
                num_replicas=1,
                replica_config=config.ReplicaConfig(
                    model_name="meta-llama/Llama-3-8B",
                    device="h100",
                    network_device="h100_dgx",
                    num_pipeline_stages=1,
                    tensor_parallel_size=1,
                ),
                cache_config=config.CacheConfig(num_blocks=asked["num_blocks"]),
                replica_scheduler_config=config.SarathiSchedulerConfig(
                    chunk_size=asked["max_num_batched_tokens"],
                    batch_size_cap=asked["max_num_seqs"],
                ),
            ),
            request_generator_config=config.TraceRequestGeneratorConfig(
                max_tokens=asked["max_model_len"]
            ),
            metrics_config=config.MetricsConfig(**off, output_dir=asked["folder"]),
        )
    )
    simulator._write_output = lambda: None
    start = time.process_time()
    simulator.run()
    cpu_s = time.process_time() - start
    e2e_s = sum(r.completed_at - r.arrived_at for r in requests) / len(requests)
    print(json.dumps({"cpu_s": cpu_s, "steps": steps, "e2e_s": e2e_s}))


if __name__ == "__main__":
    main()
