//! Devices, memory and graphs.

use intentd_kernels::{
    Activation, Capacity, Device, DeviceError, Dtype, Emulation, InputError, Inputs, Limits,
    Product, ProductShape, TokenIds, oracle,
};

use crate::support::{Bench, assert_close};

const LIMITS: Limits = Limits {
    words: 10,
    types: 2,
    positions: 8,
};

#[test]
fn memory_is_bounded_and_freed() {
    let device = Device::emulator(Emulation {
        memory_bytes: 1000,
        ..Emulation::default()
    })
    .unwrap();
    let first = device.zeros(Dtype::F32, 200).unwrap();
    let error = device.zeros(Dtype::F32, 100).unwrap_err();
    assert_eq!(error, DeviceError::OutOfMemory { bytes: 400 });
    assert_eq!(device.free_bytes(), Ok(200));
    let part = first.slice(10..20);
    drop(first);
    assert!(
        device.zeros(Dtype::F32, 100).is_err(),
        "the slice keeps the memory"
    );
    drop(part);
    device.zeros(Dtype::F32, 250).unwrap();
}

/// If the flag stayed set, all later work would go into a recording that never runs.
#[test]
fn a_panic_while_recording_ends_the_recording() {
    let device = Device::emulator(Emulation::default()).unwrap();
    let record = || device.capture(|| panic!("a test's panic"));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(record));
    assert!(panicked.is_err());
    let [x, y] = [(); 2].map(|()| device.zeros(Dtype::F32, 4).unwrap());
    let launches = device.counters().launches;
    device.convert(&x, &y).unwrap();
    assert_eq!(device.counters().launches, launches + 1, "enqueued");
    let failed = device.capture(|| Err(DeviceError::Failed("no".to_owned())));
    assert!(failed.is_err());
    device.convert(&x, &y).unwrap();
    assert_eq!(device.counters().launches, launches + 2, "enqueued");
}

/// A failed `begin_capture` used to overwrite the memory list of a recording in progress.
#[test]
fn a_recording_that_fails_to_begin_keeps_the_one_in_progress() {
    let device = Device::emulator(Emulation::default()).unwrap();
    let free = device.free_bytes().unwrap();
    let [x, y] = [(); 2].map(|()| device.zeros(Dtype::F32, 4).unwrap());
    let record = || {
        device.convert(&x, &y)?;
        assert!(device.capture(|| Ok(())).is_err(), "one is in progress");
        Ok(())
    };
    let graph = device.capture(record).unwrap();
    drop((x, y));
    assert!(device.free_bytes().unwrap() < free, "the graph keeps them");
    drop(graph);
    assert_eq!(device.free_bytes().unwrap(), free);
}

/// A failed `begin_capture` used to leave its memory list behind, and every later launch was added to it.
#[test]
fn a_recording_that_fails_to_begin_leaves_nothing_behind() {
    let device = Device::emulator(Emulation {
        lost_after: Some(1),
        ..Emulation::default()
    })
    .unwrap();
    let free = device.free_bytes().unwrap();
    let [x, y] = [(); 2].map(|()| device.zeros(Dtype::F32, 4).unwrap());
    for _ in 0..2 {
        device.convert(&x, &y).unwrap();
    }
    assert!(matches!(device.synchronize(), Err(DeviceError::Lost(_))));
    assert!(device.capture(|| Ok(())).is_err(), "the device is lost");
    assert!(device.convert(&x, &y).is_err());
    drop((x, y));
    assert_eq!(device.free_bytes().unwrap(), free, "no launch is noted");
}

#[test]
#[should_panic(expected = "a graph of this device")]
fn a_graph_of_another_device_is_not_replayed() {
    let [here, there] = [1, 2].map(|seed| {
        let emulation = Emulation {
            seed,
            ..Emulation::default()
        };
        Device::emulator(emulation).unwrap()
    });
    let [x, y] = [(); 2].map(|()| here.zeros(Dtype::F32, 4).unwrap());
    let graph = here.capture(|| here.convert(&x, &y)).unwrap();
    let _ = there.replay(&graph, &mut []);
}

