//! One method of [`Device`](crate::Device) per kernel: shapes are checked here, the arithmetic is in
//! `cuda/*.cu`, its meaning in [`oracle`](crate::oracle).
//!
//! `x[rows, columns]` is row-major. Every method enqueues its kernel and returns.

mod attention;
mod elementwise;
mod launch;
mod norm;
mod product;
mod skinny;

pub use attention::{Attention, QueryRows};
pub use norm::{Norm, Tables};
pub use product::Product;
pub use skinny::{SKINNY_ROWS_MAX, Skinny};
