//! What this machine's vector units can do at most: `cargo bench --bench peak`.
//!
//! Multiply-adds on registers alone, on as many threads as the process may use, for a second each:
//! f32 with the widest instructions there are. The forward pass is held against it (docs/performance.md).

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use pulp::{Arch, Simd, WithSimd};

/// Independent sums: enough to hide the latency of any unit, few enough for 16 registers.
const SUMS: usize = 12;
const STEPS: usize = 100_000;

struct MultiplyAdds;

impl WithSimd for MultiplyAdds {
    type Output = u64;

    /// Floating-point operations done.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> u64 {
        let (a, b) = (
            simd.splat_f32s(black_box(0.999)),
            simd.splat_f32s(black_box(1e-3)),
        );
        let mut sums = [simd.splat_f32s(1.0); SUMS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(*sum, a, b);
            }
        }
        for sum in sums {
            black_box(simd.reduce_sum_f32s(sum));
        }
        (2 * STEPS * SUMS * S::F32_LANES) as u64
    }
}

fn main() {
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let arch = Arch::new();
    let mut rates: Vec<f64> = (0..5).map(|_| rate(threads, arch)).collect();
    rates.sort_by(f64::total_cmp);
    println!(
        "f32, {threads} threads, {arch:?}: {:.1} GFLOP/s (median of 5; {:.1} to {:.1})",
        rates[2], rates[0], rates[4]
    );
}

/// GFLOP/s of all threads together.
fn rate(threads: usize, arch: Arch) -> f64 {
    let work = || {
        let (start, mut done) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_secs(1) {
            done += arch.dispatch(MultiplyAdds);
        }
        done as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or(0.0))
            .sum()
    })
}
