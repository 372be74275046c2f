use super::*;

fn defaults() -> Defaults {
    Defaults {
        endpoints: vec!["intentd:9100".parse().unwrap()],
        activation: 1e-6,
        prometheus: Some("http://prometheus:9090".parse().unwrap()),
        query: Some("up".to_owned()),
        threshold: 5.0,
        bootstrap: None,
        topic: None,
        group: None,
        lag: 0.0,
        kafka_settings: Vec::new(),
        is_fixed: false,
    }
}

fn parse(metadata: &[(&str, &str)], defaults: &Defaults) -> Result<Trigger, String> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let metadata = metadata.iter().map(owned).collect();
    Trigger::parse(&metadata, defaults).map_err(|mistakes| mistakes.join("; "))
}

fn query_of(trigger: &Trigger) -> Option<(&str, f64)> {
    let sources = trigger.watch.wake_sources.iter();
    let mut sources = sources.zip(&trigger.thresholds.wake);
    sources.find_map(|(source, threshold)| match source {
        WakeSource::Prometheus { query, .. } => Some((query.as_str(), *threshold)),
        WakeSource::Kafka(_) => None,
    })
}

#[test]
fn flags_are_the_defaults_of_metadata() {
    let trigger = parse(
        &[("scalerAddress", "scaler:9101"), ("wakeQuery", " ")],
        &defaults(),
    );
    let trigger = trigger.unwrap();
    assert_eq!(trigger.target, 1.0);
    assert_eq!(trigger.watch.endpoints, defaults().endpoints);
    assert_eq!(query_of(&trigger), Some(("up", 5.0)));
    let changed = [
        ("target", "0.8"),
        ("wakeQueryFromEnv", "lag"),
        ("activationDemand", "0.1"),
    ];
    let trigger = parse(&changed, &defaults()).unwrap();
    assert_eq!((trigger.target, trigger.thresholds.demand), (0.8, 0.1));
    assert_eq!(query_of(&trigger), Some(("lag", 5.0)));
}

#[test]
fn a_key_with_and_without_from_env_is_a_mistake() {
    for key in ["replicas", "target", "wakeQuery"] {
        let from_env = format!("{key}FromEnv");
        let mistakes = parse(&[(key, "1"), (&from_env, "2")], &defaults()).unwrap_err();
        let expected = format!("{key}, {from_env}: expected one of them, found both");
        assert!(mistakes.contains(&expected), "{mistakes}");
    }
    // Empty values count as absent, and keys of KEDA are ignored.
    let one = [
        ("target", "2"),
        ("targetFromEnv", " "),
        ("x", "1"),
        ("xFromEnv", "2"),
    ];
    assert_eq!(parse(&one, &defaults()).unwrap().target, 2.0);
}

#[test]
fn the_query_of_the_flags_does_not_wake_another_workload() {
    let other = [("replicas", "b:1, a:1,b:1")];
    let trigger = parse(&other, &defaults()).unwrap();
    let shown: Vec<String> = trigger
        .watch
        .endpoints
        .iter()
        .map(Endpoint::to_string)
        .collect();
    assert_eq!(shown, ["a:1", "b:1"]);
    assert_eq!(query_of(&trigger), None);
    let limits = [
        ("replicas", "a:1,b:1"),
        ("target", "2"),
        ("activationDemand", "3"),
    ];
    let turned = parse(&limits, &defaults()).unwrap();
    assert_eq!(
        turned.watch.key(),
        trigger.watch.key(),
        "one watch for both"
    );
    let own = [("replicas", "a:1"), ("wakeQuery", "lag")];
    let trigger = parse(&own, &defaults()).unwrap();
    assert_eq!(query_of(&trigger), Some(("lag", 0.0)));
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let metadata = [
        ("replicas", "a,b:0"),
        ("target", "-1"),
        ("activationDemand", "some"),
        ("wakePrometheus", "prometheus"),
        ("wakeTreshold", "1"),
    ];
    let mistakes = parse(&metadata, &defaults()).unwrap_err();
    for part in [
        "\"a\"",
        "\"b:0\"",
        "target",
        "activationDemand",
        "wakePrometheus",
        "Treshold",
    ] {
        assert!(mistakes.contains(part), "{part} is missing from {mistakes}");
    }
    let none = Defaults {
        endpoints: Vec::new(),
        prometheus: None,
        query: None,
        ..defaults()
    };
    let mistakes = parse(&[("wakeQuery", "up")], &none).unwrap_err();
    assert!(mistakes.contains("--replicas"), "{mistakes}");
    assert!(mistakes.contains("wakePrometheus"), "{mistakes}");
}

