//! The vector instructions of this machine, detected at run time.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use pulp::{Arch, Scalar256b, WithSimd};

/// The widest instruction set that the kernels may use; the machine may have less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum IsaLimit {
    /// Generic code: SSE2 on x86-64, the target's baseline elsewhere.
    Generic,
    /// AVX2 and FMA on x86-64, NEON on AArch64.
    Avx2,
    /// AVX-512, with VNNI where the machine has it.
    Avx512,
}

impl FromStr for IsaLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "generic" => Ok(Self::Generic),
            "avx2" => Ok(Self::Avx2),
            "avx512" | "best" => Ok(Self::Avx512),
            _ => Err("expected best, avx512, avx2 or generic".to_owned()),
        }
    }
}

/// The instruction set that the kernels use. A value of this type proves that the machine has it.
#[derive(Debug, Clone, Copy)]
pub struct Isa {
    arch: Arch,
    vnni: bool,
}

impl Isa {
    /// The best instruction set of this machine.
    pub fn best() -> Self {
        Self::up_to(IsaLimit::Avx512)
    }

    /// The best instruction set of this machine up to `limit`.
    pub fn up_to(limit: IsaLimit) -> Self {
        Self {
            arch: arch(limit),
            vnni: limit >= IsaLimit::Avx512 && has_vnni(),
        }
    }

    /// Whether the machine has the 512-bit dot product of bytes (`vpdpbusd`).
    pub(super) fn has_vnni(self) -> bool {
        self.vnni
    }

    /// Whether the machine has AVX2.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn has_avx2(self) -> bool {
        matches!(self.arch, Arch::V3(_) | Arch::V4(_))
    }

    /// Runs `work` compiled for this instruction set.
    #[inline]
    pub(super) fn dispatch<W: WithSimd>(self, work: W) -> W::Output {
        match self.arch {
            // Arrays of eight, which the compiler maps to the vectors of the target's baseline.
            Arch::Scalar => work.with_simd(Scalar256b),
            arch => arch.dispatch(work),
        }
    }
}

impl Display for Isa {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self.arch {
            Arch::Scalar => "generic",
            #[cfg(target_arch = "x86_64")]
            Arch::V3(_) => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Arch::V4(_) if self.vnni => "AVX-512 VNNI",
            #[cfg(target_arch = "x86_64")]
            Arch::V4(_) => "AVX-512",
            #[cfg(target_arch = "aarch64")]
            Arch::Neon(_) => "NEON",
            _ => "vectors",
        })
    }
}

#[cfg(target_arch = "x86_64")]
fn arch(limit: IsaLimit) -> Arch {
    use pulp::x86::{V3, V4};
    let avx512 = (limit >= IsaLimit::Avx512).then(V4::try_new).flatten();
    let avx2 = (limit >= IsaLimit::Avx2).then(V3::try_new).flatten();
    avx512
        .map(Arch::V4)
        .or(avx2.map(Arch::V3))
        .unwrap_or(Arch::Scalar)
}

#[cfg(not(target_arch = "x86_64"))]
fn arch(limit: IsaLimit) -> Arch {
    match limit {
        IsaLimit::Generic => Arch::Scalar,
        IsaLimit::Avx2 | IsaLimit::Avx512 => Arch::new(),
    }
}

#[cfg(target_arch = "x86_64")]
fn has_vnni() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512vl")
        && std::arch::is_x86_feature_detected!("avx512dq")
        && std::arch::is_x86_feature_detected!("avx512vnni")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_vnni() -> bool {
    false
}
