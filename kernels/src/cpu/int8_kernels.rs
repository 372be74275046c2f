//! The inner loops of int8 products: a tile of sums stays in registers during one pass over the inputs.

use super::isa::Isa;

/// The most rows of a tile for all instruction sets.
pub(super) const ROWS_MAX: usize = 14;

/// The most rows of a tile for `isa`: 32 registers hold the operands and 14 rows of two vectors of sums, 16
/// registers hold 6 rows.
pub(super) fn rows_max(isa: Isa) -> usize {
    if isa.has_vnni() { ROWS_MAX } else { 6 }
}

/// `sums[row][column] = Σ codes[row][input] · weights[input][column]` with unsigned codes.
///
/// `codes` are rows of bytes and the stride between them; `weights` is `[inputs / 4][32][4]`. Without VNNI
/// this is a plain loop.
pub(super) fn fours(
    isa: Isa,
    (codes, stride): (&[u8], usize),
    weights: &[i8],
    sums: &mut [[i32; 32]],
) {
    let groups = weights.len() / 128;
    assert!(sums.len() <= ROWS_MAX && codes.len() >= (sums.len() - 1) * stride + 4 * groups);
    #[cfg(target_arch = "x86_64")]
    if isa.has_vnni() {
        // SAFETY: `isa` is proof of the instructions, and the lengths have been checked.
        return unsafe { x86::fours(codes.as_ptr(), stride, weights, sums) };
    }
    let _ = isa;
    for (row, sums) in sums.iter_mut().enumerate() {
        sums.fill(0);
        let codes = &codes[row * stride..][..4 * groups];
        let weights = weights.as_chunks::<128>().0;
        for (codes, weights) in codes.as_chunks::<4>().0.iter().zip(weights) {
            for (sum, weights) in sums.iter_mut().zip(weights.as_chunks::<4>().0) {
                for (code, weight) in codes.iter().zip(weights) {
                    *sum += i32::from(*code) * i32::from(*weight);
                }
            }
        }
    }
}

/// As [`fours`], with signed codes of 16 bits and `weights` as `[inputs / 2][16][2]`; writes the first 16
/// columns of `sums`.
pub(super) fn pairs(
    isa: Isa,
    (codes, stride): (&[i16], usize),
    weights: &[i8],
    sums: &mut [[i32; 32]],
) {
    let groups = weights.len() / 32;
    assert!(sums.len() <= 6 && codes.len() >= (sums.len() - 1) * stride + 2 * groups);
    #[cfg(target_arch = "x86_64")]
    if isa.has_avx2() {
        // SAFETY: `isa` is proof of the instructions, and the lengths have been checked.
        return unsafe { x86::pairs(codes.as_ptr(), stride, weights, sums) };
    }
    let _ = isa;
    for (row, sums) in sums.iter_mut().enumerate() {
        sums.fill(0);
        let codes = &codes[row * stride..][..2 * groups];
        let weights = weights.as_chunks::<32>().0;
        for ([low, high], weights) in codes.as_chunks::<2>().0.iter().zip(weights) {
            for (sum, [first, second]) in sums.iter_mut().zip(weights.as_chunks::<2>().0) {
                *sum += i32::from(*low) * i32::from(*first) + i32::from(*high) * i32::from(*second);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    /// Prefetch distance in groups of inputs.
    const AHEAD: usize = 24;

    /// Turns the number of rows into a constant, so that the sums live in registers.
    macro_rules! heights {
        ($kernel:ident($codes:expr, $stride:expr, $weights:expr, $sums:expr): $($height:literal)*) => {
            match $sums.len() {
                $($height => $kernel::<$height>($codes, $stride, $weights, $sums),)*
                _ => unreachable!("the caller has checked the number of rows"),
            }
        };
    }

    /// # Safety
    /// AVX-512 VNNI; rows of codes for all inputs of `weights`.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    pub(super) unsafe fn fours(
        codes: *const u8,
        stride: usize,
        weights: &[i8],
        sums: &mut [[i32; 32]],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            heights!(fours_of(codes, stride, weights, sums): 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
    unsafe fn fours_of<const ROWS: usize>(
        codes: *const u8,
        stride: usize,
        weights: &[i8],
        sums: &mut [[i32; 32]],
    ) {
        let mut tile = [[_mm512_setzero_si512(); 2]; ROWS];
        for (group, weights) in weights.as_chunks::<128>().0.iter().enumerate() {
            let weights = weights.as_ptr();
            // SAFETY: 128 bytes of weights; a prefetch may use any address; the caller promises four
            // codes per group in each row.
            unsafe {
                let low = _mm512_loadu_si512(weights.cast());
                let high = _mm512_loadu_si512(weights.add(64).cast());
                _mm_prefetch::<_MM_HINT_T0>(weights.wrapping_add(128 * AHEAD));
                _mm_prefetch::<_MM_HINT_T0>(weights.wrapping_add(128 * AHEAD + 64));
                for (row, sums) in tile.iter_mut().enumerate() {
                    let four = codes.add(row * stride + 4 * group).cast::<i32>();
                    let four = _mm512_set1_epi32(four.read_unaligned());
                    sums[0] = _mm512_dpbusd_epi32(sums[0], four, low);
                    sums[1] = _mm512_dpbusd_epi32(sums[1], four, high);
                }
            }
        }
        for (sums, tile) in sums.iter_mut().zip(tile) {
            let place = sums.as_mut_ptr();
            // SAFETY: 32 numbers of 32 bits.
            unsafe {
                _mm512_storeu_si512(place.cast(), tile[0]);
                _mm512_storeu_si512(place.add(16).cast(), tile[1]);
            }
        }
    }

    /// # Safety
    /// AVX2; rows of codes for all inputs of `weights`.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn pairs(
        codes: *const i16,
        stride: usize,
        weights: &[i8],
        sums: &mut [[i32; 32]],
    ) {
        // SAFETY: the caller's promise.
        unsafe { heights!(pairs_of(codes, stride, weights, sums): 1 2 3 4 5 6) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn pairs_of<const ROWS: usize>(
        codes: *const i16,
        stride: usize,
        weights: &[i8],
        sums: &mut [[i32; 32]],
    ) {
        let mut tile = [[_mm256_setzero_si256(); 2]; ROWS];
        for (group, weights) in weights.as_chunks::<32>().0.iter().enumerate() {
            let weights = weights.as_ptr();
            // SAFETY: 32 bytes of weights; a prefetch may use any address; the caller promises two codes
            // per group in each row.
            unsafe {
                let low = _mm256_cvtepi8_epi16(_mm_loadu_si128(weights.cast()));
                let high = _mm256_cvtepi8_epi16(_mm_loadu_si128(weights.add(16).cast()));
                _mm_prefetch::<_MM_HINT_T0>(weights.wrapping_add(32 * 2 * AHEAD));
                for (row, sums) in tile.iter_mut().enumerate() {
                    let two = codes.add(row * stride + 2 * group).cast::<i32>();
                    let two = _mm256_set1_epi32(two.read_unaligned());
                    sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(two, low));
                    sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(two, high));
                }
            }
        }
        for (sums, tile) in sums.iter_mut().zip(tile) {
            let place = sums.as_mut_ptr();
            // SAFETY: the first 16 of 32 numbers of 32 bits.
            unsafe {
                _mm256_storeu_si256(place.cast(), tile[0]);
                _mm256_storeu_si256(place.add(8).cast(), tile[1]);
            }
        }
    }
}
