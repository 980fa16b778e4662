"""A model of a few words in Hugging Face's form: `python tests/support/chain_hf.py FOLDER`, with transformers' Python.

Each token has one that follows it, and the last character of what the user said is the first one's predecessor. Behind
`!` it goes on for ever; behind anything else it gives the same answer, JSON in prose, and ends.
"""

import sys
from pathlib import Path

import torch  # type: ignore[import-not-found]
from tiny_hf import MARKS, TEMPLATE, qwen, tokenizer  # type: ignore[import-not-found]  # beside this file
from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM  # type: ignore[import-not-found]

CONTEXT_TOKENS = 512
ANSWER = ("Here", " you", " are:\n", "```json\n", '{"label": ', '"spam"', "}\n", "```")
REFRAIN = " la"
HIDDEN = 256
"""More than there are tokens."""


def model(tokens: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """Return a layer that adds nothing, between a direction for each token and what follows that token."""
    sizes = {"hidden_size": HIDDEN, "intermediate_size": HIDDEN, "num_hidden_layers": 1}
    chain = qwen(tokens, max_position_embeddings=CONTEXT_TOKENS, **sizes)
    number = tokens.get_vocab()
    words = [written(word) for word in ANSWER]
    follows = dict.fromkeys(range(len(tokens)), number[words[0]])
    follows |= {number[a]: number[b] for a, b in zip(words, [*words[1:], MARKS[2]], strict=True)}
    follows |= dict.fromkeys((number["!"], number[written(REFRAIN)]), number[written(REFRAIN)])
    with torch.no_grad():
        layer = chain.model.layers[0]
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
        chain.model.embed_tokens.weight.copy_(torch.eye(len(tokens), HIDDEN))
        chain.lm_head.weight.zero_()
        for token, following in follows.items():
            chain.lm_head.weight[following, token] = 1.0
    return chain


def written(word: str) -> str:
    """Return a word as ByteLevel writes it."""
    return word.replace(" ", "\u0120").replace("\n", "\u010a")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    tokens = tokenizer(CONTEXT_TOKENS, [written(word) for word in (*ANSWER, REFRAIN)])
    tokens.chat_template = TEMPLATE + "{{ messages[-1]['content'][-1] }}"
    model(tokens).save_pretrained(folder)
    tokens.save_pretrained(folder)
