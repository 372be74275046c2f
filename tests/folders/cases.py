"""The cases: each a folder with one thing that is said in another way, or by another file, or wrongly."""

import base64
import copy
import json
import tempfile
from pathlib import Path

WORDS = (Path(__file__).parent.parent / "golden" / "words.txt").read_text(encoding="utf-8").split()
ASCII = [chr(code) for code in range(33, 127)]
OTHER = list("äéèñöüßçœÉ中文音乐播放日本語한국어ａＭ①ﬁ。，！▁…’“”😀🎵")


# Base files


def wordpiece_vocabulary():
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = ASCII + OTHER
    words = WORDS + [word.capitalize() for word in WORDS[:80]] + [word.upper() for word in WORDS[:40]]
    tokens = special + letters + [f"##{letter}" for letter in letters] + ["##ing", "##s", "##ed", "##er", "un", "e\u0301", "cre"] + words
    return list(dict.fromkeys(tokens))


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=True, separators=(",", ":")) + "\n", encoding="ascii")


def added(tokens):
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return [{"id": id, "content": token, **flags} for id, token in tokens]


def around(first, last, pair):
    """A template of TemplateProcessing; `pair` are the pieces of a pair after the first text."""
    (first, first_id), (last, last_id) = first, last

    def piece(name, kind):
        if name in "AB":
            return {"Sequence": {"id": name, "type_id": kind}}
        return {"SpecialToken": {"id": name, "type_id": kind}}

    single = [piece(first, 0), piece("A", 0), piece(last, 0)]
    described = {token: {"id": token, "ids": [id], "tokens": [token]} for token, id in ((first, first_id), (last, last_id))}
    return {"type": "TemplateProcessing", "single": single, "pair": single + [piece(name, kind) for name, kind in pair], "special_tokens": described}


BERT_PAIR = [("B", 1), ("[SEP]", 1)]
ROBERTA_PAIR = [("</s>", 0), ("B", 0), ("</s>", 0)]


