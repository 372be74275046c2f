//! Both attention kernels on ragged batches.

use std::ops::Range;

use intentd_kernels::{Attention, Buffer, Capacity, Dtype, Limits, QueryRows, oracle};

use crate::support::{Bench, assert_close, assert_untouched, ranges, round};

/// The expected context of all heads; with `first_only`, for the first token of each sequence only.
fn expected(
    qkv: &[f32],
    ranges: &[Range<usize>],
    attention: Attention,
    first_only: bool,
) -> Vec<f32> {
    let hidden = attention.heads * attention.head_size;
    let mut context = Vec::new();
    for range in ranges {
        let rows = &qkv[range.start * 3 * hidden..range.end * 3 * hidden];
        let queries = if first_only {
            &rows[..3 * hidden]
        } else {
            rows
        };
        let heads: Vec<Vec<f32>> = (0..attention.heads)
            .map(|head| {
                let at = |part: usize| {
                    let start = part * hidden + head * attention.head_size;
                    start..start + attention.head_size
                };
                let cut = |values: &[f32], columns: Range<usize>| -> Vec<f32> {
                    let row = |row: &[f32]| row[columns.clone()].to_vec();
                    values.chunks_exact(3 * hidden).flat_map(row).collect()
                };
                let size = attention.head_size;
                let (q, k, v) = (cut(queries, at(0)), cut(rows, at(1)), cut(rows, at(2)));
                oracle::attention((&q, size), (&k, size), (&v, size), 0..size)
            })
            .collect();
        let queries = queries.len() / (3 * hidden);
        for query in 0..queries {
            for head in &heads {
                context.extend(&head[query * attention.head_size..][..attention.head_size]);
            }
        }
    }
    context
}

fn limits(lengths: &[usize]) -> Limits {
    Limits {
        words: 10,
        types: 1,
        positions: lengths.iter().copied().max().unwrap_or(1),
    }
}

/// A capacity larger than the batch, as in a bucket.
fn capacity(lengths: &[usize]) -> Capacity {
    Capacity {
        tokens: lengths.iter().sum::<usize>() + 9,
        sequences: lengths.len() + 2,
    }
}

/// Random values in the rows of the batch, and NaN in the remaining rows of the capacity.
fn rows(
    bench: &mut Bench,
    lengths: &[usize],
    capacity: Capacity,
    width: usize,
    dtype: Dtype,
) -> (Vec<f32>, Buffer) {
    let mut values = bench.random(capacity.tokens * width, dtype);
    values[lengths.iter().sum::<usize>() * width..].fill(f32::NAN);
    let buffer = bench.upload(&values, dtype);
    (values, buffer)
}

const SHAPES: [&[usize]; 6] = [
    &[1],
    &[12],
    &[16, 17, 15],
    &[3, 33, 1, 8, 64, 2],
    &[130],
    &[31, 32, 1, 1, 1, 48],
];

/// A block processes eight tiles of 16 queries, and their keys in chunks of eight tiles.
const BLOCKS_AND_CHUNKS: [&[usize]; 7] = [
    // Exactly the tiles of a block, one less, one more.
    &[128],
    &[5, 90, 16],
    &[12, 12, 12, 12, 12, 12, 12, 12, 12],
    // Sequences across the edges of blocks and chunks, with blocks that begin in their middle.
    &[100, 60, 20],
    &[20, 200, 3],
    // Several chunks and a short sequence behind them; all possible numbers of remaining tiles.
    &[390, 7],
    &[40, 50, 65],
];

#[track_caller]
fn check_tiles(dtype: Dtype, attention: Attention, lengths: &[usize]) {
    let hidden = attention.heads * attention.head_size;
    let mut bench = Bench::new(lengths.len() as u64 * 7 + attention.heads as u64);
    let capacity = capacity(lengths);
    let batch = bench.batch(lengths, capacity, limits(lengths));
    let (qkv, qkv_buffer) = rows(&mut bench, lengths, capacity, 3 * hidden, dtype);
    let context = bench.poisoned(capacity.tokens * hidden, dtype);
    let device = &bench.device;
    device
        .attention_tiles(&batch.placed, attention, &qkv_buffer, &context)
        .unwrap();
    let expected = expected(&qkv, &ranges(lengths), attention, false);
    let found = bench.read(&context);
    assert_close(&found[..expected.len()], &expected, dtype, 4.0);
    assert_untouched(&found[expected.len()..]);
}

#[test]
fn tiles_attend_within_each_sequence() {
    for dtype in [Dtype::F16, Dtype::Bf16] {
        for (heads, head_size) in [(1, 64), (3, 64), (2, 32), (1, 32)] {
            for lengths in SHAPES {
                check_tiles(dtype, Attention { heads, head_size }, lengths);
            }
        }
    }
}

#[test]
fn tiles_handle_the_edges_of_blocks_and_chunks() {
    for (dtype, head_size) in [(Dtype::F16, 64), (Dtype::Bf16, 32)] {
        for lengths in BLOCKS_AND_CHUNKS {
            let heads = 2;
            check_tiles(dtype, Attention { heads, head_size }, lengths);
        }
    }
}

