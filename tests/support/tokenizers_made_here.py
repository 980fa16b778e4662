"""Small tokenizers, trained on the spot: no file is downloaded, and none is kept."""

# ruff: noqa: RUF001 - Chinese has its own punctuation
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

ENGLISH = (
    "My invoice of the third of March is wrong and nobody in your support has answered for two weeks. "
    "The application crashes whenever I open the settings, and the log says: connection refused (error 4711). "
    "Please refund the amount of 49.90 to my account, or tell me when a person will call me back!\n"
)
CHINESE = "你好。我的发票金额错误，请尽快退款。应用程序每次打开都会崩溃，无法登录账户。请告诉我什么时候会有人联系我！\n"
GERMAN = "Die Rechnung vom dritten März ist falsch, und die Anwendung stürzt beim Öffnen der Einstellungen ab.\n"
JSON = '{"id": 4711, "status": "open", "lines": [{"sku": "A-17", "price": 49.9}, {"sku": "B-3", "price": 7}]}\n'
TEXTS = {"english": ENGLISH, "chinese": CHINESE, "german": GERMAN, "json": JSON}


def byte_level(folder: Path, vocabulary: int = 600) -> Path:
    """Write the tokenizer.json of a byte-level BPE, as Qwen, Llama 3 and Mistral NeMo have; return its path."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["</s>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS.values(), trainer)
    tokenizer.enable_truncation(16)  # files found in the wild truncate and pad; a count must not
    tokenizer.enable_padding(length=32, pad_token="</s>")  # noqa: S106 - no secret
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return path