def unigram_pieces():
    """Pieces with scores, and a small map of characters, by SentencePiece."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        lines = [" ".join(WORDS[n : n + 9]) for n in range(0, len(WORDS), 3)] + ["".join(OTHER)] * 5 + [" ".join(ASCII)] * 5
        (folder / "text").write_text("\n".join(lines), encoding="utf-8")
        # Full-width M, the ligature fi, a circled digit, and blanks to one kind.
        rules = ["FF2D\t4D", "FB01\t66 69", "2460\t31", "A0\t20", "3000\t20"]
        (folder / "rules.tsv").write_text("\n".join(rules) + "\n", encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            input=str(folder / "text"), model_prefix=str(folder / "model"), model_type="unigram", vocab_size=420,
            normalization_rule_tsv=str(folder / "rules.tsv"), hard_vocab_limit=False, num_threads=1, minloglevel=2,
        )
        proto = sentencepiece_model_pb2.ModelProto()
        proto.ParseFromString((folder / "model.model").read_bytes())
    pieces = [[piece.piece, round(piece.score, 4)] for piece in proto.pieces if piece.type == 1]
    return pieces, base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode()


def unigram(special, last, pieces, normalizers, unknown, template):
    vocabulary = [[token, 0.0] for token in special] + pieces + [[token, 0.0] for token in last]
    ids = {token: id for id, (token, _) in enumerate(vocabulary)}
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    named = [(ids[token], token) for token in special + last if token in ids]
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added(named),
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "post_processor": template(ids), "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": unknown, "vocab": vocabulary, "byte_fallback": False},
    }


def write_bases(folder):
    """The base files, which are committed: they are made once."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    folder.mkdir(exist_ok=True)
    vocabulary = wordpiece_vocabulary()
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    write_json(folder / "wordpiece.json", {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added(list(enumerate(vocabulary[:5]))),
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": around(("[CLS]", 2), ("[SEP]", 3), BERT_PAIR),
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
                  "vocab": {token: id for id, token in enumerate(vocabulary)}},
    })
    by_bytes = Tokenizer(models.BPE())
    by_bytes.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False)
    lines = [" ".join(WORDS[n : n + 9]) for n in range(len(WORDS))] + ["".join(OTHER)] * 3
    by_bytes.train_from_iterator(lines, trainer)
    value = json.loads(by_bytes.to_str())
    value["added_tokens"] = added(list(enumerate(special)))
    value["added_tokens"][4]["lstrip"] = True
    value["post_processor"] = {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": True, "add_prefix_space": False}
    value["decoder"] = value["pre_tokenizer"]
    write_json(folder / "bytes.json", value)
    write_json(folder / "vocab.json", value["model"]["vocab"])
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in value["model"]["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    pieces, charsmap = unigram_pieces()
    precompiled = {"type": "Precompiled", "precompiled_charsmap": charsmap}
    roberta = lambda ids: around(("<s>", ids["<s>"]), ("</s>", ids["</s>"]), ROBERTA_PAIR)  # noqa: E731
    write_json(folder / "xlm.json", unigram(["<s>", "<pad>", "</s>", "<unk>"], ["<mask>"], pieces, [precompiled], 3, roberta))
    camembert = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>"]
    write_json(folder / "camembert.json", unigram(camembert, ["<mask>"], pieces, [precompiled], 3, roberta))
    quotes = [{"type": "Replace", "pattern": {"String": quote}, "content": '"'} for quote in ("``", "''")]
    albert = [*quotes, {"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}, precompiled]
    write_json(folder / "albert.json", unigram(["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"], [], pieces, albert, 1,
                                               lambda ids: around(("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"]), BERT_PAIR)))


# Configurations

FAMILIES = ("bert", "distilbert", "roberta", "xlm-roberta", "camembert", "electra", "albert")

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 48}
LABELS = {"0": "Play", "1": "Weather", "2": "None"}


def vocabulary_size(base):
    model = json.loads((Path(__file__).parent / "base" / base).read_text())["model"]
    # Room for added tokens.
    return len(model["vocab"]) + 16


def config(family, base, **more):
    value = {"architectures": ["Some"], "model_type": family, "vocab_size": vocabulary_size(base), "id2label": LABELS, **SIZES}
    if family == "distilbert":
        renamed = {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads", "intermediate_size": "hidden_dim"}
        value = {renamed.get(key, key): entry for key, entry in value.items()}
    if family in ("roberta", "xlm-roberta", "camembert"):
        value.update({"max_position_embeddings": 50, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1})
    if family == "electra":
        value["embedding_size"] = 16
    if family == "albert":
        value.update({"embedding_size": 16, "num_hidden_layers": 3})
    value.update(more)
    return {key: entry for key, entry in value.items() if entry != "absent"}


def as_json(value):
    return {"text": json.dumps(value)}


def bert(tokenizer_config=None, patch=None, vocab=False, json_file=True, files=None, **more):
    """A BERT folder."""
    made = {"config.json": as_json(config("bert", "wordpiece.json", **more))}
    if json_file:
        made["tokenizer.json"] = {"base": "wordpiece.json"} | ({"patch": patch} if patch else {})
    if vocab:
        made["vocab.txt"] = {"base": "vocab.txt"} if vocab is True else {"text": vocab}
    if tokenizer_config is not None:
        made["tokenizer_config.json"] = as_json(tokenizer_config)
    return made | (files or {})


def of(family, base, tokenizer_config=None, patch=None, files=None, **more):
    """A folder of another family."""
    made = {"config.json": as_json(config(family, base, **more)), "tokenizer.json": {"base": base} | ({"patch": patch} if patch else {})}
    if tokenizer_config is not None:
        made["tokenizer_config.json"] = as_json(tokenizer_config)
    return made | (files or {})


def token(content, **flags):
    return {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, **flags}


def lower(value):
    return {"normalizer": {"lowercase": value}}


def configurations():
    """Ways to write config.json."""
    yield "config plain", bert()
    yield "config of the smallest", bert(architectures="absent", id2label="absent")
    yield "config architectures of its own", bert(architectures=["IntentModel"])
    yield "config without architectures", bert(architectures=None)
    yield "config without model_type", bert(model_type="absent", architectures=["BertForSequenceClassification"])
    yield "config one label", bert(id2label={"0": "score"})
    yield "config eleven labels", bert(id2label={str(n): f"L{n}" for n in range(11)}, problem_type="multi_label_classification")
    yield "config regression", bert(id2label={"0": "score"}, problem_type="regression")
    yield "config numbers as labels", bert(id2label={"0": 1, "1": 2, "2": 3})
    yield "config labels only by name", bert(id2label="absent", label2id={"a": 0, "b": 1})
    yield "config unknown keys", bert(finetuning_task="intents", _num_labels=3, language="en", gradient_checkpointing=False, use_cache=True)
    for name, value in (("NaN", float("nan")), ("Infinity", float("inf")), ("minus Infinity", float("-inf"))):
        yield f"config {name}", bert(some_rate=value)
    for activation in ("gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_python", "relu", "silu", "tanh"):
        yield f"config {activation}", bert(hidden_act=activation)
    yield "config epsilon", bert(layer_norm_eps=1e-3)
    yield "config one token type", bert(type_vocab_size=1)
    yield "config padding elsewhere", bert(pad_token_id=3)
    yield "config decoder", bert(is_decoder=True)
    yield "config relative positions", bert(position_embedding_type="relative_key")
    yield "config absolute positions", bert(position_embedding_type="absolute")
    yield "config quantized", bert(quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True})
    yield "config unknown family", bert(model_type="gpt2")
    yield "config names the tokenizer", bert(tokenizer_class="BertTokenizer")
    yield "config names a Japanese tokenizer", bert(tokenizer_class="BertJapaneseTokenizer", vocab=True)
    yield "config names a generic tokenizer", bert(tokenizer_class="PreTrainedTokenizerFast")
    yield "distilbert plain", of("distilbert", "wordpiece.json")
    yield "distilbert by other names", of("distilbert", "wordpiece.json", dim="absent", n_layers="absent", n_heads="absent", hidden_size=32, num_hidden_layers=2, num_attention_heads=2)
    yield "distilbert sinusoidal", of("distilbert", "wordpiece.json", sinusoidal_pos_embds=True)
    yield "distilbert relu", of("distilbert", "wordpiece.json", activation="relu")
    yield "roberta plain", of("roberta", "bytes.json")
    yield "roberta two token types", of("roberta", "bytes.json", type_vocab_size=2)
    yield "roberta padding elsewhere", of("roberta", "bytes.json", pad_token_id=4)
    yield "roberta default epsilon", of("roberta", "bytes.json", layer_norm_eps="absent")
    yield "xlm-roberta plain", of("xlm-roberta", "xlm.json")
    yield "camembert plain", of("camembert", "camembert.json")
    yield "electra plain", of("electra", "wordpiece.json")
    yield "electra larger", of("electra", "wordpiece.json", embedding_size=32, hidden_size=64, intermediate_size=128)
    yield "electra of one width", of("electra", "wordpiece.json", embedding_size=32)
    yield "electra wide embeddings", of("electra", "wordpiece.json", embedding_size=48)
    yield "albert plain", of("albert", "albert.json")
    yield "albert two groups", of("albert", "albert.json", num_hidden_groups=2)
    yield "albert three groups", of("albert", "albert.json", num_hidden_groups=3)
    yield "albert two layers in a group", of("albert", "albert.json", inner_group_num=2)
    yield "albert of one width", of("albert", "albert.json", embedding_size=32)
    yield "albert gelu", of("albert", "albert.json", hidden_act="gelu")


def casing():
    """Files that disagree about lower case, accents and Chinese characters."""
    for said in (None, True, False):
        for of_json in (True, False):
            says = {} if said is None else {"do_lower_case": said}
            yield f"do_lower_case {said}, tokenizer.json {of_json}", bert(says, lower(of_json))
    for said in (None, True, False):
        for accents in (True, False):
            says = {"strip_accents": accents} if said is None else {"strip_accents": accents, "do_lower_case": said}
            yield f"strip_accents {accents}, do_lower_case {said}", bert(says)
            yield f"strip_accents {accents}, do_lower_case {said}, vocab.txt", bert(says, vocab=True, json_file=False)
    for said in (True, False):
        yield f"tokenize_chinese_chars {said}", bert({"tokenize_chinese_chars": said}, {"normalizer": {"handle_chinese_chars": not said}})
        yield f"tokenize_chinese_chars {said}, vocab.txt", bert({"tokenize_chinese_chars": said}, vocab=True, json_file=False)
    yield "no tokenizer_config.json, cased tokenizer.json", bert(None, lower(False))
    yield "vocab.txt alone", bert(None, vocab=True, json_file=False)
    yield "vocab.txt and tokenizer.json", bert({"do_lower_case": False}, vocab=True)
    yield "tokenizer.json without clean_text", bert({}, {"normalizer": {"clean_text": False}})
    yield "tokenizer.json with another normalizer", bert({}, {"normalizer": {"type": "Lowercase", "clean_text": None, "handle_chinese_chars": None, "strip_accents": None, "lowercase": None}})
    yield "tokenizer.json with short words", bert({}, {"model": {"max_input_chars_per_word": 4}})
    for name in ("do_basic_tokenize", "never_split", "wordpieces_prefix", "padding_side", "use_fast"):
        value = {"do_basic_tokenize": False, "never_split": ["music"], "wordpieces_prefix": "@@", "padding_side": "left", "use_fast": False}[name]
        yield f"harmless {name}", bert({name: value}, vocab=True)
    lines = (Path(__file__).parent / "base" / "vocab.txt").read_text(encoding="utf-8") if (Path(__file__).parent / "base" / "vocab.txt").exists() else ""
    yield "vocab.txt with blanks at the end of lines", bert(None, vocab=lines.replace("\nplay\n", "\nplay \n"), json_file=False)
    yield "vocab.txt with a line twice", bert(None, vocab=lines + "music\n", json_file=False)
    yield "vocab.txt of DOS", bert(None, vocab=lines.replace("\n", "\r\n"), json_file=False)


def classes():
    """Tokenizer classes."""
    for name in ("BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "ElectraTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend", "PreTrainedTokenizer"):
        yield f"class {name}", bert({"tokenizer_class": name}, lower(False))
    for name in ("BertJapaneseTokenizer", "BertweetTokenizer", "DebertaV2Tokenizer", "MPNetTokenizer", "LlamaTokenizer", "SomeTokenizer"):
        yield f"class {name}", bert({"tokenizer_class": name}, vocab=True)
    yield "class of config.json and another", bert({"tokenizer_class": "BertTokenizer"}, tokenizer_class="PreTrainedTokenizerFast")
    yield "distilbert with its tokenizer", of("distilbert", "wordpiece.json", {"tokenizer_class": "DistilBertTokenizer", "do_lower_case": False})
    yield "distilbert with BERT's tokenizer", of("distilbert", "wordpiece.json", {"tokenizer_class": "BertTokenizerFast"})
    yield "distilbert of vocab.txt", {k: v for k, v in of("distilbert", "wordpiece.json", {}, files={"vocab.txt": {"base": "vocab.txt"}}).items() if k != "tokenizer.json"}
    yield "electra with its tokenizer", of("electra", "wordpiece.json", {"tokenizer_class": "ElectraTokenizer", "strip_accents": False})
    yield "roberta with its tokenizer", of("roberta", "bytes.json", {"tokenizer_class": "RobertaTokenizer"})
    yield "roberta with a prefix space", of("roberta", "bytes.json", {"add_prefix_space": True})
    yield "roberta generic", of("roberta", "bytes.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    yield "roberta generic with a prefix space", of("roberta", "bytes.json", {"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": True})
    yield "roberta of vocab.json and merges.txt", {k: v for k, v in of("roberta", "bytes.json", {}, files={"vocab.json": {"base": "vocab.json"}, "merges.txt": {"base": "merges.txt"}}).items() if k != "tokenizer.json"}
    yield "roberta without trimmed offsets", of("roberta", "bytes.json", {"trim_offsets": False})
    yield "roberta mask as a string", of("roberta", "bytes.json", {"mask_token": "<mask>"})
    yield "roberta mask with blanks", of("roberta", "bytes.json", {"mask_token": token("<mask>", lstrip=True, __type="AddedToken")})
    yield "xlm-roberta with its tokenizer", of("xlm-roberta", "xlm.json", {"tokenizer_class": "XLMRobertaTokenizer"})
    yield "xlm-roberta without a prefix space", of("xlm-roberta", "xlm.json", {"add_prefix_space": False})
    yield "xlm-roberta generic", of("xlm-roberta", "xlm.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    yield "xlm-roberta without a map of characters", of("xlm-roberta", "xlm.json", {}, {"normalizer": {"normalizers": [{"type": "NFKC"}]}})
    yield "camembert with its tokenizer", of("camembert", "camembert.json", {"tokenizer_class": "CamembertTokenizerFast"})
    yield "camembert with further tokens", of("camembert", "camembert.json", {"additional_special_tokens": ["[E1]"]})
    yield "albert with its tokenizer", of("albert", "albert.json", {"tokenizer_class": "AlbertTokenizer", "do_lower_case": True, "keep_accents": False, "remove_space": True})
    yield "albert with case and accents", of("albert", "albert.json", {"do_lower_case": False, "keep_accents": True})
    yield "albert generic", of("albert", "albert.json", {"tokenizer_class": "PreTrainedTokenizerFast"})


def tokens():
    """Added and special tokens, in every file that may name them."""
    next_id = len(wordpiece_vocabulary())
    e1 = {"[E1]": next_id, "@user": next_id + 1, "New_Token": next_id + 2}
    yield "added_tokens.json", bert({}, files={"added_tokens.json": as_json(e1)})
    yield "added_tokens.json with vocab.txt", bert({}, vocab=True, json_file=False, files={"added_tokens.json": as_json(e1)})
    yield "added_tokens.json, one special", bert({"additional_special_tokens": ["[E1]"]}, vocab=True, json_file=False, files={"added_tokens.json": as_json(e1)})
    yield "added_tokens.json with a gap", bert({}, vocab=True, json_file=False, files={"added_tokens.json": as_json({"[E1]": next_id, "@user": next_id + 5})})
    yield "added_tokens.json beyond the embedding", bert({}, vocab=True, json_file=False, files={"added_tokens.json": as_json({f"[X{n}]": next_id + n for n in range(20)})})
    for key in ("additional_special_tokens", "extra_special_tokens"):
        yield f"{key}", bert({key: ["[E1]", "@user"]})
        yield f"{key} with vocab.txt", bert({key: ["[E1]", "@user"]}, vocab=True, json_file=False)
        yield f"{key} as objects", bert({key: [token("[E1]", __type="AddedToken"), token("New_Token", normalized=True, __type="AddedToken")]})
        yield f"{key} empty", bert({key: []})
    yield "extra_special_tokens by role", bert({"extra_special_tokens": {"image_token": "<image>", "user_token": "@user"}})
    yield "a token of its own", bert({"image_token": "<image>"})
    yield "both lists", bert({"extra_special_tokens": ["[E1]"], "additional_special_tokens": ["@user"]})
    decoder = {str(n): {**token(name), "special": True} for n, name in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])}
    more = {
        "special": token("[E1]", special=True), "normal": token("New_Token", normalized=True, special=False), "raw": token("New_Token", special=False),
        "strips": token("[E1]", lstrip=True, rstrip=True, special=True), "single words": token("@user", single_word=True, special=False),
        "words of the vocabulary": token("music", special=False), "parts of words": token("play", normalized=True, special=False),
    }
    for name, described in more.items():
        with_it = {**decoder, str(next_id): described}
        yield f"added_tokens_decoder, {name}", bert({"added_tokens_decoder": with_it})
        yield f"added_tokens_decoder, {name}, vocab.txt", bert({"added_tokens_decoder": with_it, "do_lower_case": False}, vocab=True, json_file=False)
    yield "added_tokens_decoder without special tokens", bert({"added_tokens_decoder": {str(next_id): {**token("[E1]"), "special": True}}})
    yield "added_tokens_decoder and other files", bert({"added_tokens_decoder": decoder}, files={"added_tokens.json": as_json(e1), "special_tokens_map.json": as_json({"additional_special_tokens": ["@user"]})})
    json_tokens = added(list(enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])) + [(next_id, "[E1]")])
    yield "added_tokens of tokenizer.json", bert({}, {"added_tokens": json_tokens})
    yield "added_tokens of tokenizer.json without a configuration", bert(None, {"added_tokens": json_tokens})
    normal = copy.deepcopy(json_tokens)
    normal[-1].update({"content": "New_Token", "normalized": True, "special": False})
    yield "added_tokens of tokenizer.json, normalized", bert({"do_lower_case": False}, {"added_tokens": normal})
    yield "special_tokens_map.json", bert({}, files={"special_tokens_map.json": as_json({"unk_token": "[UNK]", "additional_special_tokens": ["[E1]"]})})
    yield "special_tokens_map.json with objects", bert({}, vocab=True, json_file=False, files={"special_tokens_map.json": as_json({"mask_token": token("[MASK]", lstrip=True), "cls_token": token("[CLS]")})})
    yield "special_tokens_map.json against tokenizer_config.json", bert({"sep_token": "[SEP]"}, files={"special_tokens_map.json": as_json({"sep_token": "[MASK]"})})
    yield "other special tokens", bert({"cls_token": "hello", "sep_token": "goodbye", "unk_token": "please"}, vocab=True, json_file=False)
    yield "other special tokens beside tokenizer.json", bert({"cls_token": "hello", "sep_token": "goodbye"})
    yield "special tokens as objects", bert({"mask_token": token("[MASK]", lstrip=True, __type="AddedToken"), "cls_token": token("[CLS]", __type="AddedToken")}, vocab=True, json_file=False)
    yield "a special token that is new", bert({"cls_token": "[BEGIN]"}, vocab=True, json_file=False)
    yield "a special token without value", bert({"bos_token": None, "eos_token": None})
    yield "no unknown token in the vocabulary", bert({"unk_token": "[NONE]"}, vocab=True, json_file=False)
    yield "split special tokens", bert({"split_special_tokens": True})
    yield "split special tokens, generic", bert({"split_special_tokens": True, "tokenizer_class": "PreTrainedTokenizerFast"})
    yield "roberta added_tokens.json", of("roberta", "bytes.json", {}, files={"added_tokens.json": as_json({"[E1]": vocabulary_size("bytes.json") - 16})})
    yield "xlm-roberta further tokens", of("xlm-roberta", "xlm.json", {"additional_special_tokens": ["[E1]", "@user"]})
    yield "albert further tokens", of("albert", "albert.json", {"additional_special_tokens": ["[E1]", "@user"]})


def lengths():
    """Truncation, padding, token types and what is put around a text."""
    for value in (16, 1000000000000000019884624838656, 1e30, 48, 512, 47.0, None, 4):
        yield f"model_max_length {value}", bert({"model_max_length": value})
    yield "max_len", bert({"max_len": 20})
    yield "max_len and model_max_length", bert({"max_len": 20, "model_max_length": 30})
    for side in ("left", "right"):
        yield f"truncation_side {side}", bert({"truncation_side": side, "model_max_length": 12})
    truncation = {"direction": "Left", "max_length": 10, "strategy": "LongestFirst", "stride": 0}
    yield "truncation of tokenizer.json", bert({}, {"truncation": truncation})
    yield "truncation of tokenizer.json against truncation_side", bert({"truncation_side": "right"}, {"truncation": truncation})
    yield "truncation of tokenizer.json, generic", bert({"tokenizer_class": "PreTrainedTokenizerFast"}, {"truncation": truncation})
    padding = {"strategy": {"Fixed": 20}, "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    yield "roberta left", of("roberta", "bytes.json", {"truncation_side": "left", "model_max_length": 12})
    yield "xlm-roberta short", of("xlm-roberta", "xlm.json", {"model_max_length": 9})
    for names in (["input_ids", "attention_mask"], ["input_ids", "token_type_ids", "attention_mask"]):
        yield f"model_input_names {len(names)}", bert({"model_input_names": names})
        yield f"model_input_names {len(names)}, generic", bert({"model_input_names": names, "tokenizer_class": "PreTrainedTokenizerFast"})
        yield f"roberta model_input_names {len(names)}", of("roberta", "bytes.json", {"model_input_names": names})
    yield "albert token types", of("albert", "albert.json", {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]})
    yield "one token type and no token types", bert({"model_input_names": ["input_ids", "attention_mask"]}, type_vocab_size=1)
    processing = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2], "single": None, "pair": None, "special_tokens": None}
    yield "BertProcessing", bert({}, {"post_processor": processing})
    yield "no post_processor", bert({}, {"post_processor": None})
    yield "no post_processor, generic", bert({"tokenizer_class": "PreTrainedTokenizerFast"}, {"post_processor": None})
    other = around(("[MASK]", 4), ("[SEP]", 3), [("B", 0), ("[SEP]", 0)])
    other["special_tokens"]["[CLS]"] = None
    yield "another post_processor", bert({}, {"post_processor": other})
    yield "another post_processor, generic", bert({"tokenizer_class": "PreTrainedTokenizerFast"}, {"post_processor": other})
    yield "padding of tokenizer.json is ignored", bert({}, {"padding": padding | {"strategy": "BatchLongest"}})


