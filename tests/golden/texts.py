"""The texts of the golden files: made from a word list and from ranges of Unicode, by a seeded generator.

A text is written as a string, as {"repeat": [text, times]} or as {"parts": [text, ...]}, so that a
word of 10,000 letters takes a line in the file. `expand` gives the string.
"""

import random
import unicodedata
from pathlib import Path

TOKENIZATION_COUNT = 2_000
WORDS = (Path(__file__).parent / "words.txt").read_text(encoding="utf-8").split()

SCRIPTS = {
    "latin accented": [(0xC0, 0x17F), (0x1E00, 0x1EFF)],
    "greek": [(0x370, 0x3FF)],
    "cyrillic": [(0x400, 0x45F)],
    "hebrew": [(0x591, 0x5F4)],
    "arabic": [(0x610, 0x6D3), (0xFE70, 0xFEFC)],
    "devanagari": [(0x900, 0x97F)],
    "thai": [(0xE01, 0xE5B)],
    "chinese": [(0x4E00, 0x4EFF), (0x9F00, 0x9FA5), (0x3400, 0x3420), (0x20000, 0x20020), (0xF900, 0xF920)],
    "japanese": [(0x3041, 0x30FF), (0x4E00, 0x4E40), (0xFF66, 0xFF9D)],
    "korean": [(0xAC00, 0xAD00), (0xD700, 0xD7A3), (0x1100, 0x1112)],
    "mathematical": [(0x1D400, 0x1D7FF), (0x2070, 0x209C), (0x2150, 0x218B), (0xFF01, 0xFF5E)],
    "signs": [(0xA1, 0xBF), (0x2010, 0x205E), (0x20A0, 0x20BF), (0x2100, 0x23FF), (0x2600, 0x27BF), (0x3000, 0x303F)],
    "controls": [(0x00, 0x1F), (0x7F, 0x9F), (0xFFF9, 0xFFFD), (0xE0001, 0xE0001), (0xE0020, 0xE007F)],
    "private": [(0xE000, 0xE010), (0xF0000, 0xF0004), (0x10FFFD, 0x10FFFD)],
    "special casing": [(0x130, 0x131), (0xDF, 0xDF), (0x1E9E, 0x1E9E), (0x3A3, 0x3A3), (0x3C2, 0x3C2), (0xFB00, 0xFB06), (0x1C4, 0x1CC), (0x149, 0x149)],
}
# Assigned in every Unicode version since 2021, so that the case tables of Rust and Python agree.
ANYTHING = [(0x20, 0xD7FF), (0xF900, 0x1FAFF)]

