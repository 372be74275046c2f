"""The texts of all cases: some of those of tests/golden, and texts about added and special tokens."""

import json
from pathlib import Path

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "texts.json").read_text(encoding="utf-8"))

# Texts with the added tokens of cases.py, and with special tokens of every family.
ADDED = [
    "@user url [E1] lol", "hello [E1]", "[E1][E2]", "x[E1]y", "a [E1] b", "New_Token here", "NEW_TOKEN here", "new_token",
    "xnew_tokeny", "Hello World PLAY", "ÉCOLE naïve Straße", "crème brûlée", "[CLS] a [SEP] b [MASK]", "<s> a </s> b <mask>",
    "<pad> [PAD] [UNK] <unk>", "<mask>", " <mask> music", "[MASK]music", "[unk] [cls]", "``quoted'' text", "a  b   c", "play   music ",
    " leading", "trailing ", "\tplay\nmusic", "MUSIC", "Music", "ＭＵＳＩＣ", "①②", "ﬁne", "it's o'clock", "中文 音乐", "音乐播放", "日本語の音楽",
    "한국어 음악", "😀 play 🎵", "👩‍💻 music", "e\u0301cole", "<s>NOTUSED", "<image> play", "played playing player", "unplayable",
]
LONG = ["play music " * 40, "a" * 300, "音乐" * 60, "word " * 200, "a" + " " * 5002 + "b", "a" + " " * 1000 + "<mask>", "q" * 800 + "<mask>" + " " * 600 + "x y", "x" * 160 + " playing player unplayable" + "z" * 200 + " play music"]
PAIRS = [
    ["play some jazz", "what is the weather"], ["", "one side only"], ["one side only", ""], ["play [E1]", "[SEP] music"],
    ["play music " * 30, "weather today " * 5], ["a b c", "play music " * 30], ["a " * 300, "weather " * 260],
]
TEXTS = [text for text in GOLDEN["classification"] if isinstance(text, str)][:40]
TEXTS += [text for text in GOLDEN["tokenization"] if isinstance(text, str) and len(text) < 80][::17][:112]
TEXTS += ADDED + LONG + PAIRS