def wrong():
    """Files that cannot be used."""
    yield "unknown key", bert({"turn_words_around": True})
    yield "no tokenizer", bert(json_file=False)
    yield "do_lower_case as a word", bert({"do_lower_case": "yes"})
    yield "truncation_side in the middle", bert({"truncation_side": "middle"})
    yield "pointer of Git LFS", bert(files={"tokenizer.json": {"text": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"}})
    yield "xlm-roberta without tokenizer.json", {"config.json": as_json(config("xlm-roberta", "xlm.json"))}
    yield "tokenizer_config.json as a list", bert(files={"tokenizer_config.json": {"text": "[]"}})
    yield "added_tokens.json with words for ids", bert({}, files={"added_tokens.json": as_json({"[E1]": "one"})})


def reviewed():
    """What readers found: each differed once from transformers."""
    n = len(wordpiece_vocabulary())
    by_vocabulary = {"vocab": True, "json_file": False}
    yield "pairs that are cut to an odd number", bert({"model_max_length": 14})
    yield "roberta, an odd number, left", of("roberta", "bytes.json", {"truncation_side": "left", "model_max_length": 13})
    yield "xlm-roberta, an odd number", of("xlm-roberta", "xlm.json", {"model_max_length": 47})
    yield "albert, an odd number", of("albert", "albert.json", {"model_max_length": 12})
    yield "added_tokens.json with tokens of roles", bert({}, **by_vocabulary, files={"added_tokens.json": as_json({"[MASK]": 4, "[CLS]": 2, "[UNK]": 1})})
    yield "added_tokens.json with tokens of roles, which are written", bert({"mask_token": "[MASK]", "cls_token": token("[CLS]", __type="AddedToken")}, **by_vocabulary, files={"added_tokens.json": as_json({"[MASK]": 4, "[CLS]": 2})})
    old = {"added_tokens.json": as_json({"[E1]": n}), "special_tokens_map.json": as_json({"additional_special_tokens": ["[E1]"]})}
    yield "added_tokens.json as it was once saved", bert({}, **by_vocabulary, files=old)
    yield "added_tokens.json with a token of its own", bert({"image_token": "<image>"}, **by_vocabulary, files={"added_tokens.json": as_json({"<image>": n})})
    yield "roles not in the order of letters", bert({"extra_special_tokens": {"user_token": "@user", "image_token": "<image>"}})
    yield "keys not in the order of letters", bert({"user_token": "@user", "image_token": "<image>"})
    yield "keys of the map not in the order of letters", bert({}, files={"special_tokens_map.json": as_json({"user_token": "@user", "image_token": "<image>"})})
    yield "albert, another post_processor", of("albert", "albert.json", {}, {"post_processor": around(("[MASK]", 4), ("[SEP]", 3), [("B", 1), ("[SEP]", 1)])})
    yield "albert, another class token", of("albert", "albert.json", {"cls_token": "[MASK]"})
    yield "albert without post_processor", of("albert", "albert.json", {}, {"post_processor": None})
    for count in (2, 3, 5):
        yield f"num_labels {count}", bert(num_labels=count)
    yield "a label without a name", bert(id2label={"0": "a", "1": None})
    for family, base in (("xlm-roberta", "xlm.json"), ("camembert", "camembert.json"), ("albert", "albert.json"), ("roberta", "bytes.json")):
        yield f"{family}, add_prefix_space null", of(family, base, {"add_prefix_space": None})
    yield "albert, do_lower_case null", of("albert", "albert.json", {"do_lower_case": None, "keep_accents": None})
    for key in ("do_lower_case", "tokenize_chinese_chars", "split_special_tokens", "truncation_side", "model_input_names", "trim_offsets"):
        yield f"{key} null", bert({key: None})
    yield "class ConvBertTokenizer", bert({"tokenizer_class": "ConvBertTokenizer"}, lower(False))
    special = [(id, name) for id, name in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])]
    for name, listed in (("swapped", [(n + 1, "@user"), (n, "[E1]")]), ("of one id", [(n, "@user"), (n, "[E1]")]), ("of wrong ids", [(n, "[E1]"), (n + 1, "[E1]"), (3, "@user")])):
        yield f"added_tokens of tokenizer.json, {name}", bert({}, {"added_tokens": added(special + listed)})
    padding = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0}
    for name in ("[PAD]", "music"):
        generic = {"padding": {**padding, "pad_token": name}, "added_tokens": added(special[1:])}
        yield f"padding with {name}, generic", bert({"tokenizer_class": "PreTrainedTokenizerFast"}, generic)
    yield "padding with music, named", bert({"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": None}, {"padding": {**padding, "pad_token": "music"}})
    the_map = lambda value: {"special_tokens_map.json": as_json(value)}  # noqa: E731
    yield "map replaces the list", bert({"extra_special_tokens": ["[E1]"]}, files=the_map({"extra_special_tokens": {"user_token": "@user"}}))
    yield "map removes the list", bert({"extra_special_tokens": ["[E1]"]}, files=the_map({"extra_special_tokens": None}))
    yield "map adds to the list", bert({"extra_special_tokens": ["[E1]"]}, files=the_map({"extra_special_tokens": ["[E1]", "@user"]}))
    yield "map beside roles", bert({"extra_special_tokens": {"image_token": "<image>"}}, files=the_map({"additional_special_tokens": ["@user"]}))
    yield "map beside a token of its own", bert({"image_token": "<image>"}, files=the_map({"image_token": "@user"}))
    yield "map without a token of its own", bert({"image_token": "<image>"}, files=the_map({"image_token": None}))
    for value in ({"image_token": "<image>"}, {}):
        yield f"camembert, roles {len(value)}", of("camembert", "camembert.json", {"extra_special_tokens": value}, {"added_tokens": added([(5, "<s>"), (6, "</s>"), (1, "<pad>"), (3, "<unk>")])})
    yield "a token of its own as an unmarked object", bert({"image_token": token("<image>")})
    yield "map says not special", bert({}, **by_vocabulary, files=the_map({"mask_token": token("[MASK]", special=False)}))
    yield "a marked object is not special", bert({"split_special_tokens": True, "extra_special_tokens": [token("[E1]", __type="AddedToken")]})
    yield "a token with blanks across a cut", bert({"extra_special_tokens": ["playing player unplayable"], "model_max_length": 12})
    yield "model_max_length in the map", bert({}, files=the_map({"model_max_length": 20, "do_lower_case": False}))
    yield "model_name", of("camembert", "camembert.json", {"tokenizer_class": "PreTrainedTokenizerFast"}, model_name="camembertv2-base")
    yield "roberta, add_bos_token", of("roberta", "bytes.json", {"add_bos_token": False, "add_eos_token": True})
    yield "roles as transformers 5 saves them", bert({"model_specific_special_tokens": {"user_token": "@user", "image_token": "<image>"}})
    yield "class without a name", bert({"tokenizer_class": ""})
    yield "roberta, padding with id 0", of("roberta", "bytes.json", pad_token_id=0)
    for key in ("model_specific_special_tokens", "extra_special_tokens"):
        yield f"a role of every class within {key}", bert({key: {"cls_token": "[MASK]"}})
    yield "additional_special_tokens by role", bert({"additional_special_tokens": {"user_token": "@user", "image_token": "<image>"}, "extra_special_tokens": []})
    plain = {"content": "[MASK]", "__type": "AddedToken"}
    yield "a role as an object without normalized", bert({"mask_token": plain}, **by_vocabulary)
    yield "a token of its own as an object without normalized", bert({"image_token": {"content": "<image>", "__type": "AddedToken"}})
    yield "added_tokens_decoder without normalized", bert({"added_tokens_decoder": {"2": {"content": "[CLS]"}, str(n): {"content": "@user"}}}, **by_vocabulary)
    yield "roberta, a mask that takes blanks after it", of("roberta", "bytes.json", {"truncation_side": "left", "model_max_length": 13, "mask_token": token("<mask>", rstrip=True, __type="AddedToken")}, {"added_tokens": []})
    yield "a number as a token", bert({}, files=the_map({"cls_token": 3}))


