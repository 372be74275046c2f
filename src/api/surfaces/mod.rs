//! The surfaces: the interfaces by which clients ask for predictions, one file or folder each.
//!
//! A new surface is a file here with a `SURFACE`, its `mod` and its entry in [`SURFACES`], and a row in
//! `docs/surfaces.md`. Its routes, its part of the OpenAPI document, its label in metrics and its spans follow.

pub(super) mod cloudevents;
pub(super) mod grpc;
pub(super) mod inference;
mod predict;
mod tei;

use super::surface::Surface;

/// All surfaces on the main port.
pub(super) static SURFACES: &[&Surface] = &[
    &predict::SURFACE,
    &cloudevents::SURFACE,
    &tei::SURFACE,
    &inference::SURFACE,
    &grpc::SURFACE,
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn in_repository(path: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
    }

    fn read(path: &str) -> String {
        std::fs::read_to_string(in_repository(path)).unwrap()
    }

    #[test]
    fn labels_and_titles_are_unique() {
        for (index, surface) in SURFACES.iter().enumerate() {
            let (label, title) = (surface.label, surface.title);
            assert_ne!(label, crate::metrics::SurfaceLabel::KAFKA);
            for other in &SURFACES[..index] {
                assert_ne!(other.label, label, "two surfaces have one label");
                assert_ne!(other.title, title, "two surfaces have one title");
            }
        }
    }

    #[test]
    fn every_surface_has_its_row_in_the_documents() {
        let document = read("docs/surfaces.md");
        for surface in SURFACES {
            let row = format!("| {} | `{}` |", surface.title, surface.label.label());
            let has_row = document.lines().any(|line| line.starts_with(&row));
            assert!(
                has_row,
                "the table of docs/surfaces.md has no row that begins with {row}"
            );
        }
    }

    #[test]
    fn every_surface_has_its_fuzz_targets() {
        let replays = read("tests/it/fuzz.rs");
        for surface in SURFACES {
            let (title, targets) = (surface.title, surface.fuzz_targets);
            assert!(
                !targets.is_empty(),
                "{title} names no fuzz target for its decoder"
            );
            for target in targets {
                for path in [
                    format!("fuzz/fuzz_targets/{target}.rs"),
                    format!("fuzz/corpus/{target}"),
                    format!("fuzz/dictionaries/{target}"),
                ] {
                    assert!(in_repository(&path).exists(), "{title} has no {path}");
                }
                let replay = format!("replay(\"{target}\"");
                assert!(
                    replays.contains(&replay),
                    "tests/it/fuzz.rs does not replay the corpus of {target}"
                );
            }
        }
    }
}