#[test]
fn nan_in_a_sequence_does_not_reach_its_neighbours() {
    // All three sequences share a block; the middle one has the values that an overflow leaves behind.
    let lengths = [13, 21, 10];
    let attention = Attention {
        heads: 1,
        head_size: 64,
    };
    let mut bench = Bench::new(9);
    let capacity = capacity(&lengths);
    let batch = bench.batch(&lengths, capacity, limits(&lengths));
    let mut qkv = bench.random(capacity.tokens * 192, Dtype::F16);
    qkv[13 * 192..34 * 192].fill(f32::NAN);
    let buffer = bench.upload(&qkv, Dtype::F16);
    let context = bench.poisoned(capacity.tokens * 64, Dtype::F16);
    let device = &bench.device;
    device
        .attention_tiles(&batch.placed, attention, &buffer, &context)
        .unwrap();
    let expected = expected(&qkv, &ranges(&lengths), attention, false);
    let found = bench.read(&context);
    for range in [0..13 * 64, 34 * 64..44 * 64] {
        assert_close(&found[range.clone()], &expected[range], Dtype::F16, 4.0);
    }
}

#[test]
fn rows_support_every_type_and_head_size() {
    for (dtype, heads, head_size, tolerance) in [
        (Dtype::F32, 2, 64, 64.0),
        (Dtype::F32, 1, 8, 64.0),
        (Dtype::F32, 1, 256, 64.0),
        (Dtype::F16, 2, 48, 4.0),
        (Dtype::Bf16, 2, 96, 4.0),
    ] {
        for lengths in SHAPES {
            let attention = Attention { heads, head_size };
            let hidden = heads * head_size;
            let mut bench = Bench::new(head_size as u64);
            let capacity = capacity(lengths);
            let batch = bench.batch(lengths, capacity, limits(lengths));
            let (qkv, qkv_buffer) = rows(&mut bench, lengths, capacity, 3 * hidden, dtype);
            let context = bench.poisoned(capacity.tokens * hidden, dtype);
            let stride = 3 * hidden;
            let kv = qkv_buffer.slice(hidden..qkv_buffer.len());
            let rows = QueryRows::All {
                q: &qkv_buffer,
                stride,
            };
            let device = &bench.device;
            device
                .attention_rows(&batch.placed, attention, rows, (&kv, stride), &context)
                .unwrap();
            let expected = expected(&qkv, &ranges(lengths), attention, false);
            let found = bench.read(&context);
            assert_close(&found[..expected.len()], &expected, dtype, tolerance);
            assert_untouched(&found[expected.len()..]);
        }
    }
}

#[test]
fn attention_of_first_tokens_alone_is_the_same() {
    for dtype in [Dtype::F32, Dtype::F16] {
        for packed in [false, true] {
            for lengths in SHAPES {
                let attention = Attention {
                    heads: 2,
                    head_size: 64,
                };
                let (hidden, stride) = (128, 3 * 128);
                let mut bench = Bench::new(lengths.len() as u64);
                let capacity = capacity(lengths);
                let batch = bench.batch(lengths, capacity, limits(lengths));
                let (qkv, qkv_buffer) = rows(&mut bench, lengths, capacity, stride, dtype);
                let context = bench.poisoned(capacity.sequences * hidden, dtype);
                let kv = qkv_buffer.slice(hidden..qkv_buffer.len());
                let mut first: Vec<f32> = ranges(lengths)
                    .into_iter()
                    .flat_map(|range| qkv[range.start * stride..][..hidden].to_vec())
                    .collect();
                first.resize(capacity.sequences * hidden, 0.0);
                let first = bench.upload(&first, dtype);
                let rows = match packed {
                    true => QueryRows::Packed { q: &first },
                    false => QueryRows::First {
                        q: &qkv_buffer,
                        stride,
                    },
                };
                let device = &bench.device;
                device
                    .attention_rows(&batch.placed, attention, rows, (&kv, stride), &context)
                    .unwrap();
                let expected = expected(&qkv, &ranges(lengths), attention, true);
                let found = bench.read(&context);
                assert_close(&found[..expected.len()], &expected, dtype, 64.0);
                assert_untouched(&found[expected.len()..]);
            }
        }
    }
}

#[test]
fn large_scores_do_not_overflow() {
    // 20 keys with scores of thousands: exp() would be infinite without the running maximum. 200 keys with
    // scores of tens: the largest comes late in most rows, and earlier sums have to be rescaled.
    for (lengths, factor) in [([20], 60.0), ([200], 12.0)] {
        let attention = Attention {
            heads: 1,
            head_size: 64,
        };
        let mut bench = Bench::new(2);
        let capacity = capacity(&lengths);
        let batch = bench.batch(&lengths, capacity, limits(&lengths));
        let qkv: Vec<f32> = bench
            .random(capacity.tokens * 192, Dtype::F32)
            .iter()
            .map(|v| round(v * factor, Dtype::F16))
            .collect();
        let buffer = bench.upload(&qkv, Dtype::F16);
        let context = bench.poisoned(capacity.tokens * 64, Dtype::F16);
        bench
            .device
            .attention_tiles(&batch.placed, attention, &buffer, &context)
            .unwrap();
        let expected = expected(&qkv, &ranges(&lengths), attention, false);
        let found = bench.read(&context);
        assert_close(&found[..expected.len()], &expected, Dtype::F16, 4.0);
    }
}
