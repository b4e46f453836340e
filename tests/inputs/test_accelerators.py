"""Every accelerator's datasheet row: dense rates, one direction, and uncertainty labelled."""

from __future__ import annotations

import pytest

from simserve.inputs.engine_defaults import load_engine
from simserve.inputs.hardware_profile import list_gpus, load_gpu

# name: GB/s, then dense TFLOPS or TOPS by dtype, link in GB/s one way, from the vendors'
# datasheets by the sources that the profiles name.
ROWS: dict[str, tuple[float, dict[str, float], float]] = {
    "v100-sxm2-16gb": (900, {"fp16": 125}, 150),
    "v100-sxm2-32gb": (900, {"fp16": 125}, 150),
    "t4": (320, {"fp16": 65, "int8": 130}, 16),
    "a10": (600, {"bf16": 125, "int8": 250}, 32),
    "a10g": (600, {"bf16": 70, "int8": 140}, 32),
    "a100-40gb-sxm": (1555, {"bf16": 312, "int8": 624}, 300),
    "a100-40gb-pcie": (1555, {"bf16": 312, "int8": 624}, 32),
    "a100-80gb-sxm": (2039, {"bf16": 312, "int8": 624}, 300),
    "a100-80gb-pcie": (1935, {"bf16": 312, "int8": 624}, 32),
    "a30": (933, {"bf16": 165, "int8": 330}, 32),
    "l4": (300, {"bf16": 121, "fp8": 242, "int8": 242}, 32),
    "l40s": (864, {"bf16": 362, "fp8": 733, "int8": 733}, 32),
    "rtx-4090": (1008, {"bf16": 165, "fp8": 330, "int8": 660}, 32),
    "rtx-5090": (1792, {"bf16": 209.5, "fp8": 419, "int8": 838, "fp4": 1676}, 64),
    "rtx-pro-6000-server": (1792, {"bf16": 468, "fp8": 936, "int8": 936, "fp4": 1871}, 64),
    "h100-pcie": (2000, {"bf16": 756, "fp8": 1513, "int8": 1513}, 32),
    "h100-sxm": (3350, {"bf16": 989, "fp8": 1979, "int8": 1979}, 450),
    "h100-nvl": (3938, {"bf16": 835, "fp8": 1671, "int8": 1671}, 300),
    "h200-sxm": (4800, {"bf16": 989, "fp8": 1979, "int8": 1979}, 450),
    "gh200-96gb": (4000, {"bf16": 989, "fp8": 1979, "int8": 1979}, 450),
    "gh200-144gb": (4900, {"bf16": 989, "fp8": 1979, "int8": 1979}, 450),
    "b200-sxm": (7700, {"bf16": 2250, "fp8": 4500, "int8": 4500, "fp4": 9000}, 900),
    "gb200-nvl72": (8000, {"bf16": 2500, "fp8": 5000, "int8": 5000, "fp4": 10000}, 900),
    "b300-sxm": (7750, {"bf16": 2250, "fp8": 4500, "int8": 154, "fp4": 13500}, 900),
    "gb300-nvl72": (8000, {"bf16": 2500, "fp8": 5000, "int8": 165, "fp4": 15000}, 900),
    "h20": (4096, {"bf16": 148, "fp8": 296, "int8": 296}, 450),
    "mi250x": (3277, {"bf16": 383, "int8": 383}, 400),
    "mi300x": (5300, {"bf16": 1307, "fp8": 2615, "int8": 2615}, 448),
    "mi325x": (6000, {"bf16": 1307, "fp8": 2615, "int8": 2615}, 448),
    "mi355x": (8000, {"bf16": 2516, "fp8": 5033, "int8": 5033, "fp4": 10066}, 538),
    "gaudi-2": (2450, {"bf16": 432, "fp8": 865}, 300),
    "gaudi-3": (3700, {"bf16": 1835, "fp8": 1835}, 600),
    "tpu-v5e": (819, {"bf16": 197, "int8": 393}, 200),
    "tpu-v5p": (2765, {"bf16": 459, "int8": 918}, 600),
    "tpu-v6e": (1638, {"bf16": 918, "int8": 1836}, 400),
    "tpu7x": (7380, {"bf16": 2307, "fp8": 4614}, 600),
    "trainium2": (2900, {"bf16": 667, "fp8": 1299}, 640),
    "inferentia2": (820, {"bf16": 190, "fp8": 190, "int8": 380}, 96),
    "ibm-spyre": (200, {"unstated": 300}, 64),
    "apple-m2-ultra": (800, {"fp16": 27}, 0),
    "apple-m3-max": (400, {"fp16": 14}, 0),
    "apple-m3-ultra": (819, {"fp16": 28}, 0),
    "apple-m4-max": (546, {"fp16": 17}, 0),
}
# The 2:4-sparse 16-bit rates that NVIDIA's pages print first: none may be in a profile.
SPARSE_BF16_TFLOPS = {
    "a100-80gb-sxm": 624,
    "a30": 330,
    "l4": 242,
    "l40s": 733,
    "h100-pcie": 1513,
    "h100-sxm": 1979,
    "h100-nvl": 1671,
    "h200-sxm": 1979,
    "gh200-96gb": 1979,
    "b200-sxm": 4500,
    "gb200-nvl72": 5000,
}


