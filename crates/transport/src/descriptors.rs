//! The limit of file descriptors; each connection takes one.

/// Raises the process's limit to its hard limit, and returns that.
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
    // `None` means unlimited.
    current.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

/// The least that a Unix system grants to a process.
#[cfg(not(target_os = "linux"))]
pub fn descriptors() -> usize {
    1024
}
