//! What the environment says beyond the variables of the flags.

/// The settings that a platform gives to the processes that it runs.
#[derive(Debug, Clone, Default)]
pub struct Platform {
    /// `PORT`, which Knative and other platforms set.
    pub port: Option<String>,
    /// What Knative runs in this process; `None` where `K_SERVICE` is not set.
    pub knative: Option<Knative>,
    /// The host's name; in Kubernetes the pod's.
    pub hostname: Option<String>,
}

/// Knative's names for what it runs (runtime contract, "Process environment").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Knative {
    /// `K_SERVICE`; empty for a configuration without a service.
    pub service: String,
    /// `K_CONFIGURATION`.
    pub configuration: String,
    /// `K_REVISION`.
    pub revision: String,
}

impl Platform {
    /// Reads the environment of this process.
    #[expect(
        clippy::disallowed_methods,
        reason = "this module reads the environment for the whole program"
    )]
    pub fn from_environment() -> Self {
        let named = |name: &str| std::env::var(name).unwrap_or_default();
        let is_knative = std::env::var_os("K_SERVICE").is_some();
        Self {
            port: std::env::var("PORT").ok(),
            knative: is_knative.then(|| Knative {
                service: named("K_SERVICE"),
                configuration: named("K_CONFIGURATION"),
                revision: named("K_REVISION"),
            }),
            hostname: std::env::var("HOSTNAME").ok().or_else(hostname),
        }
    }
}

/// The host's name from Linux, for shells that do not export `HOSTNAME`.
fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned())
}
