//! intentd: a BERT intent detection server that tells the autoscaler the truth.
#![forbid(unsafe_code)]

pub mod cli;
pub mod train;
