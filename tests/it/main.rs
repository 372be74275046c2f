//! Integration tests, in one binary so that the crate is linked once.

#![expect(
    clippy::unwrap_used,
    reason = "a helper of a test may panic as the test itself may"
)]

mod bench;
mod checkpoint;
mod cuda;
mod faults;
mod fuzz;
mod golden;
mod predict;
mod process;
mod readme;
mod serving;
mod support;
mod tokenization;
