"""Cross-encoders of each architecture, by its own configuration and kind of tokenizer, small enough for a test."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from tests.tiny_cross_encoder import TOPICS

_HF: Any = transformers  # its type hints lack what is loaded when it is asked for

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
TEXTS = [
    *(f"This is {word}: oil the {topic} {number} times." for word in ("valid", "void") for topic in TOPICS
      for number in range(10)),
    *(f"how to oil the {topic}?" for topic in TOPICS),
    "Judge whether the passage answers the query. Note that the answer can only be yes or no.",
]  # fmt: skip
_VOCABULARY = 400

CHAT_TEMPLATE = (
    "<|im_start|>system\nJudge whether the Document answers the Query. Note that the answer can only be "
    '"yes" or "no".<|im_end|>\n<|im_start|>user\n'
    "<Instruct>: {{ (messages | selectattr('role', 'eq', 'system') | map(attribute='content') | list + ['Search'])"
    " | first }}\n"
    "<Query>: {{ messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first }}\n"
    "<Document>: {{ messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first }}"
    "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
"""What Qwen3's rerankers are asked, shortened."""


def write_bert(folder: Path) -> None:
    """WordPiece, `[CLS] query [SEP] passage [SEP]`."""

    size = _word_pieces(folder)
    _HF.BertForSequenceClassification(_HF.BertConfig(vocab_size=size, num_labels=1, **SIZES)).save_pretrained(folder)


def write_electra(folder: Path) -> None:
    """As BERT, with embeddings of a width of their own and a head of two layers."""

    config = _HF.ElectraConfig(vocab_size=_word_pieces(folder), num_labels=1, embedding_size=16, **SIZES)
    _HF.ElectraForSequenceClassification(config).save_pretrained(folder)


def write_xlm_roberta(folder: Path) -> None:
    """Unigram, `<s> query </s></s> passage </s>`, positions counted from 2."""

    tokenizer = _HF.XLMRobertaTokenizer(vocab=_unigrams(("<s>", "<pad>", "</s>", "<unk>")), model_max_length=128)
    tokenizer.save_pretrained(folder)
    config = _HF.XLMRobertaConfig(
        vocab_size=len(tokenizer), num_labels=1, max_position_embeddings=130, type_vocab_size=1, **SIZES
    )
    _HF.XLMRobertaForSequenceClassification(config).save_pretrained(folder)


def write_deberta(folder: Path) -> None:
    """Unigram, relative positions in buckets and no absolute ones, as DeBERTa-v3."""

    special = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")
    tokenizer = _HF.DebertaV2Tokenizer(vocab=_unigrams(special), unk_id=3, model_max_length=512)
    tokenizer.save_pretrained(folder)
    config = _HF.DebertaV2Config(
        vocab_size=len(tokenizer),
        num_labels=1,
        relative_attention=True,
        position_buckets=16,
        max_relative_positions=-1,
        pos_att_type=["p2c", "c2p"],
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        position_biased_input=False,
        type_vocab_size=0,
        pooler_hidden_size=SIZES["hidden_size"],
        **SIZES,
    )
    _HF.DebertaV2ForSequenceClassification(config).save_pretrained(folder)


def write_modernbert(folder: Path) -> None:
    """Byte-level BPE, rotary positions, a window of attention in two of three layers."""

    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    backend = _byte_pairs(tuple(special))
    cls, sep = (backend.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", cls), ("[SEP]", sep)]
    )
    names = dict(zip(("unk_token", "cls_token", "sep_token", "pad_token", "mask_token"), special, strict=True))
    inputs = ["input_ids", "attention_mask"]
    tokenizer = _HF.PreTrainedTokenizerFast(
        tokenizer_object=backend, model_max_length=512, model_input_names=inputs, **names
    )
    tokenizer.save_pretrained(folder)
    config = _HF.ModernBertConfig(
        vocab_size=len(tokenizer),
        num_labels=1,
        local_attention=8,
        pad_token_id=tokenizer.pad_token_id,
        cls_token_id=tokenizer.cls_token_id,
        sep_token_id=tokenizer.sep_token_id,
        bos_token_id=None,
        eos_token_id=None,
        classifier_pooling="mean",
        **SIZES,
    )
    _HF.ModernBertForSequenceClassification(config).save_pretrained(folder)


def write_qwen3_classifier(folder: Path) -> None:
    """A decoder with a classification head on its last token, asked through its chat template."""

    _HF.Qwen3ForSequenceClassification(_qwen3(folder, num_labels=1)).save_pretrained(folder)


def write_qwen3_yes_no(folder: Path) -> None:
    """A decoder asked for "yes" or "no", its embeddings tied to what it says."""

    _HF.Qwen3ForCausalLM(_qwen3(folder, tie_word_embeddings=True)).save_pretrained(folder)


WRITERS: dict[str, Callable[[Path], None]] = {
    "bert": write_bert,
    "electra": write_electra,
    "xlm-roberta": write_xlm_roberta,
    "deberta-v3": write_deberta,
    "modernbert": write_modernbert,
    "qwen3-classifier": write_qwen3_classifier,
    "qwen3-yes-no": write_qwen3_yes_no,
}
"""What writes a model of each architecture to a folder."""


def write_architecture(name: str, folder: Path, spread: float = 0.15) -> Path:
    """A model of this architecture with random weights, far enough apart for its scores to differ."""
    _HF.set_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    WRITERS[name](folder)
    random = torch.Generator().manual_seed(1)
    path = folder / "model.safetensors"
    tensors = {
        key: value + spread * torch.randn(value.shape, generator=random) if value.is_floating_point() else value
        for key, value in sorted(load_file(path).items())
    }
    save_file(tensors, path, metadata={"format": "pt"})
    return folder


def _qwen3(folder: Path, **changes: Any) -> Any:

    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "yes", "no")
    backend = json.loads(_byte_pairs(special).to_str())["model"]
    tokenizer = _HF.Qwen2Tokenizer(
        vocab=backend["vocab"],
        merges=[tuple(merge) for merge in backend["merges"]],
        extra_special_tokens=["<|im_start|>", "<|im_end|>", "<think>", "</think>"],
        model_max_length=2048,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return _HF.Qwen3Config(
        vocab_size=len(tokenizer),
        num_key_value_heads=1,
        head_dim=SIZES["hidden_size"] // SIZES["num_attention_heads"],
        max_position_embeddings=2048,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        **(SIZES | changes),
    )


def _word_pieces(folder: Path) -> int:

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=_VOCABULARY, special_tokens=special))
    tokenizer = _HF.BertTokenizer(vocab=backend.get_vocab(), model_max_length=512)
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


@lru_cache
def _unigrams(special: tuple[str, ...]) -> list[tuple[str, float]]:
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=list(special), unk_token=special[3])
    backend.train_from_iterator(TEXTS, trainer)
    return [(token, float(score)) for token, score in json.loads(backend.to_str())["model"]["vocab"]]


@lru_cache
def _byte_pairs(special: tuple[str, ...]) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    return backend
