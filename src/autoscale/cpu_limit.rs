//! The cores that this process may use, by affinity and by the CPU limit of its cgroups.
//!
//! The standard library rounds a limit to whole cores. A pod with a limit of 200m has a fifth of one.

use std::path::{Path, PathBuf};

/// Cores that this process may use: a fraction if its CPU time is limited.
pub fn cores() -> f64 {
    let limit = limit_from(Path::new("/proc/self"), Path::new("/sys/fs/cgroup"));
    affinity().min(limit.unwrap_or(f64::INFINITY)).max(0.01)
}

#[cfg(target_os = "linux")]
fn affinity() -> f64 {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => f64::from(set.count()),
        Err(_) => parallelism(),
    }
}

#[cfg(not(target_os = "linux"))]
fn affinity() -> f64 {
    parallelism()
}

fn parallelism() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64)
}

/// The lowest CPU limit of the process and its parents, in cores.
fn limit_from(process: &Path, cgroups: &Path) -> Option<f64> {
    let groups = std::fs::read_to_string(process.join("cgroup")).ok()?;
    let limits = groups.lines().filter_map(|line| {
        // hierarchy:controllers:path
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        match controllers {
            "" => lowest(&[cgroups.to_owned()], path, version_two),
            _ if controllers.split(',').any(|name| name == "cpu") => {
                let mounts = [cgroups.join(controllers), cgroups.join("cpu")];
                lowest(&mounts, path, version_one)
            }
            _ => None,
        }
    });
    limits.reduce(f64::min)
}

/// The lowest limit of the group at `path` and its parents. Within a container, the mount may show only the group
/// itself, so the mount counts as the last parent.
fn lowest(mounts: &[PathBuf], path: &str, read: fn(&Path) -> Option<f64>) -> Option<f64> {
    let groups = Path::new(path.trim_start_matches('/')).ancestors();
    let limits =
        groups.filter_map(|group| mounts.iter().find_map(|mount| read(&mount.join(group))));
    limits.reduce(f64::min)
}

/// `cpu.max` of cgroup v2: microseconds of CPU time, or `max`, and of the period.
fn version_two(group: &Path) -> Option<f64> {
    let text = std::fs::read_to_string(group.join("cpu.max")).ok()?;
    let mut fields = text.split_whitespace();
    cores_of(fields.next()?, fields.next()?)
}

/// The two files of cgroup v1; a quota of -1 is no limit.
fn version_one(group: &Path) -> Option<f64> {
    let read = |name| std::fs::read_to_string(group.join(name)).ok();
    cores_of(&read("cpu.cfs_quota_us")?, &read("cpu.cfs_period_us")?)
}

fn cores_of(quota: &str, period: &str) -> Option<f64> {
    let quota: f64 = quota.trim().parse().ok()?;
    let period: f64 = period.trim().parse().ok()?;
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, path: &str, text: &str) {
        let path = directory.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn limit(directory: &Path) -> Option<f64> {
        limit_from(&directory.join("proc"), &directory.join("cgroup"))
    }

    #[test]
    fn the_lowest_limit_of_version_two_counts() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        assert_eq!(limit(directory), None);
        write(directory, "proc/cgroup", "0::/pods/pod/container\n");
        write(
            directory,
            "cgroup/pods/pod/container/cpu.max",
            "max 100000\n",
        );
        assert_eq!(limit(directory), None);
        write(directory, "cgroup/pods/pod/cpu.max", "150000 100000\n");
        assert_eq!(limit(directory), Some(1.5));
        write(
            directory,
            "cgroup/pods/pod/container/cpu.max",
            "20000 100000\n",
        );
        assert_eq!(limit(directory), Some(0.2));
    }

    #[test]
    fn a_limit_of_version_one_counts_wherever_it_is_mounted() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        write(
            directory,
            "proc/cgroup",
            "3:memory:/a\n2:cpu,cpuacct:/pod\n0::/\n",
        );
        // In a container, the mount is the group itself.
        write(directory, "cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n");
        write(
            directory,
            "cgroup/cpu,cpuacct/cpu.cfs_period_us",
            "100000\n",
        );
        assert_eq!(limit(directory), Some(0.5));
        write(directory, "cgroup/cpu,cpuacct/pod/cpu.cfs_quota_us", "-1\n");
        write(
            directory,
            "cgroup/cpu,cpuacct/pod/cpu.cfs_period_us",
            "100000\n",
        );
        assert_eq!(limit(directory), Some(0.5));
        write(
            directory,
            "cgroup/cpu,cpuacct/pod/cpu.cfs_quota_us",
            "20000\n",
        );
        assert_eq!(limit(directory), Some(0.2));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_may_use_no_more_cores_than_there_are() {
        let Ok(entries) = std::fs::read_dir("/sys/devices/system/cpu") else {
            return; // Masked.
        };
        let name =
            |entry: std::io::Result<std::fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
        let is_core = |name: &String| {
            let number = name.strip_prefix("cpu").unwrap_or_default();
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        };
        let there_are = entries.filter_map(name).filter(is_core).count();
        assert!((0.0..=there_are as f64).contains(&cores()), "{}", cores());
    }
}
