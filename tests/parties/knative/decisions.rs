//! What Knative's autoscaler decides, as golden files that show when a new version decides otherwise.

use std::process::{Command, Stdio};

use super::{folder, program};

#[test]
#[ignore = "needs Go: .ci/knative runs it"]
fn decisions_of_the_autoscaler_are_the_recorded_ones() {
    let mut found = 0;
    for entry in std::fs::read_dir(folder().join("kpa")).unwrap() {
        let input = entry.unwrap().path();
        if input
            .extension()
            .is_none_or(|extension| extension != "json")
        {
            continue;
        }
        let output = Command::new(program("kpa"))
            .stdin(std::fs::File::open(&input).unwrap())
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", input.display());
        let golden = input.with_extension("golden");
        let decided = String::from_utf8(output.stdout).unwrap();
        let recorded = std::fs::read_to_string(&golden).unwrap_or_else(|error| {
            panic!("{}: {error}; it should be:\n{decided}", golden.display())
        });
        assert_eq!(decided, recorded, "{}", input.display());
        found += 1;
    }
    assert!(found >= 3);
}