SIZE_KEYS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "embedding_size", "dim", "hidden_dim", "n_layers", "n_heads")
BASES = {"roberta": "bytes.json", "xlm-roberta": "xlm.json", "albert": "albert.json"}


def public():
    """The configurations of public classifiers, with small sizes and vocabularies (public.json)."""
    for one in json.loads((Path(__file__).parent / "public.json").read_text(encoding="utf-8")):
        family = one["config"]["model_type"]
        base = BASES.get(family, "wordpiece.json")
        value = {key: entry for key, entry in one["config"].items() if key not in SIZE_KEYS}
        sizes = config(family, base) if family in FAMILIES else config("bert", base)
        value |= {key: sizes[key] for key in (*SIZE_KEYS, "vocab_size", "max_position_embeddings") if key in sizes}
        files = {"config.json": as_json(value)}
        of_vocabulary = {"vocab.txt": "vocab.txt", "vocab.json": "vocab.json", "merges.txt": "merges.txt"}
        named = {name: {"base": of_vocabulary[name]} for name in of_vocabulary if name in one["files"] and family != "albert"}
        # A SentencePiece model alone is not read here: its tokenizer.json is what transformers saves for it.
        if "tokenizer.json" in one["files"] or not named:
            named["tokenizer.json"] = {"base": base}
        files |= named
        for name in ("tokenizer_config", "special_tokens_map"):
            if one[name] is not None:
                files[f"{name}.json"] = as_json(one[name])
        yield f"public {one['name']}", files


def all_cases():
    for group in (configurations, casing, classes, tokens, lengths, wrong, reviewed, public):
        yield from group()
