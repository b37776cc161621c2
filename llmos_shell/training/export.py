"""Writes `tiny` as GGUF, Q8_0, for llama.cpp."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from llmos_shell.training.network import Network
from llmos_shell.training.tokens import BOS, EOS, UNKNOWN, Tokenizer

CHAT_TEMPLATE = (
    "{%- for message in messages -%}{%- if message['role'] == 'user' -%}"
    "<ask> {{ message['content'] | trim | lower | replace('?', '') | replace('\\'', '') }}<do>"
    "{%- elif message['role'] == 'assistant' -%}{{ message['content'] }}</s>{%- endif -%}{%- endfor -%}"
)
"""Each user message as a question of its own; system messages are left out."""


def write(path: Path, network: Network, tokenizer: Tokenizer) -> None:
    """Writes weights, tokenizer, template and licence. Norms are stored as F32, matrices as Q8_0."""
    shape = network.shape
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_description("The shell's assistant of LLMasOS: turns a question into a command line.")
    writer.add_author("LLMasOS")
    writer.add_license("MIT")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    _add_tokenizer(writer, tokenizer)
    for name, values in _tensors(network).items():
        if values.ndim == 1:
            writer.add_tensor(name, values)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_scores([tokenizer.score(token) for token in range(len(tokenizer))])
    writer.add_token_types([int(tokenizer.type(token)) for token in range(len(tokenizer))])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_unk_token_id(UNKNOWN)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _tensors(network: Network) -> dict[str, npt.NDArray[np.float32]]:
    """Tensors under llama.cpp's names. The output matrix is the embedding."""
    weights = {name: value.detach().float().numpy() for name, value in network.state_dict().items()}
    tensors = {"token_embd.weight": weights["embedding.weight"], "output_norm.weight": weights["norm.weight"]}
    for number in range(network.shape.layers):
        ours, theirs = f"layers.{number}", f"blk.{number}"
        for name, part in zip("qkv", np.split(weights[f"{ours}.qkv.weight"], 3), strict=True):
            tensors[f"{theirs}.attn_{name}.weight"] = part
        for name, part in zip(("gate", "up"), np.split(weights[f"{ours}.gate_up.weight"], 2), strict=True):
            tensors[f"{theirs}.ffn_{name}.weight"] = part
        tensors[f"{theirs}.attn_output.weight"] = weights[f"{ours}.output.weight"]
        tensors[f"{theirs}.ffn_down.weight"] = weights[f"{ours}.down.weight"]
        tensors[f"{theirs}.attn_norm.weight"] = weights[f"{ours}.attention_norm.weight"]
        tensors[f"{theirs}.ffn_norm.weight"] = weights[f"{ours}.hidden_norm.weight"]
    return {name: np.ascontiguousarray(value) for name, value in tensors.items()}
