//! The surfaces: the interfaces by which clients ask for predictions, one file or folder each.
//!
//! A new surface is a file here with a `SURFACE`, its `mod` and its entry in [`SURFACES`], and a row in
//! `docs/surfaces.md`. Its routes, its part of the OpenAPI document, its label in metrics and its spans follow.

pub(super) mod cloudevents;
pub(super) mod grpc;
pub(super) mod inference;
mod predict;
mod tei;

use super::surface::SurfaceEntry;

/// All surfaces on the main port.
pub(super) static SURFACES: [&SurfaceEntry; 5] = [
    &predict::SURFACE,
    &cloudevents::SURFACE,
    &tei::SURFACE,
    &inference::SURFACE,
    &grpc::SURFACE,
];
