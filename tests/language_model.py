"""`transformers serve`, an OpenAI-compatible server, with a language model whose weights say one thing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.patience import PATIENCE_S

_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_END = "<|end|>"


def write_language_model(folder: Path, says: str | None) -> Path:
    """A decoder that says one text after any prompt, or without one what random weights make of it.

    The text is one token. Nothing is added to the embeddings, which are unit vectors, so that the head alone decides:
    behind the text comes the end, behind all else the text.
    """
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    library: Any = transformers  # its type hints lack what is loaded when it is asked for
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend = Tokenizer(models.BPE(vocab={byte: number for number, byte in enumerate(sorted(alphabet))}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    roles = ["<|system|>", "<|user|>", "<|assistant|>"]
    tokenizer: Any = library.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=_END, pad_token=_END)
    tokenizer.add_special_tokens({"additional_special_tokens": roles})
    if says is not None:
        tokenizer.add_tokens([says])
    tokenizer.chat_template = _TEMPLATE
    tokenizer.save_pretrained(folder)
    size = len(tokenizer) + len(tokenizer) % 2
    torch.manual_seed(0)
    config = library.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=32_768,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model: Any = library.LlamaForCausalLM(config)
    if says is not None:
        text, end = tokenizer.convert_tokens_to_ids(says), tokenizer.eos_token_id
        with torch.no_grad():
            model.model.layers[0].self_attn.o_proj.weight.zero_()
            model.model.layers[0].mlp.down_proj.weight.zero_()
            model.model.embed_tokens.weight.copy_(torch.eye(len(tokenizer), size))
            model.lm_head.weight.zero_()
            model.lm_head.weight[text] = 1
            model.lm_head.weight[end, text] = 9
    model.save_pretrained(folder)
    return folder


@contextmanager
def served_language_model(folder: Path) -> Iterator[str]:
    """The address of a server of the model in `folder`, on a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("transformers"), "serve", folder, "--host", "127.0.0.1"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--device", "cpu"], env=environment, stdout=output, stderr=output
        )
        try:
            _wait(process, f"http://127.0.0.1:{port}/health", log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text(errors="replace")
        try:
            if httpx.get(url, timeout=5).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"no answer in time: {log.read_text(errors='replace')}")
