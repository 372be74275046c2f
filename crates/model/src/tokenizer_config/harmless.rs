//! The keys of `tokenizer_config.json` that are known.

use serde_json::Value;

/// Keys that are read. Those that end in `_token` are too.
pub(super) const UNDERSTOOD: [&str; 16] = [
    "tokenizer_class",
    "do_lower_case",
    "strip_accents",
    "tokenize_chinese_chars",
    "keep_accents",
    "add_prefix_space",
    "trim_offsets",
    "model_max_length",
    "max_len",
    "truncation_side",
    "model_input_names",
    "split_special_tokens",
    "added_tokens_decoder",
    "extra_special_tokens",
    "additional_special_tokens",
    "model_specific_special_tokens",
];

/// Keys that do not change the tokens of a text, whatever their value: they concern padding, decoding, training, where
/// files were, or tokenizers written in Python, which transformers no longer uses for these models.
const HARMLESS: [&str; 51] = [
    "_commit_hash",
    "add_bos_token",
    "add_eos_token",
    "add_special_tokens",
    "auto_map",
    "backend",
    "basic_tokenizer",
    "cache_dir",
    "chat_template",
    "clean_up_tokenization_spaces",
    "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
    "device_map",
    "do_basic_tokenize",
    "errors",
    "files_loaded",
    "fix_mistral_regex",
    "from_slow",
    "full_tokenizer_file",
    "init_inputs",
    "is_fast",
    "is_local",
    "language",
    "legacy",
    "local_files_only",
    "max_length",
    "merges_file",
    "model_type",
    "name_or_path",
    "never_split",
    "pad_to_max_length",
    "pad_to_multiple_of",
    "pad_token_id",
    "pad_token_type_id",
    "padding",
    "padding_side",
    "processor_class",
    "remove_space",
    "return_tensors",
    "return_token_type_ids",
    "sp_model_kwargs",
    "spaces_between_special_tokens",
    "special_tokens_map_file",
    "stride",
    "tokenizer_file",
    "torch_dtype",
    "transformers_version",
    "truncation",
    "truncation_strategy",
    "use_fast",
    "vocab_file",
    "wordpieces_prefix",
];

/// Whether a key cannot change the tokens of a text.
pub(super) fn is_harmless(key: &str, value: &Value) -> bool {
    value.is_null() || HARMLESS.contains(&key)
}
