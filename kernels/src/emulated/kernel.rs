//! A kernel of the emulator, and the interface to its C++.

use std::ffi::{CStr, CString, c_char};

use crate::backend::{DeviceError, Launch};

unsafe extern "C" {
    fn emulator_arguments(name: *const c_char) -> u32;
    fn emulator_launch(
        only_begin: bool,
        slot: u32,
        name: *const c_char,
        blocks: u32,
        threads: u32,
        shared_bytes: usize,
        words: *const u64,
        seed: u64,
        fault: *mut c_char,
        fault_bytes: usize,
    ) -> i32;
}

/// A launch: the kernel's name, its grid, and one word for each argument.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    pub(super) name: CString,
    pub(super) launch: Launch,
    pub(super) words: Vec<u64>,
}

impl Kernel {
    /// The number of arguments of the kernel `name`; 0 when there is no such kernel.
    pub(super) fn arguments(name: &CStr) -> usize {
        // SAFETY: a C string, which is only read.
        let arguments = unsafe { emulator_arguments(name.as_ptr()) };
        arguments as usize
    }

    /// Runs the first block up to its wait for the preceding kernels, and keeps it in `slot`.
    pub(super) fn begin(&self, slot: u32) -> Result<(), DeviceError> {
        self.call(true, slot, 0)
    }

    /// Runs the kernel; continues a kernel that [`begin`](Self::begin) started, unless `slot` is 0. `seed`
    /// determines the order of warps.
    pub(super) fn run(&self, slot: u32, seed: u64) -> Result<(), DeviceError> {
        self.call(false, slot, seed)
    }

    fn call(&self, only_begin: bool, slot: u32, seed: u64) -> Result<(), DeviceError> {
        let mut fault = vec![0_u8; 256];
        // SAFETY: the caller of `launch` guarantees the arguments; their number was checked.
        let failed = unsafe {
            emulator_launch(
                only_begin,
                slot,
                self.name.as_ptr(),
                self.launch.blocks,
                self.launch.threads,
                self.launch.shared_bytes as usize,
                self.words.as_ptr(),
                seed,
                fault.as_mut_ptr().cast(),
                fault.len(),
            )
        };
        if failed == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&fault);
        let text = text.trim_end_matches('\0');
        let name = self.name.to_string_lossy();
        Err(DeviceError::Lost(format!("{name}: {text}")))
    }
}
