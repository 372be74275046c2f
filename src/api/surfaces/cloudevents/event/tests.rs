use super::*;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        (
            name.parse().unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        )
    };
    pairs.iter().map(pair).collect()
}

const REQUIRED: [(&str, &str); 4] = [
    ("ce-specversion", "1.0"),
    ("ce-id", "partition:0/offset:7"),
    ("ce-source", "/apis/v1/namespaces/a/kafkasources/b#t"),
    ("ce-type", "dev.knative.kafka.event"),
];

#[test]
fn the_mode_follows_from_the_content_type_and_then_the_version() {
    let mode = |pairs: &[_]| ContentMode::of(&headers(pairs)).unwrap();
    assert_eq!(mode(&[]), None);
    assert_eq!(mode(&[("content-type", "application/json")]), None);
    assert_eq!(mode(&[("ce-id", "1")]), None);
    assert_eq!(mode(&REQUIRED), Some(ContentMode::Binary));
    let typed = |value| mode(&[("content-type", value), ("ce-specversion", "1.0")]);
    assert_eq!(typed("text/plain"), Some(ContentMode::Binary));
    assert_eq!(
        typed("Application/CloudEvents+JSON; charset=utf-8"),
        Some(ContentMode::Structured)
    );
    assert_eq!(
        typed("application/cloudevents-batch+json"),
        Some(ContentMode::Batched)
    );
    let avro = headers(&[("content-type", "application/cloudevents+avro")]);
    assert_eq!(ContentMode::of(&avro).unwrap_err().status(), 415);
}

#[test]
fn headers_are_unquoted_and_percent_decoded_once() {
    for (value, expected) in [
        ("a", "a"),
        ("a%20b", "a b"),
        ("a%2520b", "a%20b"),
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("\"a \\\"b\\\" c\"", "a \"b\" c"),
        ("100%", "100%"),
        ("é", "é"),
    ] {
        assert_eq!(decoded(value.as_bytes()), expected);
    }
    // KafkaSource's dispatcher sends `Müller` as these bytes.
    assert_eq!(decoded(b"M\xfcller"), "Müller");
    assert_eq!(decoded(b"%ff"), "ÿ");
}

#[test]
fn an_event_has_four_required_attributes() {
    let mut pairs = REQUIRED.to_vec();
    pairs.push(("ce-partitionkey", "k%201"));
    let event = binary(&headers(&pairs), Bytes::from_static(b"x")).unwrap();
    assert_eq!(event.cause.id, "partition:0/offset:7");
    assert_eq!(event.cause.carried, [("partitionkey", "k 1".to_owned())]);
    for missing in 0..REQUIRED.len() {
        let mut pairs = REQUIRED.to_vec();
        let (name, _) = pairs.remove(missing);
        let error = binary(&headers(&pairs), Bytes::new()).unwrap_err();
        assert_eq!(error.status(), 400);
        let name = name.trim_start_matches("ce-");
        assert!(error.to_string().contains(name), "{error}");
    }
    let mut old = REQUIRED.to_vec();
    old[0].1 = "0.3";
    assert!(binary(&headers(&old), Bytes::new()).is_err());
}

fn of(extra: &str) -> Result<Event, Refusal> {
    let body = format!(r#"{{"specversion":"1.0","id":"1","source":"/a","type":"t"{extra}}}"#);
    structured(body.as_bytes())
}

#[test]
fn data_of_a_structured_event() {
    let data = |extra| of(extra).unwrap().data;
    let bytes = |kind: Option<&str>, bytes: &'static str| {
        EventData::Bytes(
            kind.map(str::to_owned),
            Bytes::from_static(bytes.as_bytes()),
        )
    };
    assert_eq!(data(r#","data":"play""#), EventData::Json("play".into()));
    assert_eq!(
        data(r#","data":"play","datacontenttype":"text/plain""#),
        bytes(Some("text/plain"), "play")
    );
    assert_eq!(
        data(r#","data":{"a":1},"datacontenttype":"application/x+json""#),
        EventData::Json(serde_json::json!({"a": 1}))
    );
    assert_eq!(data(r#","data_base64":"cGxheQ==""#), bytes(None, "play"));
    assert_eq!(data(""), bytes(None, ""));
    assert_eq!(data(r#","data":null"#), bytes(None, ""));
    assert_eq!(
        data(r#","data":"play","data_base64":null"#),
        EventData::Json("play".into())
    );
    assert_eq!(
        data(r#","data":null,"data_base64":"cGxheQ==""#),
        bytes(None, "play")
    );
    for wrong in [
        r#","data":"secret","data_base64":"c2VjcmV0""#,
        r#","data_base64":"secret!""#,
        r#","data_base64":7"#,
    ] {
        let error = of(wrong).unwrap_err();
        assert_eq!(error.status(), 400);
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[test]
fn what_is_only_repeated_does_not_decide() {
    let carried = |extra| of(extra).unwrap().cause.carried;
    let key = |value: &str| vec![("partitionkey", value.to_owned())];
    assert_eq!(carried(r#","partitionkey":7"#), key("7"));
    assert_eq!(carried(r#","partitionkey":true"#), key("true"));
    assert_eq!(carried(r#","partitionkey":{}"#), []);
    assert_eq!(carried(r#","partitionkey":null"#), []);
    let mut latin = headers(&REQUIRED);
    let value = HeaderValue::from_bytes(b"M\xfcller").unwrap();
    latin.insert("ce-partitionkey", value);
    let event = binary(&latin, Bytes::from_static(b"x")).unwrap();
    assert_eq!(event.cause.carried, key("Müller"));
}

#[test]
fn one_bad_event_does_not_affect_the_batch() {
    let good = r#"{"specversion":"1.0","id":"1","source":"/a","type":"t"}"#;
    let batch = format!("[{good}, 7, {good}]");
    let events = batched(batch.as_bytes()).unwrap();
    let good: Vec<bool> = events.map(|event| event.is_ok()).collect();
    assert_eq!(good, [true, false, true]);
    assert_eq!(batched(b"[]").unwrap().len(), 0);
    assert!(batched(b"{}").is_err() && batched(b"[").is_err());
}