def test_every_profile_is_in_the_table() -> None:
    assert set(ROWS) == set(list_gpus())


@pytest.mark.parametrize("name", sorted(ROWS))
def test_a_profile_has_the_dense_figures_of_its_datasheet(name: str) -> None:
    gpu = load_gpu(name)
    bandwidth, rates, link = ROWS[name]
    assert gpu.hbm_bytes_per_s == bandwidth * 1e9
    assert gpu.flops_per_s == {dtype: rate * 1e12 for dtype, rate in rates.items()}
    assert gpu.link_bytes_per_s == link * 1e9


@pytest.mark.parametrize("name", sorted(SPARSE_BF16_TFLOPS))
def test_no_sixteen_bit_rate_is_a_sparse_one(name: str) -> None:
    dense, sparse = load_gpu(name).flops_per_s["bf16"], SPARSE_BF16_TFLOPS[name] * 1e12
    assert dense == pytest.approx(sparse / 2, rel=0.02)


@pytest.mark.parametrize("name", list_gpus())
def test_an_eight_bit_rate_is_at_most_four_times_the_sixteen_bit_rate(name: str) -> None:
    rates = load_gpu(name).flops_per_s
    sixteen = rates.get("bf16") or rates.get("fp16")
    for dtype in ("fp8", "int8"):
        if sixteen and dtype in rates:
            assert rates[dtype] <= 4 * sixteen


@pytest.mark.parametrize("name", list_gpus())
def test_what_is_not_verified_is_assumed(name: str) -> None:
    for key, number in load_gpu(name).sources.items():
        if "general knowledge" in number.source:
            assert number.kind == "assumed", key


@pytest.mark.parametrize("name", list_gpus())
def test_only_measurements_of_the_part_itself_are_not_assumed_efficiencies(name: str) -> None:
    for key, number in load_gpu(name).efficiency.items():
        if "carried over" in number.source:
            assert number.kind == "assumed", key


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("v100", "v100-sxm2-32gb"),
        ("a100-pcie", "a100-80gb-pcie"),
        ("RTXPRO6000", "rtx-pro-6000-server"),
        ("gh200", "gh200-96gb"),
        ("b200", "b200-sxm"),
        ("gaudi3", "gaudi-3"),
        ("trillium", "tpu-v6e"),
        ("ironwood", "tpu7x"),
        ("trn2", "trainium2"),
        ("spyre", "ibm-spyre"),
        ("m4-max", "apple-m4-max"),
    ],
)
def test_an_accelerator_is_found_by_its_short_name(alias: str, name: str) -> None:
    assert load_gpu(alias).name == name


# As the package's own METADATA has it: NVIDIA and AMD itself, the others by plugins.
BY_OTHERS = ("apple-", "gaudi-", "ibm-", "inferentia", "tpu", "trainium")


@pytest.mark.parametrize("name", list_gpus())
def test_hardware_that_vllm_does_not_run_on_is_remarked(name: str) -> None:
    remark = load_engine().remark_on(name)
    assert (remark is not None) == name.startswith(BY_OTHERS)
    assert remark is None or f"does not run on {name}: " in remark
