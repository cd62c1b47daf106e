"""Models of real shapes with random weights, made on the spot: there need be no model hub."""

from __future__ import annotations

import fcntl
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.support.tiny_model import write_tokenizer

#: Values that all weights are cut from: making 15 GB of new ones takes minutes, and no loader looks at them.
_POOL = 1 << 25

_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Shape:
    """The shape of a Qwen2 model."""

    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool
    shards: int


SHAPES = {
    "tiny": Shape(256, 2, 704, 4, 2, 1024, True, 1),
    "0.5b": Shape(896, 24, 4864, 14, 2, 151936, True, 1),  # Qwen2.5-0.5B
    "7b": Shape(3584, 28, 18944, 28, 4, 152064, False, 4),  # Qwen2.5-7B
}


def make(name: str, folder: Path) -> Path:
    """Write a model, unless it is there already, and return its folder; two at a time do not disturb each other."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / _INDEX).exists():
            _write(SHAPES[name], folder)
    return folder


def _write(shape: Shape, folder: Path) -> None:
    words = write_tokenizer(folder)
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": shape.hidden,
        "hidden_act": "silu",
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "initializer_range": 0.02,
        "tie_word_embeddings": shape.tied,
        "torch_dtype": "bfloat16",
        "bos_token_id": 0,
        "eos_token_id": 2,
        "use_cache": True,
        "attention_dropout": 0.0,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    generation = {"bos_token_id": 0, "eos_token_id": 2, "do_sample": False}
    (folder / "generation_config.json").write_text(json.dumps(generation) + "\n", encoding="utf-8")
    weights = list(_weights(shape))
    pool = (np.random.default_rng(0).normal(0.0, 0.02, _POOL).astype("<f4").view("<u4") >> 16).astype("<u2")
    weight_map, total, size = {}, 0, -(-len(weights) // shape.shards)
    for number in range(shape.shards):
        file = f"model-{number + 1:05d}-of-{shape.shards:05d}.safetensors"
        part = weights[number * size : (number + 1) * size]
        total += _write_shard(folder / file, part, pool, words)
        weight_map.update(dict.fromkeys((tensor for tensor, _ in part), file))
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / _INDEX).write_text(json.dumps(index) + "\n", encoding="utf-8")  # last: it says that the rest is whole


def _weights(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    head = shape.hidden // shape.heads
    yield "model.embed_tokens.weight", (shape.vocabulary, shape.hidden)
    for layer in range(shape.layers):
        at = f"model.layers.{layer}"
        yield f"{at}.input_layernorm.weight", (shape.hidden,)
        for name, heads in (("q", shape.heads), ("k", shape.kv_heads), ("v", shape.kv_heads)):
            yield f"{at}.self_attn.{name}_proj.weight", (heads * head, shape.hidden)
            yield f"{at}.self_attn.{name}_proj.bias", (heads * head,)
        yield f"{at}.self_attn.o_proj.weight", (shape.hidden, shape.heads * head)
        yield f"{at}.post_attention_layernorm.weight", (shape.hidden,)
        yield f"{at}.mlp.gate_proj.weight", (shape.intermediate, shape.hidden)
        yield f"{at}.mlp.up_proj.weight", (shape.intermediate, shape.hidden)
        yield f"{at}.mlp.down_proj.weight", (shape.hidden, shape.intermediate)
    yield "model.norm.weight", (shape.hidden,)
    if not shape.tied:
        yield "lm_head.weight", (shape.vocabulary, shape.hidden)


def _write_shard(file: Path, weights: list[tuple[str, tuple[int, ...]]], pool: np.ndarray, words: int) -> int:
    """Write a shard, and return the bytes of its tensors."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in weights:
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(file, "wb") as output:
        output.write(struct.pack("<Q", len(text)) + text)
        for number, (name, shape) in enumerate(weights):
            for block in _values(name, shape, pool, words, number):
                output.write(block.data.cast("B"))
    return offset


def _values(name: str, shape: tuple[int, ...], pool: np.ndarray, words: int, number: int) -> Iterator[np.ndarray]:
    """Yield a tensor's values: ones for norms, and no logit for what the tokenizer has no word for."""
    count = int(np.prod(shape))
    if "norm" in name:
        yield np.full(count, 0x3F80, "<u2")
        return
    known = min(words, shape[0]) * shape[1] if name.startswith(("model.embed", "lm_head")) else count
    start, left = number * 65521 % (_POOL // 2), known
    while left:
        part = pool[start : start + left]
        yield part
        left, start = left - len(part), 0
    if count > known:
        yield np.zeros(count - known, "<u2")
