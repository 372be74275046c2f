//! `profile.json`: the measured times, with model, engine, machine and date.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::fit::Fit;
use super::grid::{Grid, Shape};
use super::point::{Point, Skipped};
use crate::serving::{Prior, PriorBatch, Quartiles};
use intentd_base::input;

/// The version of the file format. It changes when a key changes its meaning or is removed.
pub const SCHEMA_VERSION: u32 = 1;

/// Largest file that is read.
const BYTES_MAX: u64 = 4 << 20;

/// Why a file cannot be used as a profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The file cannot be read.
    #[error("{0}: {1}")]
    Unreadable(String, std::io::Error),
    /// The file is not in the format that `intentd profile --json` writes.
    #[error("{0}: expected what `intentd profile --json` writes, found {1}")]
    Invalid(String, String),
}

/// The measured times of batches, for one model on one engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// The version of the format, [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The version of the program that measured.
    pub intentd: String,
    /// The model.
    pub model: ModelName,
    /// The engine's description: implementation, device, number of threads.
    pub engine: String,
    /// Cores available to the process.
    pub cores: usize,
    /// Time of the measurement, in the format of RFC 3339.
    pub date: String,
    /// Seconds from the first byte of the checkpoint to the first answer.
    pub startup_seconds: f64,
    /// Bounds of the measured shapes.
    pub grid: Grid,
    /// The line through the points.
    pub fit: Fit,
    /// The measured shapes.
    pub points: Vec<Point>,
    /// Shapes within the bounds that were not measured.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
}

/// The identity of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelName {
    /// A readable name: the last part of the checkpoint's path.
    pub name: String,
    /// [`Checkpoint::digest`](crate::model::Checkpoint::digest).
    pub sha256: String,
}

impl Profile {
    /// Reads a profile from a file.
    ///
    /// # Errors
    /// See [`ProfileError`].
    pub fn read(path: &Path) -> Result<Self, ProfileError> {
        let name = || path.display().to_string();
        let unreadable = |error| ProfileError::Unreadable(name(), error);
        let content = input::read(path, BYTES_MAX).map_err(unreadable)?;
        Self::parse(&content).map_err(|found| ProfileError::Invalid(name(), found))
    }

    /// Parses and checks the content of a file.
    ///
    /// # Errors
    /// What was found instead of the expected content.
    pub fn parse(content: &[u8]) -> Result<Self, String> {
        if content.len() as u64 > BYTES_MAX {
            return Err(format!("more than {BYTES_MAX} bytes"));
        }
        let version: Version = serde_json::from_slice(content).map_err(|e| e.to_string())?;
        let found = version.schema_version;
        if found != SCHEMA_VERSION {
            return Err(format!(
                "schema_version {found}; this program reads {SCHEMA_VERSION}"
            ));
        }
        let profile: Self = serde_json::from_slice(content).map_err(|e| e.to_string())?;
        profile.check()?;
        Ok(profile)
    }

    fn check(&self) -> Result<(), String> {
        let Fit {
            tau0_seconds,
            alpha_seconds,
            ..
        } = self.fit;
        if !(tau0_seconds >= 0.0 && alpha_seconds >= 0.0 && tau0_seconds + alpha_seconds > 0.0) {
            return Err("a fit with times below zero, or without any".to_owned());
        }
        if self.usual().next().is_none() {
            return Err("no points".to_owned());
        }
        for (index, point) in self.points.iter().enumerate() {
            let Shape { texts, tokens } = point.shape;
            let is_size = |n: usize| (1..=1 << 24).contains(&n);
            if !is_size(texts) || !is_size(tokens) {
                let found = format!("{texts} texts of {tokens} tokens");
                return Err(format!("{found} in points[{index}]"));
            }
            let (q1, q2, q3) = (point.seconds_q1, point.seconds_median, point.seconds_q3);
            // The bound of an hour keeps sums and products finite.
            if !(q1 > 0.0 && q1 <= q2 && q2 <= q3 && q3 < 3600.0) {
                let found = format!("quartiles of {q1}, {q2} and {q3} seconds");
                return Err(format!("{found} in points[{index}]"));
            }
            if let Some(cpu) = point
                .cpu_seconds_median
                .filter(|cpu| !(0.0..3600.0).contains(cpu))
            {
                return Err(format!("{cpu} seconds of CPU time in points[{index}]"));
            }
        }
        Ok(())
    }

    /// The points that the line is fitted to.
    fn usual(&self) -> impl Iterator<Item = &Point> {
        let tokens = self.fit.text_tokens;
        self.points.iter().filter(move |p| p.shape.tokens <= tokens)
    }