#[test]
fn a_graph_reads_the_counts_of_the_current_batch() {
    let mut bench = Bench::new(4);
    let capacity = Capacity {
        tokens: 16,
        sequences: 2,
    };
    let inputs = Inputs::new(&bench.device, capacity, LIMITS).unwrap();
    let placed = inputs.placed(capacity);
    let (bias, bias_buffer) = bench.values(8, Dtype::F32);
    let x = bench.device.zeros(Dtype::F32, 16 * 8).unwrap();
    let device = bench.device.clone();
    let before = device.counters();
    let graph = device
        .capture(|| device.bias_activation(&placed.tokens, &x, &bias_buffer, Activation::None))
        .unwrap();
    assert_eq!(
        device.counters().launches,
        before.launches,
        "recorded, not enqueued"
    );
    // The graph has to keep what it uses.
    let kept = x.clone();
    drop((x, bias_buffer, placed));

    let mut pinned = device.pinned(capacity.words() * 4).unwrap();
    let mut sums = vec![0.0; 16 * 8];
    for lengths in [&[3][..], &[8, 7], &[1, 1]] {
        let tokens = lengths.iter().sum();
        let ids = vec![0; tokens];
        let lengths = lengths.iter().copied();
        let batch = TokenIds {
            ids: &ids,
            type_ids: &ids,
        };
        inputs.pack(capacity, batch, lengths, &mut pinned).unwrap();
        inputs.upload(&device, capacity, &mut pinned).unwrap();
        device.replay(&graph, &mut []).unwrap();
        for (i, sum) in sums.iter_mut().enumerate().take(tokens * 8) {
            *sum += bias[i % 8];
        }
        assert_close(&bench.read(&kept), &sums, Dtype::F32, 2.0);
    }
    assert_eq!(device.counters().replays, 3);
}

#[test]
fn a_graph_may_copy_in_and_out() {
    let device = Device::emulator(Emulation::default()).unwrap();
    let buffer = device.zeros(Dtype::U32, 4).unwrap();
    let [mut from, mut to] = [(); 2].map(|()| device.pinned(16).unwrap());
    let record = || {
        device.upload(&mut from, &buffer)?;
        device.download(&buffer, &mut to)
    };
    let graph = device.capture(record).unwrap();
    for round in 1..4 {
        from.write_u32().unwrap().fill(round);
        device.replay(&graph, &mut [&mut from, &mut to]).unwrap();
        // Reading waits for the replay, not for the recording.
        assert_eq!(to.read().unwrap()[..4], round.to_le_bytes());
    }
    // Pinned memory is not overwritten before the copy from it is done.
    device.replay(&graph, &mut [&mut from, &mut to]).unwrap();
    from.write_u32().unwrap().fill(9);
    assert_eq!(to.read().unwrap()[..4], 3_u32.to_le_bytes());
}

#[test]
#[should_panic(expected = "the pinned memory that the graph was recorded with")]
fn a_graph_is_not_replayed_with_other_pinned_memory() {
    let device = Device::emulator(Emulation::default()).unwrap();
    let buffer = device.zeros(Dtype::U32, 4).unwrap();
    let [mut from, mut other] = [(); 2].map(|()| device.pinned(16).unwrap());
    let graph = device.capture(|| device.upload(&mut from, &buffer));
    let _ = device.replay(&graph.unwrap(), &mut [&mut other]);
}

#[test]
#[should_panic(expected = "the pinned memory that the graph was recorded with")]
fn a_graph_is_not_replayed_with_memory_at_the_address_of_its_freed_memory() {
    let device = Device::emulator(Emulation::default()).unwrap();
    let buffer = device.zeros(Dtype::U32, 4096).unwrap();
    let mut to = device.pinned(4 * 4096).unwrap();
    let graph = device
        .capture(|| device.download(&buffer, &mut to))
        .unwrap();
    drop(to);
    // Often at the same address, but always too small.
    let mut smaller = device.pinned(4).unwrap();
    let _ = device.replay(&graph, &mut [&mut smaller]);
}

#[test]
#[should_panic(expected = "pinned memory of this device")]
fn pinned_memory_of_another_device_is_not_copied_to() {
    let [here, there] = [(); 2].map(|()| Device::emulator(Emulation::default()).unwrap());
    let buffer = here.zeros(Dtype::U32, 4).unwrap();
    let _ = here.download(&buffer, &mut there.pinned(16).unwrap());
}

#[test]
fn copies_of_another_thread_are_not_recorded() {
    let bench = Bench::new(1);
    let device = &bench.device;
    let buffer = device.zeros(Dtype::U32, 4).unwrap();
    let work = || {
        std::thread::scope(|scope| {
            let other = scope.spawn(|| bench.read(&bench.upload(&[7.0; 4], Dtype::U32)));
            assert_eq!(other.join().unwrap(), [7.0; 4]);
        });
        Ok(())
    };
    let graph = device.capture(work).unwrap();
    device.replay(&graph, &mut []).unwrap();
    assert_eq!(bench.read(&buffer), [0.0; 4]);
}

