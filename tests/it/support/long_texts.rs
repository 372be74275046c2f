//! Bodies that are made to be expensive.

/// A body of one kind.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) kind: &'static str,
    pub(crate) bytes: Vec<u8>,
    /// What answers it at `POST /predict`.
    pub(crate) status: u16,
}

/// Bodies of about this many bytes, as JSON.
pub(crate) fn bodies(bytes: usize) -> Vec<Body> {
    let json = |text: String| serde_json::to_vec(&serde_json::json!({ "query": text })).unwrap();
    let body = |kind, bytes, status| Body {
        kind,
        bytes,
        status,
    };
    let repeated = |kind, piece: &str| body(kind, json(piece.repeat(bytes / piece.len())), 200);
    let escaped = format!("{{\"query\": \"{}\"}}", "\\u4e2d".repeat(bytes / 6));
    let many = [b"[1", &b",1".repeat(bytes / 2)[..], b"]"].concat();
    let mut broken = json(String::new());
    broken.splice(10..10, std::iter::repeat_n(0xff, bytes));
    vec![
        repeated("no blank", "a!b,é."),
        repeated("CJK", "音乐播放天气"),
        repeated("Hangul", "음악을틀어줘"),
        repeated("U+FDFA", "\u{fdfa}"),
        repeated("combining marks", "a\u{301}\u{302}\u{316}\u{327}"),
        repeated("emoji joiners", "👩\u{200d}👩\u{200d}👧\u{200d}👦"),
        repeated("one word", "a"),
        repeated("brackets", "["),
        body("escapes", escaped.into_bytes(), 200),
        repeated("spaces", " "),
        repeated("zero-width blanks", "\u{200b}"),
        repeated("controls", "\u{7f}"),
        body("JSON depth", b"[".repeat(bytes), 400),
        body("many values", many, 422),
        body("invalid UTF-8", broken, 400),
    ]
}