COMBINING = "\u0300\u0301\u0302\u0303\u0308\u030a\u030c\u0323\u0327\u0328\u0338\u20dd"
SPACES = " \t\n\r\u000b\u000c\u0085\u00a0\u1680\u2002\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
INVISIBLE = "\u00ad\u034f\u061c\u115f\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufe0e\ufe0f\ufeff"
EMOJI = [
    "😀", "😂", "🎉", "👍", "👍🏽", "👩🏿", "🌧", "🌧️", "🎵", "❤️", "♥", "☂︎", "1️⃣", "🇩🇪", "🇺🇸🇫🇷", "🏴\U000e0067\U000e0062\U000e007f",
    "👩\u200d💻", "👨\u200d👩\u200d👧\u200d👦", "🏳️\u200d🌈", "🧑🏽\u200d🚀", "🫠", "🤷🏼\u200d♀️",
]
SPECIAL = [
    "[SEP]", "[CLS]", "[CLS] x", "[PAD]", "[MASK]", "[UNK]", "[unused7]", "[sep]", "[ SEP ]", "[SEP", "SEP]", "[[SEP]]",
    "a[SEP]b", "[MASK][MASK]", "[CLS] hello [SEP]", "##ing", "##", "do ##ing", "#ing", "x##s", "[unk]", "<s>", "</s>", "<unk>", "[Sep]",
]
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
NUMBERS = ["7:30", "3.14159", "1,000,000", "50%", "$12.99", "€5", "2026-11-23", "+44 20 7946 0000", "1/2", "10th", "٣٤٥", "१२३", "４２", "²", "Ⅳ", "①"]
FIXED = [
    "", " ", "\t", "\n", "\r\n", "   \t\n  ", "\u00a0", "\u200b", "\ufeff", "\u0000", "\ufffd", "\u00ad", "a", "A", "é", "e\u0301", "\u0301", "ß", "İ", "ı", "ﬁ",
    "中", "中文", "中a文b", "한국어", unicodedata.normalize("NFD", "한국어"), "かな カナ", "שלום", "مرحبا", "नमस्ते", "สวัสดี", "don't", "don’t", "it's 5 o'clock", "e-mail", "U.S.A.", "...", "?!?!",
    "http://example.com/a?b=c&d=e", "user@example.com", "snake_case_name", "camelCaseName", "C++", "#hashtag @mention", "a\u0000b", "a\u00adb", "a\u200bb",
    "a\u200db", "a\u202eb", "a\ufffdb", "a\u007fb", "a\u0085b", "a\u001cb", "a\u2028b", "a\ue000b", "\U0001d400\U0001d41a", "Ǆ", "ΑΣ", "ΌΣΟΣ", "STRASSE straße",
    "\u00c5 \u212b A\u030a", "ﷺ", "㎏", "\uf900", "\U0002f800", "〇", "々", "ー", "､｡", "𠀀", "\u0e33", "q\u0307\u0323", "\uac01", "\u1100\u1161\u11a8", "\uac00\u11a8",
]
# Long inputs: words beyond the 100 letters that WordPiece looks at, and their neighbours.
LONG = [
    *({"repeat": ["x", n]} for n in (99, 100, 101, 10_000)),
    *({"repeat": ["é", n]} for n in (50, 99, 100, 101, 10_000)),
    *({"repeat": ["e\u0301", n]} for n in (50, 51, 100, 5_000)),
    *({"repeat": ["中", n]} for n in (100, 101, 300)),
    *({"repeat": ["a\u0301\u0323", n]} for n in (34, 100)),
    {"repeat": [" ", 10_000]},
    {"repeat": ["\u200b", 3_000]},
    {"repeat": ["\t\n", 2_000]},
    {"repeat": ["!", 300]},
    {"repeat": ["[SEP]", 60]},
    {"repeat": ["a ", 510]},
    {"repeat": ["ing", 34]},
    {"repeat": ["가", 34]},
    {"repeat": ["😀", 120]},
    {"parts": ["play ", {"repeat": ["z", 10_000]}, " music"]},
    {"parts": ["play", {"repeat": [" ", 5_000]}, "music"]},
    {"parts": [{"repeat": ["b", 100]}, ".", {"repeat": ["b", 101]}]},
    {"parts": [{"repeat": ["\u0301", 200]}, "a"]},
]

INTENTS = [
    "play some jazz by miles davis", "Add this song to my workout playlist", "book a table for two at an italian restaurant tonight at 7:30",
    "what's the weather like in Zürich tomorrow?", "rate this novel five out of six stars", "find me the movie times for the nearest cinema",
    "show me the trailer of The Lost City", "WILL IT RAIN IN SEATTLE ON FRIDAY", "reserve", "music", "snow in denver", "give 3 points to this chapter",
    "", "   ", "!!!", "[SEP]", "🎵🎵 play 🎵", "今天天气怎么样", "réserver une table pour deux", "how do i reset my password? it says error 42.",
]
# Words a text; the repeats fill 64, 128 and 512 positions exactly, and by one token too many.
WORD_COUNTS = [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 5, 6, 6, 6, 7, 7, 7, 8, 8, 8, 9, 9, 9, 10, 10, 11, 11, 12, 13, 14, 15, 16, 17, 19, 21, 24, 27, 31, 36, 45, 60, 90, 140, 600]
FILLED = [{"repeat": ["a ", pieces]} for pieces in (62, 63, 126, 127, 510)]
PAIRS = [
    ["play some jazz", "what is the weather"],
    ["", "one side only"],
    ["one side only", ""],
    ["book a table", "yes, for two people at 7:30 please"],
    ["the first text is much longer than the second one in this pair of texts", "short"],
    [{"repeat": ["long ", 80]}, {"repeat": ["longer ", 600]}],
]
# Which classification texts also go through the pipeline.
PIPELINE = [0, 2, 3, 7, 12, 16, 40]


