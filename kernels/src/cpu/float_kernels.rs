//! The inner loops of products with f32 arithmetic: a tile of sums stays in registers during one pass over
//! the inputs.
//!
//! The loops for AVX-512 and AVX2 are intrinsics in functions of their own. When they are inlined, the
//! compiler keeps constants of other loops in registers and the sums in memory, at half of the speed.

use std::any::TypeId;

use pulp::{Scalar256b, Simd};

use super::operands::{InputRows, PanelValues};

/// The most rows of a tile for all instruction sets.
pub(super) const ROWS_MAX: usize = 14;

/// The sums of a tile, with room for the widest panel.
pub(super) type Sums = [[f32; 32]; ROWS_MAX];

/// The most rows of a tile whose sums fit into the registers together with the operands.
#[inline(always)]
pub(super) fn rows_max<S: Simd>(values: PanelValues<'_>) -> usize {
    match values {
        _ if is_generic::<S>() => 3,
        PanelValues::F32(_) if S::F32_LANES >= 16 => ROWS_MAX,
        _ if S::F32_LANES >= 16 || cfg!(target_arch = "aarch64") => 12,
        PanelValues::F32(_) => 6,
        PanelValues::Bf16(_) => 5,
    }
}

/// `sums[row][column] = bias[column] + Σ left[row][input] · panel[input][column]` for the rows of
/// `left`, over `inputs`.
///
/// # Panics
/// When `left` has more rows than [`rows_max`], or an operand is too short.
#[inline(always)]
pub(super) fn tile<S: Simd>(
    simd: S,
    left: InputRows<'_>,
    inputs: usize,
    (panel, bias): (PanelValues<'_>, Option<&[f32]>),
    sums: &mut Sums,
) {
    let width = 2 * S::F32_LANES;
    let enough = match panel {
        PanelValues::F32(values) => values.len() >= inputs * width,
        PanelValues::Bf16(words) => words.len() >= inputs.div_ceil(2) * width,
    };
    assert!(
        enough && bias.is_none_or(|bias| bias.len() >= width),
        "a whole panel"
    );
    assert!(
        left.count > 0 && left.count <= rows_max::<S>(panel),
        "rows of a tile"
    );
    assert!(
        left.values.len() >= (left.count - 1) * left.stride + inputs,
        "whole rows"
    );
    #[cfg(target_arch = "x86_64")]
    {
        let tile = x86::TileInputs {
            values: left.values.as_ptr(),
            stride: left.stride,
            inputs,
            bias,
        };
        // SAFETY: `S` proves that the machine has the instructions; the lengths were checked above.
        unsafe {
            if TypeId::of::<S>() == TypeId::of::<pulp::x86::V4>() {
                return match panel {
                    PanelValues::F32(values) => x86::f32_avx512(tile, left.count, values, sums),
                    PanelValues::Bf16(words) => x86::bf16_avx512(tile, left.count, words, sums),
                };
            }
            if TypeId::of::<S>() == TypeId::of::<pulp::x86::V3>() {
                return match panel {
                    PanelValues::F32(values) => x86::f32_avx2(tile, left.count, values, sums),
                    PanelValues::Bf16(words) => x86::bf16_avx2(tile, left.count, words, sums),
                };
            }
        }
    }
    macro_rules! heights {
        ($($height:literal)*) => {
            match left.count {
                $($height if $height <= ROWS_MAX => {
                    plain::<S, $height>(simd, left, inputs, (panel, bias), sums)
                })*
                _ => unreachable!("checked above"),
            }
        };
    }
    heights!(1 2 3 4 5 6 7 8 9 10 11 12);
}

/// Whether `S` is the generic code for machines without a known vector extension.
fn is_generic<S: Simd>() -> bool {
    TypeId::of::<S>() == TypeId::of::<Scalar256b>()
}

/// `sum + value · weights`; rounded twice on machines where a fused multiply-add is a library call.
#[inline(always)]
fn multiply_add<S: Simd>(simd: S, value: S::f32s, weights: S::f32s, sum: S::f32s) -> S::f32s {
    if is_generic::<S>() {
        simd.add_f32s(simd.mul_f32s(value, weights), sum)
    } else {
        simd.mul_add_e_f32s(value, weights, sum)
    }
}

/// Adds the contribution of one input to all sums.
#[inline(always)]
fn step<S: Simd, const ROWS: usize>(
    simd: S,
    tile: &mut [[S::f32s; 2]; ROWS],
    (left, input): (InputRows<'_>, usize),
    [low, high]: [S::f32s; 2],
) {
    for (row, sums) in tile.iter_mut().enumerate() {
        let value = simd.splat_f32s(left.values[row * left.stride + input]);
        sums[0] = multiply_add(simd, value, low, sums[0]);
        sums[1] = multiply_add(simd, value, high, sums[1]);
    }
}

/// The tile for machines without intrinsics.
#[inline(always)]
fn plain<S: Simd, const ROWS: usize>(
    simd: S,
    left: InputRows<'_>,
    inputs: usize,
    (panel, bias): (PanelValues<'_>, Option<&[f32]>),
    sums: &mut Sums,
) {
    let start = match bias {
        Some(bias) => {
            let (bias, _) = S::as_simd_f32s(bias);
            [bias[0], bias[1]]
        }
        None => [simd.splat_f32s(0.0); 2],
    };
    let mut tile = [start; ROWS];
    match panel {
        PanelValues::F32(values) => {
            let (panel, _) = S::as_simd_f32s(values);
            let panel = &panel.as_chunks::<2>().0[..inputs];
            for (input, weights) in panel.iter().enumerate() {
                step(simd, &mut tile, (left, input), *weights);
            }
        }
        PanelValues::Bf16(words) => {
            let (panel, _) = S::as_simd_u32s(words);
            let panel = &panel.as_chunks::<2>().0[..inputs.div_ceil(2)];
            // A bf16 is the upper half of the f32 with the same value.
            let (sixteen, mask) = (simd.splat_u32s(16), simd.splat_u32s(0xffff_0000));
            for (pair, words) in panel.iter().enumerate() {
                let [first, second] = *words;
                let low = [
                    simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(first, sixteen)),
                    simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(second, sixteen)),
                ];
                step(simd, &mut tile, (left, 2 * pair), low);
                if 2 * pair + 1 < inputs {
                    let high = [
                        simd.transmute_f32s_u32s(simd.and_u32s(first, mask)),
                        simd.transmute_f32s_u32s(simd.and_u32s(second, mask)),
                    ];
                    step(simd, &mut tile, (left, 2 * pair + 1), high);
                }
            }
        }
    }
    for (sums, tile) in sums.iter_mut().zip(tile) {
        let (sums, _) = S::as_mut_simd_f32s(sums);
        (sums[0], sums[1]) = (tile[0], tile[1]);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Sums;

    /// Prefetch distance in steps of the loop.
    const AHEAD: usize = 24;

    /// The left operand of a tile, and the initial values of its sums.
    #[derive(Clone, Copy)]
    pub(super) struct TileInputs<'a> {
        /// The first value of the first row.
        pub(super) values: *const f32,
        pub(super) stride: usize,
        pub(super) inputs: usize,
        pub(super) bias: Option<&'a [f32]>,
    }

    /// Defines the kernel for one instruction set and one format of weights. It turns the number of rows
    /// into a constant, so that the sums stay in registers.
    macro_rules! kernel {
        (
            $name:ident, $of:ident, $features:literal, $weight:ty, $lanes:literal,
            load: $load:ident, store: $store:ident, set: $set:ident, zero: $zero:ident,
            add: $add:ident, heights: $($height:literal)*,
            widen: |$words:ident| $widened:expr
        ) => {
            /// # Safety
            /// The machine has the instructions. Each row has `left.inputs` values, the panel has weights
            /// for as many inputs, and the bias is as wide as the panel.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $name(
                left: TileInputs<'_>,
                rows: usize,
                panel: &[$weight],
                sums: &mut Sums,
            ) {
                // SAFETY: the caller's promise.
                unsafe {
                    match rows {
                        $($height => $of::<$height>(left, panel, sums),)*
                        _ => unreachable!("the caller has checked the number of rows"),
                    }
                }
            }

            #[inline(never)]
            #[target_feature(enable = $features)]
            unsafe fn $of<const ROWS: usize>(
                left: TileInputs<'_>,
                panel: &[$weight],
                sums: &mut Sums,
            ) {
                /// Inputs per step of the loop.
                const PER_STEP: usize = widths::$name;
                let start = match left.bias {
                    // SAFETY: the caller's promise.
                    Some(bias) => unsafe {
                        [$load(bias.as_ptr()), $load(bias.as_ptr().add($lanes))]
                    },
                    None => [$zero(); 2],
                };
                let mut tile = [start; ROWS];
                let mut weights = panel.as_ptr();
                let mut input = 0;
                while input < left.inputs {
                    // SAFETY: the panel has weights for this input; a prefetch may use any address.
                    let $words = unsafe {
                        _mm_prefetch::<_MM_HINT_T0>(weights.wrapping_add(2 * $lanes * AHEAD).cast());
                        if $lanes == 16 {
                            let second = weights.wrapping_add(2 * $lanes * AHEAD + $lanes);
                            _mm_prefetch::<_MM_HINT_T0>(second.cast());
                        }
                        [$load(weights.cast()), $load(weights.add($lanes).cast())]
                    };
                    for (part, [low, high]) in $widened.into_iter().enumerate() {
                        // An odd last word has only its first half.
                        if part > 0 && input + part >= left.inputs {
                            break;
                        }
                        for (row, sums) in tile.iter_mut().enumerate() {
                            let offset = row * left.stride + input + part;
                            // SAFETY: the row has this input.
                            let value = unsafe { *left.values.add(offset) };
                            let value = $set(value);
                            sums[0] = $add(value, low, sums[0]);
                            sums[1] = $add(value, high, sums[1]);
                        }
                    }
                    input += PER_STEP;
                    weights = weights.wrapping_add(2 * $lanes);
                }
                for (sums, tile) in sums.iter_mut().zip(tile) {
                    // SAFETY: a row of sums is as wide as the widest panel.
                    unsafe {
                        $store(sums.as_mut_ptr(), tile[0]);
                        $store(sums.as_mut_ptr().add($lanes), tile[1]);
                    }
                }
            }
        };
    }

    /// Inputs per word of weights, for each kernel.
    #[expect(non_upper_case_globals, reason = "named after the kernels")]
    mod widths {
        pub(super) const f32_avx512: usize = 1;
        pub(super) const f32_avx2: usize = 1;
        pub(super) const bf16_avx512: usize = 2;
        pub(super) const bf16_avx2: usize = 2;
    }

    kernel!(
        f32_avx512, f32_avx512_of, "avx512f", f32, 16,
        load: _mm512_loadu_ps, store: _mm512_storeu_ps, set: _mm512_set1_ps,
        zero: _mm512_setzero_ps, add: _mm512_fmadd_ps,
        heights: 1 2 3 4 5 6 7 8 9 10 11 12 13 14,
        widen: |weights| [weights]
    );
    kernel!(
        f32_avx2, f32_avx2_of, "avx2,fma", f32, 8,
        load: _mm256_loadu_ps, store: _mm256_storeu_ps, set: _mm256_set1_ps,
        zero: _mm256_setzero_ps, add: _mm256_fmadd_ps,
        heights: 1 2 3 4 5 6,
        widen: |weights| [weights]
    );
    // A bf16 is the upper half of the f32 with the same value.
    kernel!(
        bf16_avx512, bf16_avx512_of, "avx512f", u32, 16,
        load: _mm512_loadu_ps, store: _mm512_storeu_ps, set: _mm512_set1_ps,
        zero: _mm512_setzero_ps, add: _mm512_fmadd_ps,
        heights: 1 2 3 4 5 6 7 8 9 10 11 12,
        widen: |words| {
            let words = words.map(|words| _mm512_castps_si512(words));
            let mask = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            [
                words.map(|words| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words))),
                words.map(|words| _mm512_castsi512_ps(_mm512_and_si512(words, mask))),
            ]
        }
    );
    kernel!(
        bf16_avx2, bf16_avx2_of, "avx2,fma", u32, 8,
        load: _mm256_loadu_ps, store: _mm256_storeu_ps, set: _mm256_set1_ps,
        zero: _mm256_setzero_ps, add: _mm256_fmadd_ps,
        heights: 1 2 3 4 5,
        widen: |words| {
            let words = words.map(|words| _mm256_castps_si256(words));
            let mask = _mm256_set1_epi32(0xffff_0000_u32 as i32);
            [
                words.map(|words| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words))),
                words.map(|words| _mm256_castsi256_ps(_mm256_and_si256(words, mask))),
            ]
        }
    );
}
