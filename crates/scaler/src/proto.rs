//! Messages and calls of KEDA, generated from `proto/externalscaler/externalscaler.proto`.
#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated"
)]

tonic::include_proto!("externalscaler");