def expand(text):
    """The string which a compact text stands for."""
    if isinstance(text, str):
        return text
    if "repeat" in text:
        part, times = text["repeat"]
        return expand(part) * times
    return "".join(expand(part) for part in text["parts"])


class Generator:
    """Draws fragments of every kind and glues them together."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.kinds = [self.words, self.words, self.mixed_case, self.decomposed, self.marked, self.emoji, self.special, self.punctuation, self.number, self.split_word, self.anything]
        self.kinds += [self.script(ranges) for ranges in SCRIPTS.values()]

    def words(self, count=None):
        count = count or self.random.randint(1, 8)
        return " ".join(self.random.choice(WORDS) for _ in range(count))

    def mixed_case(self):
        change = self.random.choice([str.upper, str.title, str.swapcase, str.capitalize])
        return change(self.words())

    def characters(self, ranges, count):
        points = [point for first, last in ranges for point in (first, last)]
        starts = list(zip(points[::2], points[1::2]))
        drawn = []
        while len(drawn) < count:
            character = chr(self.random.randint(*self.random.choice(starts)))
            if unicodedata.category(character) not in ("Cn", "Cs"):
                drawn.append(character)
        return "".join(drawn)

    def script(self, ranges):
        return lambda: self.characters(ranges, self.random.randint(1, 8))

    def decomposed(self):
        form = self.random.choice(["NFD", "NFC", "NFKD", "NFKC"])
        ranges = self.random.choice([SCRIPTS["latin accented"], SCRIPTS["korean"], SCRIPTS["japanese"]])
        return unicodedata.normalize(form, self.characters(ranges, self.random.randint(1, 6)))

    def marked(self):
        marks = COMBINING + INVISIBLE
        return "".join(c + (self.random.choice(marks) if self.random.random() < 0.3 else "") for c in self.words(2))

    def emoji(self):
        return "".join(self.random.choice(EMOJI) for _ in range(self.random.randint(1, 3)))

    def special(self):
        return self.random.choice(SPECIAL)

    def punctuation(self):
        return "".join(self.random.choice(PUNCTUATION) for _ in range(self.random.randint(1, 6)))

    def number(self):
        return self.random.choice(NUMBERS)

    def split_word(self):
        """A word with a typing mistake, or two run together."""
        word = self.random.choice(WORDS) + self.random.choice(WORDS)
        cut = self.random.randrange(len(word))
        return self.random.choice([word, word[:cut] + word[cut + 1 :], word[:cut] + self.random.choice(PUNCTUATION) + word[cut:]])

    def anything(self):
        return self.characters(ANYTHING, self.random.randint(1, 5))

    def text(self):
        glue = self.random.choice([" ", " ", " ", " ", "", "", self.random.choice(SPACES), self.random.choice(INVISIBLE), ", "])
        parts = [self.random.choice(self.kinds)() for _ in range(self.random.choice([1, 1, 2, 2, 3, 4]))]
        return glue.join(parts)


def make():
    """All texts, as written to texts.json."""
    tokenization = FIXED + SPECIAL + EMOJI + NUMBERS + LONG
    generator = Generator(20_261_123)
    seen = {text for text in tokenization if isinstance(text, str)}
    while len(tokenization) < TOKENIZATION_COUNT:
        text = generator.text()
        if text not in seen:
            seen.add(text)
            tokenization.append(text)
    classification = INTENTS + [Generator(count * 1_000 + index).words(count) for index, count in enumerate(WORD_COUNTS)] + FILLED
    return {"tokenization": tokenization, "classification": classification, "pairs": PAIRS, "pipeline": PIPELINE}
