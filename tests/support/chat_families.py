"""Families of chat models as their tokenizers know them: which tokens are no text, and how a turn is written.

Sources: `tokenizer_config.json` and the chat template as their makers publish them. The templates here are the plain
case, texts of a system and of a user. `control` tokens are what a server finds in a prompt although they are spelt as
text; `parsed` ones (GGUF: user defined) it finds in any text, and models think and call tools by them.
"""

# ruff: noqa: RUF001 - DeepSeek spells its tokens with a full-width bar

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """`begin` opens a conversation, `end` ends an answer; `turn` spells one, its role as ROLE and its text as TEXT."""

    name: str
    begin: str
    end: str
    turn: str
    answer: str
    control: tuple[str, ...]
    parsed: tuple[str, ...] = ()
    opens: bool = True

    @property
    def tokens(self) -> tuple[str, ...]:
        """All tokens that are no text, in their order in the vocabulary: they come last there."""
        return self.control + self.parsed

    @property
    def template(self) -> str:
        """The Jinja template of a conversation that the model shall go on with."""
        turn = self.turn.replace("ROLE", "{{ m['role'] }}").replace("TEXT", "{{ m['content'] }}")
        begin = self.begin if self.opens else ""
        return f"{begin}{{% for m in messages %}}{turn}{{% endfor %}}{self.answer}"


CHATML = Family(  # Qwen, SmolLM, Hermes
    name="chatml",
    begin="<|endoftext|>",
    opens=False,
    end="<|im_end|>",
    turn="<|im_start|>ROLE\nTEXT<|im_end|>\n",
    answer="<|im_start|>assistant\n",
    control=("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>", "<|vision_start|>", "<|fim_prefix|>"),
    parsed=("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
)
LLAMA_3 = Family(
    name="llama 3",
    begin="<|begin_of_text|>",
    end="<|eot_id|>",
    turn="<|start_header_id|>ROLE<|end_header_id|>\n\nTEXT<|eot_id|>",
    answer="<|start_header_id|>assistant<|end_header_id|>\n\n",
    control=(
        *(
            "<|begin_of_text|>",
            "<|end_of_text|>",
            "<|start_header_id|>",
            "<|end_header_id|>",
            "<|eot_id|>",
            "<|eom_id|>",
        ),
        *("<|python_tag|>", "<|finetune_right_pad_id|>"),
    ),
)
GEMMA = Family(  # 1 to 3
    name="gemma",
    begin="<bos>",
    end="<end_of_turn>",
    turn="<start_of_turn>ROLE\nTEXT<end_of_turn>\n",
    answer="<start_of_turn>model\n",
    control=(
        *("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"),
        *("<start_of_image>", "<end_of_image>"),
    ),
)
GEMMA_4 = Family(
    name="gemma 4",
    begin="<bos>",
    end="<turn|>",
    turn="<|turn>ROLE\nTEXT<turn|>\n",
    answer="<|turn>model\n",
    control=(
        *("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|turn>", "<turn|>", "<|think|>", "<|channel>", "<channel|>"),
        *("<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>"),
        *("<|image>", "<image|>", "<|audio>", "<audio|>"),
    ),
)
MISTRAL = Family(  # Tekken
    name="mistral",
    begin="<s>",
    end="</s>",
    turn="{% if m['role'] == 'system' %}[SYSTEM_PROMPT]TEXT[/SYSTEM_PROMPT]{% else %}[INST]TEXT[/INST]{% endif %}",
    answer="",
    control=(
        *("<unk>", "<s>", "</s>", "<pad>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        *(
            "[AVAILABLE_TOOLS]",
            "[/AVAILABLE_TOOLS]",
            "[TOOL_CALLS]",
            "[TOOL_RESULTS]",
            "[/TOOL_RESULTS]",
            "[TOOL_CONTENT]",
        ),
        *("[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"),
        *("[AUDIO]", "[BEGIN_AUDIO]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]"),
    ),
)
DEEPSEEK = Family(
    name="deepseek",
    begin="<｜begin▁of▁sentence｜>",
    end="<｜end▁of▁sentence｜>",
    turn="{% if m['role'] == 'system' %}TEXT{% else %}<｜User｜>TEXT{% endif %}",
    answer="<｜Assistant｜>",
    control=(
        *("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>", "<｜User｜>", "<｜Assistant｜>"),
        *("<｜tool▁calls▁begin｜>", "<｜tool▁outputs▁begin｜>", "<|EOT|>"),
    ),
    parsed=("<think>", "</think>"),
)
HARMONY = Family(  # gpt-oss
    name="harmony",
    begin="<|startoftext|>",
    opens=False,
    end="<|return|>",
    turn="<|start|>ROLE<|message|>TEXT<|end|>",
    answer="<|start|>assistant",
    control=(
        *("<|startoftext|>", "<|endoftext|>", "<|return|>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>"),
        *("<|constrain|>", "<|call|>"),
    ),
)
PHI = Family(
    name="phi",
    begin="<s>",
    opens=False,
    end="<|end|>",
    turn="<|ROLE|>\nTEXT<|end|>\n",
    answer="<|assistant|>\n",
    control=("<unk>", "<s>", "</s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|tool|>"),
)
COHERE = Family(
    name="cohere",
    begin="<BOS_TOKEN>",
    end="<|END_OF_TURN_TOKEN|>",
    turn=(
        "<|START_OF_TURN_TOKEN|>{% if m['role'] == 'system' %}<|SYSTEM_TOKEN|>{% else %}<|USER_TOKEN|>{% endif %}"
        "TEXT<|END_OF_TURN_TOKEN|>"
    ),
    answer="<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    control=(
        *("<PAD>", "<UNK>", "<CLS>", "<SEP>", "<MASK_TOKEN>", "<BOS_TOKEN>", "<EOS_TOKEN>", "<EOP_TOKEN>"),
        *(
            "<|START_OF_TURN_TOKEN|>",
            "<|END_OF_TURN_TOKEN|>",
            "<|SYSTEM_TOKEN|>",
            "<|USER_TOKEN|>",
            "<|CHATBOT_TOKEN|>",
        ),
    ),
)
GLM = Family(
    name="glm",
    begin="[gMASK]",
    end="<|endoftext|>",
    turn="<|ROLE|>\nTEXT",
    answer="<|assistant|>\n",
    control=(
        *("<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>"),
        *("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
    ),
    parsed=(
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<arg_key>",
        "</arg_key>",
        "<arg_value>",
        "</arg_value>",
    ),
)
EXAONE = Family(
    name="exaone",
    begin="[BOS]",
    opens=False,
    end="[|endofturn|]",
    turn="[|ROLE|]TEXT[|endofturn|]\n",
    answer="[|assistant|]",
    control=(
        "[PAD]",
        "[BOS]",
        "[EOS]",
        "[UNK]",
        "[|system|]",
        "[|user|]",
        "[|assistant|]",
        "[|endofturn|]",
        "[|tool|]",
    ),
)
MINIMAX = Family(
    name="minimax",
    begin="]~!b[",
    end="[e~[",
    turn="]~b]ROLE\nTEXT[e~[\n",
    answer="]~b]ai\n",
    control=("]~!b[", "]~b]", "[e~[", "]!d~[", "]!p~["),
    parsed=("<think>", "</think>", "<minimax:tool_call>", "</minimax:tool_call>"),
)
FAMILIES = (
    *(CHATML, LLAMA_3, GEMMA, GEMMA_4, MISTRAL, DEEPSEEK),
    *(HARMONY, PHI, COHERE, GLM, EXAONE, MINIMAX),
)