    /// The point of a shape, if it was measured.
    pub fn point(&self, shape: Shape) -> Option<&Point> {
        self.points.iter().find(|point| point.shape == shape)
    }

    /// Converts the profile to the prior of a server's calibration. `path` is the file it was read from.
    pub fn prior(&self, path: &Path) -> Prior {
        let batch = |point: &Point| PriorBatch {
            texts: point.shape.texts,
            tokens: point.shape.tokens,
            took: point.seconds_median,
            spent: point.cpu_seconds_median.unwrap_or(point.seconds_median),
            quartiles: Quartiles {
                first: point.seconds_q1,
                third: point.seconds_q3,
            },
        };
        Prior {
            name: path.display().to_string(),
            model: self.model.sha256.clone(),
            engine: self.engine.clone(),
            batches: self.usual().map(batch).collect(),
        }
    }
}

/// The part that every version of the format has.
#[derive(Deserialize)]
struct Version {
    schema_version: u32,
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::fit::tests::points;
    use super::super::point::SkipReason;
    use super::*;

    pub(in crate::profile) fn profile() -> Profile {
        let points = points();
        Profile {
            schema_version: SCHEMA_VERSION,
            intentd: "0.1.0".to_owned(),
            model: ModelName {
                name: "intent-snips".to_owned(),
                sha256: "ab".repeat(32),
            },
            engine: "cpu f32, 2 threads".to_owned(),
            cores: 2,
            date: "2026-01-01T00:00:00Z".to_owned(),
            startup_seconds: 0.05,
            grid: Grid {
                batch_tokens: 4096,
                batch_texts: 256,
                text_tokens: 512,
            },
            // Short numbers: the JSON reader may round the last digit of long ones.
            fit: Fit {
                tau0_seconds: 1e-3,
                alpha_seconds: 1e-5,
                error_ratio: 0.0,
                error_ratio_max: 0.0,
                text_tokens: 64,
            },
            points,
            skipped: vec![Skipped {
                shape: Shape {
                    texts: 8,
                    tokens: 512,
                },
                reason: SkipReason::Time,
                seconds_expected: 1.0,
            }],
        }
    }

    #[test]
    fn a_written_profile_can_be_read() {
        let profile = profile();
        let text = serde_json::to_string(&profile).unwrap();
        assert_eq!(Profile::parse(text.as_bytes()), Ok(profile.clone()));
        let mut value = serde_json::to_value(&profile).unwrap();
        assert_eq!(value["points"][0]["texts"], 1, "{}", value["points"][0]);
        assert_eq!(value["skipped"][0]["reason"], "time");
        value["more"] = "of a later version".into();
        assert!(Profile::parse(value.to_string().as_bytes()).is_ok());
        let prior = profile.prior(Path::new("a/profile.json"));
        assert!(prior.batches.iter().all(|batch| batch.tokens <= 64));
        assert_eq!(prior.name, "a/profile.json");
    }

    #[test]
    fn errors_name_the_mistake() {
        let broken = |change: fn(&mut serde_json::Value)| {
            let mut value = serde_json::to_value(profile()).unwrap();
            change(&mut value);
            Profile::parse(value.to_string().as_bytes()).unwrap_err()
        };
        for (mistake, part) in [
            (
                broken(|v| v["schema_version"] = 2.into()),
                "schema_version 2",
            ),
            (broken(|v| v["points"] = serde_json::json!([])), "no points"),
            (broken(|v| v["points"][3]["texts"] = 0.into()), "points[3]"),
            (
                broken(|v| v["points"][1]["seconds_median"] = 0.into()),
                "points[1]",
            ),
            (
                broken(|v| v["points"][1]["cpu_seconds_median"] = (-1).into()),
                "CPU",
            ),
            (broken(|v| v["fit"]["alpha_seconds"] = (-1).into()), "fit"),
            (broken(|v| v["model"] = 1.into()), "ModelName"),
            (Profile::parse(b"{").unwrap_err(), "EOF"),
            (Profile::parse(b"[]").unwrap_err(), "Version"),
            (Profile::parse(&vec![b' '; 5 << 20]).unwrap_err(), "bytes"),
        ] {
            assert!(mistake.contains(part), "{part} is missing from {mistake}");
        }
        let error = Profile::read(Path::new("no/such/profile.json")).unwrap_err();
        assert!(
            error.to_string().contains("no/such/profile.json"),
            "{error}"
        );
    }
}