#[test]
fn mistakes_are_bounded_in_length_and_number() {
    let long = "x".repeat(30_000);
    for metadata in [
        ("replicas", ","),
        ("target", &long),
        ("wakeThreshold", &long),
    ] {
        let mistakes = parse(&[metadata], &defaults()).unwrap_err();
        assert!(mistakes.len() < 300, "{mistakes}");
    }
    let many = vec!["x"; 10_000].join(",");
    let mistakes = parse(&[("replicas", &many)], &defaults()).unwrap_err();
    assert!(
        mistakes.len() < 2000 && mistakes.ends_with("and more"),
        "{mistakes}"
    );
    let endpoints = |count: usize| {
        let list: Vec<String> = (1..=count).map(|port| format!("a:{port}")).collect();
        parse(&[("replicas", &list.join(","))], &defaults())
    };
    assert!(endpoints(64).is_ok());
    assert!(endpoints(65).unwrap_err().contains("at most 64"));
}

#[test]
fn thresholds_share_one_watch() {
    let fixed = Defaults {
        is_fixed: true,
        ..defaults()
    };
    let one = parse(&[("activationDemand", "0.5")], &fixed).unwrap();
    let other = parse(&[("activationDemand", "0.25"), ("target", "3")], &fixed).unwrap();
    assert_eq!(one.watch.key(), other.watch.key());
    let woken = parse(&[("wakeThreshold", "9")], &defaults()).unwrap();
    assert_eq!(woken.watch.key(), one.watch.key());
    assert_eq!(query_of(&woken), Some(("up", 9.0)));
}

#[cfg(feature = "kafka")]
#[test]
fn brokers_are_bounded() {
    let brokers = vec!["kafka:9092"; 17].join(",");
    let metadata = [
        ("wakeKafka", brokers.as_str()),
        ("wakeTopic", "t"),
        ("wakeGroup", "g"),
    ];
    let mistakes = parse(&metadata, &defaults()).unwrap_err();
    assert!(mistakes.contains("at most 16"), "{mistakes}");
}

#[test]
fn a_fixed_scaler_refuses_the_sources_of_a_trigger() {
    let fixed = Defaults {
        is_fixed: true,
        ..defaults()
    };
    assert!(parse(&[("target", "2")], &fixed).is_ok());
    let mistakes = parse(&[("replicas", "a:1"), ("wakeQuery", "up")], &fixed).unwrap_err();
    assert_eq!(mistakes.matches("--fixed").count(), 2, "{mistakes}");
}

#[cfg(feature = "kafka")]
#[test]
fn secrets_go_only_to_the_brokers_of_the_flag() {
    let secret = ("sasl.password".to_owned(), "secret".to_owned());
    let defaults = Defaults {
        bootstrap: Some("kafka:9092".to_owned()),
        kafka_settings: vec![secret],
        ..defaults()
    };
    let settings = |metadata: &[(&str, &str)]| {
        let topic = [("replicas", "a:1"), ("wakeTopic", "t"), ("wakeGroup", "g")];
        let trigger = parse(&[&topic[..], metadata].concat(), &defaults).unwrap();
        match &trigger.watch.wake_sources[..] {
            [WakeSource::Kafka(group)] => group.settings.len(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(settings(&[]), 1);
    assert_eq!(settings(&[("wakeKafka", "kafka:9092")]), 1);
    assert_eq!(settings(&[("wakeKafka", "elsewhere:9092")]), 0);
}

#[cfg(not(feature = "kafka"))]
#[test]
fn a_build_without_kafka_says_how_to_build_it() {
    let mistakes = parse(&[("wakeTopic", "t")], &defaults()).unwrap_err();
    assert!(mistakes.contains("--features kafka"), "{mistakes}");
}
