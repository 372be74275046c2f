//! File descriptors: each connection takes one.

/// Raises the process's limit to the highest that it may set itself, and gives it.
#[cfg(target_os = "linux")]
pub fn descriptors() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    // None is no limit.
    current.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

/// What every Unix gives a process at least.
#[cfg(not(target_os = "linux"))]
pub fn descriptors() -> usize {
    1024
}
