"""A tiny random model in Hugging Face's form, for vLLM: `python tests/support/tiny_hf.py FOLDER`, with vLLM's Python.

Its vocabulary is the bytes of ASCII (with all 256 it would write what is no UTF-8) and three marks of ChatML. It never
ends a text by itself: an answer by a schema ends where the grammar says, any other at `max_tokens`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch  # type: ignore[import-not-found]
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM  # type: ignore[import-not-found]

CONTEXT_TOKENS = 16_384
MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""The first tokens of the vocabulary."""
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LAST = "\u0121"
"""ByteLevel writes control characters, blank and DEL, which is this one, as letters from U+0100 on."""
SPREAD = 0.3
"""Wide enough that at temperature 0 no two tokens are nearly equal, whatever the order of a sum."""


def tokenizer(context_tokens: int = CONTEXT_TOKENS, words: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Return one token for each byte of ASCII, behind the marks; other bytes of a prompt are left out.

    `words`: more tokens, which only a model says.
    """
    letters = sorted(
        letter for letter in pre_tokenizers.ByteLevel.alphabet() if letter < "\x7f" or "\u0100" <= letter <= LAST
    )
    vocabulary = {token: number for number, token in enumerate((*MARKS, *letters, *words))}
    bytewise = Tokenizer(models.BPE(vocabulary, []))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bytewise,
        eos_token="<|im_end|>",  # noqa: S106 - no password
        pad_token="<|endoftext|>",  # noqa: S106 - the same
        additional_special_tokens=["<|im_start|>"],
        model_max_length=context_tokens,
    )
    fast.chat_template = TEMPLATE
    return fast


def qwen(tokens: PreTrainedTokenizerFast, **sizes: float) -> Qwen2ForCausalLM:
    """Return a small model for these tokens, its weights as they come."""
    about = {"bos_token_id": None, "eos_token_id": tokens.eos_token_id, "pad_token_id": tokens.pad_token_id}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    return Qwen2ForCausalLM(
        Qwen2Config(vocab_size=len(tokens), tie_word_embeddings=False, **about, **heads, **sizes)
    ).eval()


def model(tokens: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """Return two layers of noise, the same each time."""
    torch.manual_seed(7)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "initializer_range": SPREAD}
    noise = qwen(tokens, max_position_embeddings=CONTEXT_TOKENS, **sizes)
    with torch.no_grad():
        noise.lm_head.weight[: len(MARKS)] = 0.0  # never the likeliest
    return noise


def write_model(folder: Path) -> None:
    """Write the model and its tokenizer into a folder."""
    tokens = tokenizer()
    model(tokens).save_pretrained(folder)
    tokens.save_pretrained(folder)


if __name__ == "__main__":
    write_model(Path(sys.argv[1]))
