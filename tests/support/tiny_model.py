"""Make a small real model: a Qwen2 with random weights in safetensors shards, with index, tokenizer and chat template.

No model hub is needed, nor torch: weights are written as bfloat16 bits by numpy, the tokenizer is trained on the spot.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TEXT = "the quick brown fox jumps over the lazy dog; an image that starts warm serves its first token sooner"

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tiny_model(directory: Path, *, hidden: int = 256, layers: int = 4, shards: int = 2, seed: int = 0) -> Path:
    """Write the model into ``directory``, which is made, and return it; the same arguments give the same bytes."""
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(directory)
    heads, kv_heads, intermediate = hidden // 64, max(1, hidden // 128), hidden * 11 // 4
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": hidden,
        "hidden_act": "silu",
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": 0,
        "eos_token_id": 2,
        "use_cache": True,
        "attention_dropout": 0.0,
    }
    _write_json(directory / "config.json", config)
    _write_json(directory / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 2, "do_sample": False})
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        shapes |= {
            f"{at}.input_layernorm.weight": (hidden,),
            f"{at}.self_attn.q_proj.weight": (hidden, hidden),
            f"{at}.self_attn.q_proj.bias": (hidden,),
            f"{at}.self_attn.k_proj.weight": (kv_heads * 64, hidden),
            f"{at}.self_attn.k_proj.bias": (kv_heads * 64,),
            f"{at}.self_attn.v_proj.weight": (kv_heads * 64, hidden),
            f"{at}.self_attn.v_proj.bias": (kv_heads * 64,),
            f"{at}.self_attn.o_proj.weight": (hidden, hidden),
            f"{at}.post_attention_layernorm.weight": (hidden,),
            f"{at}.mlp.gate_proj.weight": (intermediate, hidden),
            f"{at}.mlp.up_proj.weight": (intermediate, hidden),
            f"{at}.mlp.down_proj.weight": (hidden, intermediate),
        }
    shapes |= {"model.norm.weight": (hidden,), "lm_head.weight": (vocabulary, hidden)}
    _write_shards(directory, shapes, shards, np.random.default_rng(seed))
    return directory


def write_tokenizer(directory: Path) -> int:
    """Train a byte-level BPE tokenizer, write its files, and return the number of its tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 2048,
        "chat_template": CHAT_TEMPLATE,
    }
    _write_json(directory / "tokenizer_config.json", settings)
    return int(tokenizer.get_vocab_size())


def _write_shards(
    directory: Path, shapes: dict[str, tuple[int, ...]], shards: int, random: np.random.Generator
) -> None:
    names = list(shapes)
    size = -(-len(names) // shards)
    weight_map = {}
    total = 0
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        data = []
        offset = 0
        for name in names[number * size : (number + 1) * size]:
            part = _bfloat16(name, shapes[name], random)
            header[name] = {"dtype": "BF16", "shape": shapes[name], "data_offsets": [offset, offset + len(part)]}
            offset += len(part)
            data.append(part)
            weight_map[name] = file
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        (directory / file).write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data))
        total += offset
    _write_json(
        directory / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map}
    )


def _bfloat16(name: str, shape: tuple[int, ...], random: np.random.Generator) -> bytes:
    """Return a tensor's bytes: ones for norms, else normal values; bfloat16 is the upper half of float32."""
    values = np.ones(shape) if "norm" in name else random.normal(0.0, 0.05, shape)
    bits = values.astype("<f4").view("<u4") + 0x8000  # round to nearest
    return (bits >> 16).astype("<u2").tobytes()


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    make_tiny_model(Path(sys.argv[1]))
