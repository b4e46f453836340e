"""How to start a plan: the launch line of one server, and a Compose file of all of them."""

from __future__ import annotations

import dataclasses
import json
import shlex

from simserve.errors import InputError
from simserve.inputs.deployment import Deployment
from simserve.inputs.launch_line.write import (
    DATA_PARALLEL_ROUTER,
    remarks_on,
    to_serve_command,
)
from simserve.planning.plan.race import Plan

# The most GPUs in one machine of the price list's common kinds: Compose knows one machine.
MOST_GPUS_OF_MACHINE = 8
FIRST_PORT = 8000
_AMD = "mi"  # the prefix of AMD's parts in the catalogue


def fleet_of(plan: Plan) -> Deployment:
    """Return the deployment of all replicas of a plan."""
    return dataclasses.replace(plan.deployment, replicas=plan.replicas)


def serve_lines(plan: Plan) -> tuple[str, list[str]]:
    """Return the launch line of a server of the plan, and what has to be known beside it."""
    fleet = fleet_of(plan)
    try:
        return to_serve_command(fleet), remarks_on(fleet)
    except InputError as error:
        return "", [f"vLLM cannot be told: {error}"]


def compose_text(plan: Plan) -> str:
    """Return a Compose file for one machine; a router stands in front of several servers.

    Of a fleet on several machines it has as many servers as one machine holds.
    """
    fleet = fleet_of(plan)
    line, _ = serve_lines(plan)
    if not line:
        return ""
    words = shlex.split(line)[2:]  # behind "vllm serve"
    in_one = fleet.router == DATA_PARALLEL_ROUTER and plan.replicas > 1
    gpus_each = plan.gpus if in_one else plan.candidate.tp
    servers = 1 if in_one else min(plan.replicas, max(1, MOST_GPUS_OF_MACHINE // gpus_each))
    tag = f"v{fleet.engine_version}"
    lines = ["services:"]
    for number in range(servers):
        ports = None if servers > 1 else f"{FIRST_PORT}:{FIRST_PORT}"
        lines += _server(
            f"vllm-{number}",
            words,
            range(number * gpus_each, (number + 1) * gpus_each),
            plan.candidate.gpu,
            tag,
            ports,
        )
    if servers > 1:
        lines += _router(servers)
    return "\n".join(lines)


def _server(
    name: str, words: list[str], gpus: range, gpu: str, tag: str, ports: str | None
) -> list[str]:
    amd = gpu.startswith(_AMD)
    image = "vllm/vllm-openai-rocm" if amd else "vllm/vllm-openai"
    lines = [
        f"  {name}:",
        f"    image: {image}:{tag}",
        "    entrypoint: [vllm, serve]",
        "    command:",
        *(f"      - {json.dumps(word)}" for word in words),
        "    ipc: host",
    ]
    if ports is not None:
        lines.append(f"    ports: [{json.dumps(ports)}]")
    if amd:
        devices = ", ".join(f"/dev/dri/renderD{128 + one}" for one in gpus)
        return [*lines, f"    devices: [/dev/kfd, {devices}]"]
    ids = ", ".join(json.dumps(str(one)) for one in gpus)
    return [
        *lines,
        "    deploy:",
        "      resources:",
        "        reservations:",
        "          devices:",
        f"            - {{driver: nvidia, device_ids: [{ids}], capabilities: [gpu]}}",
    ]


def _router(servers: int) -> list[str]:
    """Return the service that gives requests to the servers in turn."""
    upstream = " ".join(f"server vllm-{number}:{FIRST_PORT};" for number in range(servers))
    return [
        "  router:",
        "    image: nginx:stable",
        f'    ports: ["{FIRST_PORT}:80"]',
        "    configs: [{source: router, target: /etc/nginx/conf.d/default.conf}]",
        "configs:",
        "  router:",
        "    content: |",
        f"      upstream servers {{ {upstream} }}",
        "      server {",
        "        listen 80;",
        "        location / {",
        "          proxy_pass http://servers;",
        "          proxy_buffering off;",
        "          proxy_read_timeout 1h;",
        "        }",
        "      }",
    ]