#[test]
fn a_lost_device_fails_every_later_call() {
    let device = Device::emulator(Emulation {
        lost_after: Some(1),
        ..Emulation::default()
    })
    .unwrap();
    let x = device.zeros(Dtype::F32, 8).unwrap();
    let y = device.zeros(Dtype::F16, 8).unwrap();
    device.convert(&x, &y).unwrap();
    device.synchronize().unwrap();
    device.convert(&x, &y).unwrap();
    assert!(matches!(device.synchronize(), Err(DeviceError::Lost(_))));
    assert!(matches!(device.convert(&x, &y), Err(DeviceError::Lost(_))));
}

#[test]
fn products_add_a_bias_and_a_residual() {
    for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
        let mut bench = Bench::new(8);
        let (rows, inner, outer) = (5, 40, 24);
        let (x, x_buffer) = bench.values(rows * inner, dtype);
        let (w, w_buffer) = bench.values(outer * inner, dtype);
        let (bias, bias_buffer) = bench.values(outer, dtype);
        let (residual, residual_buffer) = bench.values(rows * outer, dtype);
        let product = oracle::linear(&x, &w, &bias);
        for with_residual in [false, true] {
            let y = bench.poisoned(rows * outer, dtype);
            let product_of = Product {
                shape: ProductShape {
                    dtype,
                    rows,
                    inner,
                    outer,
                    bias: true,
                    residual: with_residual,
                },
                x: &x_buffer,
                w: w_buffer.clone(),
                bias: Some(bias_buffer.clone()),
                residual: with_residual.then_some(&residual_buffer),
                y: &y,
            };
            bench.device.product(&product_of).unwrap();
            let added = |(a, b): (&f32, &f32)| if with_residual { a + b } else { *a };
            let expected: Vec<f32> = product.iter().zip(&residual).map(added).collect();
            assert_close(&bench.read(&y), &expected, dtype, 64.0);
        }
    }
}

#[test]
fn batches_beyond_the_tables_or_the_capacity_are_refused() {
    let bench = Bench::new(1);
    let capacity = Capacity {
        tokens: 12,
        sequences: 2,
    };
    let inputs = Inputs::new(&bench.device, capacity, LIMITS).unwrap();
    let mut pinned = bench.device.pinned(capacity.words() * 4).unwrap();
    let mut pack = |ids: &[u32], types: &[u32], lengths: &[usize]| {
        let lengths = lengths.iter().copied();
        let batch = TokenIds {
            ids,
            type_ids: types,
        };
        inputs.pack(capacity, batch, lengths, &mut pinned)
    };
    pack(&[9; 12], &[1; 12], &[8, 4]).unwrap();
    for (ids, types, lengths) in [
        (&[10][..], &[0][..], &[1][..]),
        (&[1], &[2], &[1]),
        (&[1; 9], &[0; 9], &[9]),
        (&[1; 13], &[0; 13], &[8, 5]),
        (&[1; 3], &[0; 3], &[1, 1, 1]),
        (&[1; 3], &[0; 2], &[3]),
        (&[1; 3], &[0; 3], &[2]),
        (&[1; 3], &[0; 3], &[2, 2]),
        (&[1; 3], &[0; 3], &[3, 0]),
    ] {
        let result = pack(ids, types, lengths);
        assert!(
            matches!(result, Err(InputError::Invalid(_))),
            "{ids:?} {types:?} {lengths:?}"
        );
    }
}

#[test]
fn limits_beyond_the_longest_sequence_of_the_kernels_are_refused() {
    let bench = Bench::new(1);
    let capacity = Capacity {
        tokens: 16,
        sequences: 1,
    };
    let limits = |positions| Limits {
        positions,
        ..LIMITS
    };
    Inputs::new(&bench.device, capacity, limits(4096)).unwrap();
    Inputs::new(&bench.device, capacity, limits(4097)).unwrap_err();
}

#[test]
fn a_build_without_cuda_has_no_cuda_device() {
    // In a build with CUDA, the error depends on the machine.
    if cfg!(feature = "driver") {
        eprintln!("skipped: built with CUDA");
        return;
    }
    assert!(
        matches!(Device::cuda(0), Err(DeviceError::Unavailable(text)) if text.contains("no CUDA"))
    );
}
