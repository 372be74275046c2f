//! Compiles the kernels: with nvcc into a fat binary (feature `driver`), with the C++ compiler into the
//! emulator (feature `emulator`).

#![expect(
    clippy::disallowed_methods,
    reason = "a build script is configured by its environment"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use sha2::{Digest, Sha256};

/// Machine code for Turing, both Amperes, Ada and Hopper; PTX covers later architectures.
const ARCHITECTURES: [&str; 5] = ["75", "80", "86", "89", "90"];
const PREBUILT: &str = "prebuilt/intentd.fatbin";
const PREBUILT_SOURCES: &str = "prebuilt/SOURCES.sha256";

fn main() {
    for path in ["cuda", "build.rs"] {
        println!("cargo::rerun-if-changed={path}");
    }
    if env::var_os("CARGO_FEATURE_DRIVER").is_some() {
        fat_binary();
    }
    #[cfg(feature = "emulator")]
    emulator();
}

fn out(name: &str) -> PathBuf {
    PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join(name)
}

/// SHA-256 of the names and contents of all kernel sources, sorted by name.
fn sources() -> String {
    let mut files: Vec<PathBuf> = fs::read_dir("cuda")
        .expect("the folder of kernels")
        .map(|entry| entry.expect("a file of kernels").path())
        .collect();
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        hash.update(file.to_string_lossy().as_bytes());
        hash.update([0]);
        hash.update(fs::read(&file).expect("a readable kernel"));
        hash.update([0]);
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn fat_binary() {
    println!("cargo::rerun-if-changed=prebuilt");
    let target = out("intentd.fatbin");
    fs::write(out("SOURCES.sha256"), sources() + "\n").expect("a writable OUT_DIR");
    let nvcc = nvcc();
    if env::var_os("CARGO_FEATURE_CUDA_12").is_some() {
        check_is_12(nvcc.as_deref());
    }
    match nvcc {
        Some(nvcc) => compile(&nvcc, &target),
        None => {
            let built_from = fs::read_to_string(PREBUILT_SOURCES).unwrap_or_default();
            assert!(
                built_from.trim() == sources(),
                "no nvcc found (NVCC, CUDA_HOME/bin, PATH), and kernels/{PREBUILT} was built from \
                 other sources than kernels/cuda; install a compiler with kernels/toolkit.sh"
            );
            fs::copy(PREBUILT, target).expect("the prebuilt kernels");
        }
    }
}

/// Drivers for CUDA 12 do not load the output of another major version's compiler.
fn check_is_12(nvcc: Option<&Path>) {
    let version = nvcc.map(|nvcc| output(nvcc, "--version"));
    if version.is_some_and(|version| version.contains("release 12.")) {
        return;
    }
    let problem = "the feature cuda-12 needs nvcc 12 (NVCC, CUDA_HOME/bin or PATH): kernels of \
                   another compiler do not load on drivers for CUDA 12";
    assert!(env::var("PROFILE").as_deref() != Ok("release"), "{problem}");
    // The build lacks something that another PATH may have.
    println!("cargo::rerun-if-env-changed=PATH");
    println!("cargo::warning={problem}; a release build would end here");
}

/// The output of a program called with one flag; empty when it does not run.
fn output(program: &Path, flag: &str) -> String {
    let output = Command::new(program).arg(flag).output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

/// The first CUDA compiler that runs: `NVCC`, then `nvcc` in `CUDA_HOME/bin`, then `nvcc` in PATH.
///
/// Cargo reruns this script, and rebuilds all dependents, when a watched variable changes its text or when
/// a watched file is newer than the last run; it cannot watch the result of a search. Watched are the two
/// variables that name a compiler, and the compiler that was found. PATH is searched but not watched: its
/// text differs between shells, and entering a Python virtual environment would recompile the server.
/// An nvcc that comes into PATH later, or moves to its front, is therefore not noticed until `NVCC` or
/// `CUDA_HOME` names it or the sources change. Until then the build stays correct: the kernels come from
/// the same sources either way, and without nvcc 12 the feature `cuda-12` watches PATH, too.
fn nvcc() -> Option<PathBuf> {
    for variable in ["NVCC", "CUDA_HOME"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let named = env::var_os("NVCC").map(PathBuf::from);
    let from_home = env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin/nvcc"));
    let candidates = [named, from_home, Some("nvcc".into())];
    let mut files = candidates.into_iter().flatten().flat_map(files_of);
    let nvcc = files.find(|nvcc| {
        let version = Command::new(nvcc).arg("--version").output();
        version.is_ok_and(|version| version.status.success())
    })?;
    watch(&nvcc);
    Some(nvcc)
}

/// Reruns this script when `nvcc` is removed or replaced.
///
/// A file's time is not enough: package managers keep the time of packaging, which is older than the last
/// build. The time of the folder changes with every installation. A toolkit's own folder, recognised by
/// `nvcc.profile`, is small enough to watch; a folder such as `/usr/bin` is not.
fn watch(nvcc: &Path) {
    println!("cargo::rerun-if-changed={}", nvcc.display());
    let real = fs::canonicalize(nvcc).unwrap_or_else(|_| nvcc.to_owned());
    if let Some(folder) = real.parent()
        && folder.join("nvcc.profile").is_file()
    {
        println!("cargo::rerun-if-changed={}", folder.display());
    }
}

/// The paths where a program may be: its own path, or for a bare name one in each folder of PATH.
fn files_of(program: PathBuf) -> Vec<PathBuf> {
    if program.components().count() > 1 {
        return vec![program];
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|folder| folder.join(&program))
        .collect()
}

fn compile(nvcc: &Path, target: &Path) {
    let mut command = Command::new(nvcc);
    command.args(["-fatbin", "-O3", "-std=c++17", "-Werror", "all-warnings"]);
    // nvcc has the flag since CUDA 12.9; drivers read compressed fat binaries since CUDA 12.4.
    if output(nvcc, "--help").contains("--compress-mode") {
        command.arg("--compress-mode=size");
    }
    let threads = env::var("INTENTD_NVCC_THREADS").unwrap_or_else(|_| "2".to_owned());
    command.args(["--threads", &threads]);
    for architecture in ARCHITECTURES {
        command.arg(format!(
            "-gencode=arch=compute_{architecture},code=sm_{architecture}"
        ));
    }
    command.arg("-gencode=arch=compute_90,code=compute_90");
    let status = command
        .arg("-o")
        .arg(target)
        .arg("cuda/intentd.cu")
        .status();
    let status = status.expect("nvcc starts, as it did for --version");
    assert!(
        status.success(),
        "{} failed on kernels/cuda/intentd.cu",
        nvcc.display()
    );
}

#[cfg(feature = "emulator")]
fn emulator() {
    println!("cargo::rerun-if-changed=emulator");
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .include("emulator");
    build
        .define("INTENTD_EMULATOR", None)
        .flag("-Wno-unknown-pragmas");
    // Fibers jump between stacks; a fortified longjmp treats that as an error.
    build
        .flag("-U_FORTIFY_SOURCE")
        .file("emulator/emulator.cpp");
    let runs = |tool: cc::Tool| tool.to_command().arg("--version").output();
    let compiler = build.try_get_compiler().map(runs);
    if !matches!(compiler, Ok(Ok(output)) if output.status.success()) {
        // The build lacks something that another PATH may have.
        println!("cargo::rerun-if-env-changed=PATH");
        println!(
            "cargo::warning=no C++ compiler (Debian: g++); the kernels' emulator and its tests are left out"
        );
        return;
    }
    // A failure from here on is an error in the sources.
    build.compile("intentd_emulator");
    println!("cargo::rustc-cfg=has_emulator");
}
