use super::*;

fn texts(body: &str) -> Result<(usize, bool), String> {
    match decode_json(body.as_bytes()) {
        Ok(decoded) => {
            let list = match decoded.shape {
                Shape::Own(list) | Shape::Tei(TeiShape { list, .. }) => list,
            };
            Ok((decoded.request.texts.len(), list == List::Yes))
        }
        Err(refusal) => Err(format!("{} {refusal}", refusal.status())),
    }
}

#[test]
fn our_own_shapes() {
    assert_eq!(texts(r#"{"query": "a"}"#), Ok((1, false)));
    assert_eq!(texts(r#"{"query": ["a"]}"#), Ok((1, true)));
    assert_eq!(texts(r#"["a", "b", "c"]"#), Ok((3, true)));
    for (body, status) in [
        ("", "400"),
        ("{", "400"),
        ("7", "422"),
        ("{}", "422"),
        (r#"{"query": 7}"#, "422"),
        (r#"{"query": ["a", 7]}"#, "422"),
        (r#"{"query": "a", "trunkate": false}"#, "422"),
        (r#"{"query": "a", "truncate": "no"}"#, "422"),
    ] {
        let error = texts(body).unwrap_err();
        assert!(error.starts_with(status), "{body}: {error}");
        assert!(
            error.contains("for example"),
            "{body}: {error} does not say what to do"
        );
    }
}

#[test]
fn tei_shapes() {
    assert_eq!(texts(r#"{"inputs": "a"}"#), Ok((1, false)));
    assert_eq!(texts(r#"{"inputs": ["a", "b"]}"#), Ok((1, false)), "a pair");
    assert_eq!(texts(r#"{"inputs": ["a"]}"#), Ok((1, false)));
    assert_eq!(texts(r#"{"inputs": ["a", "b", "c"]}"#), Ok((3, true)));
    assert_eq!(texts(r#"{"inputs": [["a"], ["b", "c"]]}"#), Ok((2, true)));
    assert!(texts(r#"{"inputs": []}"#).unwrap_err().starts_with("400"));
    assert!(
        texts(r#"{"inputs": [["a", "b", "c"]]}"#)
            .unwrap_err()
            .starts_with("422")
    );
    assert!(texts(r#"{"inputs": 7}"#).unwrap_err().starts_with("422"));
    assert_eq!(
        texts(r#"{"inputs": "a", "truncation_direction": "right"}"#),
        Ok((1, false))
    );
    assert!(texts(r#"{"inputs": "a", "truncation_direction": "left"}"#).is_err());
}

#[test]
fn a_refused_body_does_not_repeat_its_text() {
    for body in [
        r#"{"query": {"secret": 1}}"#,
        r#"{"query": "secret", "x": 1}"#,
        r#"{"query": "a", "truncate": "secret"}"#,
        r#"{"query": "a", "secret": 1}"#,
        r#"{"inputs": "a", "raw_scores": "secret"}"#,
        r#"{"query": "secret}"#,
        r#"["secret", 1]"#,
    ] {
        let error = texts(body).unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn query_strings() {
    let decode = |query: &str| parameters_of(query.as_bytes(), "it", "this");
    assert_eq!(decode("query=play%20a+b%2Bc").unwrap().0, "play a b+c");
    assert_eq!(
        decode("x=1&query=a&truncate=false").unwrap(),
        ("a".into(), TooLong::Refuse)
    );
    assert_eq!(decode("query=").unwrap().0, "");
    for wrong in [
        "",
        "q=a",
        "query=a&query=b",
        "query=a&truncate=no",
        "query=%ff",
    ] {
        assert_eq!(decode(wrong).unwrap_err().status(), 400, "{wrong}");
    }
}
